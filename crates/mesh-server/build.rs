//! Embeds the Python sources of the agent, so that the server can hand them to clusters.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let variable = |name: &str| {
        env::var_os(name).map(PathBuf::from).ok_or_else(|| io::Error::other(format!("no {name}")))
    };
    let root = variable("CARGO_MANIFEST_DIR")?.join("../../python/schedulemesh/agent");
    println!("cargo::rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    find(&root, &mut files)?;
    files.sort();
    let mut code = String::from("/// The agent's files, by their path inside the package.\n");
    code.push_str("const AGENT_SOURCES: &[(&str, &[u8])] = &[\n");
    for file in files {
        let inside = file.strip_prefix(&root).map_err(io::Error::other)?;
        let full = file.canonicalize()?;
        let (inside, full) = (inside.to_string_lossy(), full.to_string_lossy());
        writeln!(code, "    ({inside:?}, include_bytes!({full:?})),").map_err(io::Error::other)?;
    }
    code.push_str("];\n");
    fs::write(variable("OUT_DIR")?.join("agent_sources.rs"), code)
}

fn find(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "py") {
            files.push(path);
        }
    }
    Ok(())
}
