//! Files of every format that was ever released must open for ever.

use std::fs;
use std::path::{Path, PathBuf};

use mesh_store::SqliteStore;

use crate::dump::dump;
use crate::keep::filled;

fn fixture(format: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats").join(format)
}

/// What the tables and the marks of a file are.
fn layout(path: &Path) -> Vec<String> {
    let file = rusqlite::Connection::open(path).unwrap();
    let mut select = file.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL").unwrap();
    let tables = select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap);
    let marks = ["application_id", "user_version", "journal_mode"].map(|name| {
        file.pragma_query_value(None, name, |row| {
            row.get(0).map(|value: rusqlite::types::Value| format!("{name} {value:?}"))
        })
        .unwrap()
    });
    tables.chain(marks).collect()
}

#[test]
fn format_1_opens() {
    let fixture = fixture("v1");
    let dir = tempfile::tempdir().unwrap();
    fs::copy(fixture.join("mesh.db"), dir.path().join("mesh.db")).unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let expected = fs::read_to_string(fixture.join("expected.txt")).unwrap();
    assert_eq!(dump(&store), expected);
}

#[test]
fn what_this_release_writes_is_laid_out_as_format_1() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path()));
    let copy = tempfile::NamedTempFile::new().unwrap();
    fs::copy(fixture("v1").join("mesh.db"), copy.path()).unwrap();
    assert_eq!(layout(&dir.path().join("mesh.db")), layout(copy.path()));
}
