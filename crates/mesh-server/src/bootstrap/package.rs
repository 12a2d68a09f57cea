//! The agent's sources, as a package that a Ray cluster can be given.

use std::io::{Cursor, Write as _};
use std::sync::OnceLock;

use mesh_api::problem::Problem;
use zip::write::{SimpleFileOptions, ZipWriter};

include!(concat!(env!("OUT_DIR"), "/agent_sources.rs"));

/// The package folder is uploaded without the SDK, so its door is a small one.
const DOOR: &str = "\"\"\"ScheduleMesh, as far as it runs inside a Ray cluster: the agent.\"\"\"\n";

/// A package: its name, which holds the digest of its bytes, and the bytes.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// The package of this build's agent.
pub(crate) fn package() -> Result<&'static Package, Problem> {
    static PACKAGE: OnceLock<Result<Package, String>> = OnceLock::new();
    let package = PACKAGE.get_or_init(|| build(AGENT_SOURCES).map_err(|error| error.to_string()));
    package.as_ref().map_err(|error| {
        Problem::new("INTERNAL", format!("the agent can't be packed: {error}"), "report it")
    })
}

fn build(sources: &[(&str, &[u8])]) -> zip::result::ZipResult<Package> {
    // A fixed time, so that equal sources make equal packages.
    let options = SimpleFileOptions::default().last_modified_time(zip::DateTime::default());
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("schedulemesh/__init__.py", options)?;
    zip.write_all(DOOR.as_bytes())?;
    for (path, bytes) in sources {
        zip.start_file(format!("schedulemesh/agent/{path}"), options)?;
        zip.write_all(bytes)?;
    }
    let bytes = zip.finish()?.into_inner();
    let digest = blake3::hash(&bytes).to_hex();
    let short: String = digest.chars().take(32).collect();
    Ok(Package { name: format!("_ray_pkg_{short}.zip"), bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_holds_the_agent_and_its_door() {
        let package = package().unwrap();
        let mut zip = zip::ZipArchive::new(Cursor::new(&package.bytes)).unwrap();
        for file in ["schedulemesh/__init__.py", "schedulemesh/agent/__main__.py"] {
            assert!(zip.by_name(file).is_ok(), "{file} is missing");
        }
    }

    #[test]
    fn equal_sources_make_equal_packages() {
        let one = build(&[("a.py", b"x = 1\n")]).unwrap();
        let same = build(&[("a.py", b"x = 1\n")]).unwrap();
        let other = build(&[("a.py", b"x = 2\n")]).unwrap();
        assert_eq!((&one.name, &one.bytes), (&same.name, &same.bytes));
        assert_ne!(one.name, other.name);
    }
}
