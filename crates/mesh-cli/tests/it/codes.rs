//! Every code that the program can show has an entry in the table.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use mesh_cli::codes::{ENTRIES, Topic, find};

/// Where codes are made: before the code stands one of these.
const MAKERS: [&str; 5] = ["Problem::new(", "code: ", "=> ", "code = ", "code="];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "py") {
            found.push(path);
        }
    }
}

/// Words in capitals that stand as a text right after something that makes a code.
fn codes_in(text: &str) -> impl Iterator<Item = &str> {
    MAKERS.iter().flat_map(|maker| text.split(maker).skip(1)).filter_map(|rest| {
        let (word, _) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
        let is_code = word.len() > 3
            && word.contains(|letter: char| letter.is_ascii_uppercase())
            && word.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_');
        is_code.then_some(word)
    })
}

#[test]
fn every_code_in_the_sources_is_explained() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for name in ["mesh-core", "mesh-store", "mesh-api", "mesh-server", "mesh-cli", "mesh-py"] {
        sources(&crates.join(name).join("src"), &mut files);
    }
    sources(&crates.join("../python/schedulemesh"), &mut files);
    let mut unexplained = BTreeSet::new();
    let mut seen = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let (code, _tests) = text.split_once("#[cfg(test)]").unwrap_or((&text, ""));
        for word in codes_in(code) {
            seen += 1;
            if find(word).next().is_none() {
                unexplained.insert(format!("{word} in {}", file.display()));
            }
        }
    }
    assert!(seen > 50, "the search finds codes at all: {seen}");
    assert_eq!(unexplained, BTreeSet::new(), "add them to src/codes/table.rs");
}

#[test]
fn the_table_is_in_order_and_says_something() {
    let place = |topic| Topic::ALL.iter().position(|known| *known == topic);
    let order: Vec<_> = ENTRIES.iter().map(|entry| (place(entry.topic), entry.code)).collect();
    let mut sorted = order.clone();
    sorted.sort_by_key(|(topic, code)| (*topic, code.replace('_', " ")));
    sorted.dedup();
    assert_eq!(order, sorted);
    for entry in ENTRIES {
        assert!(entry.what.ends_with('.') && !entry.what.contains("  "), "{}", entry.code);
        assert!(!entry.fix.is_empty() && !entry.fix.contains("  "), "{}", entry.code);
    }
}

#[test]
fn a_slip_of_the_finger_is_understood() {
    assert_eq!(mesh_cli::codes::nearest("no_rom"), "NO_ROOM");
    assert_eq!(mesh_cli::codes::nearest("INFEASABLE"), "INFEASIBLE");
}
