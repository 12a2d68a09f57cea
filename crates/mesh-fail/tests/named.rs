//! Every failpoint that is declared is somewhere in the sources, and every one there is declared.

use std::collections::BTreeSet;
use std::path::Path;

use mesh_fail::POINTS;

/// The words in quotes of the Rust sources below a folder.
fn quoted(folder: &Path, words: &mut BTreeSet<String>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            quoted(&path, words)?;
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            // Every part, not every second one: a quote in a comment shifts them all by one.
            words.extend(std::fs::read_to_string(&path)?.split('"').map(str::to_owned));
        }
    }
    Ok(())
}

#[test]
fn what_is_declared_is_somewhere_and_what_is_somewhere_is_declared() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut words = BTreeSet::new();
    for name in ["mesh-store", "mesh-server"] {
        quoted(&crates.join(name).join("src"), &mut words).unwrap();
    }
    let missing: Vec<_> = POINTS.iter().filter(|point| !words.contains(**point)).collect();
    assert!(missing.is_empty(), "declared, and nowhere: {missing:?}");
    let families: BTreeSet<_> =
        POINTS.iter().filter_map(|point| Some(point.rsplit_once('.')?.0)).collect();
    let looks_like_one = |word: &&String| {
        word.rsplit_once('.').is_some_and(|(family, _)| families.contains(family))
            && word.chars().all(|letter| matches!(letter, 'a'..='z' | '_' | '.'))
    };
    let strange: Vec<_> = words
        .iter()
        .filter(looks_like_one)
        .filter(|word| !POINTS.contains(&word.as_str()))
        .collect();
    assert!(strange.is_empty(), "somewhere, and not declared: {strange:?}");
}
