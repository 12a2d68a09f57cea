//! What a store refuses to open, and that it leaves it as it was.

use std::fs;
use std::path::Path;

use mesh_store::{SqliteStore, StoreError};
use rusqlite::Connection;

use crate::keep::filled;

/// Fails to open what is there, and checks that not a byte of it changed.
fn refusal(dir: &Path) -> StoreError {
    let path = dir.join("mesh.db");
    let before = fs::read(&path).unwrap();
    let refusal = SqliteStore::open(dir).unwrap_err();
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(
        fs::read_dir(dir)
            .unwrap()
            .filter(|file| {
                let name = file.as_ref().unwrap().file_name();
                name != "mesh.db" && name != "mesh.lock"
            })
            .count(),
        0
    );
    refusal
}

fn message(dir: &Path, error: &StoreError) -> String {
    error.to_string().replace(dir.to_str().unwrap(), "DIR")
}

#[test]
fn a_newer_format() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path()));
    let file = Connection::open(dir.path().join("mesh.db")).unwrap();
    file.pragma_update(None, "user_version", 7).unwrap();
    file.close().unwrap();

    let error = refusal(dir.path());
    assert!(matches!(error, StoreError::Newer { found: 7, known: 1, .. }));
    assert_eq!(
        message(dir.path(), &error),
        "DIR/mesh.db has format 7, this release knows formats up to 1; \
         start the release that wrote it, or a newer one"
    );
    assert!(matches!(SqliteStore::open_read_only(dir.path()), Err(StoreError::Newer { .. })));
}

#[test]
fn a_newer_format_that_only_the_log_tells_of() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    let file = Connection::open(dir.path().join("mesh.db")).unwrap();
    file.pragma_update(None, "user_version", 7).unwrap();
    let crashed = tempfile::tempdir().unwrap();
    let image = |name: &str| crashed.path().join(name);
    for name in ["mesh.db", "mesh.db-wal"] {
        fs::copy(dir.path().join(name), image(name)).unwrap();
    }
    drop((file, store));
    let before = ["mesh.db", "mesh.db-wal"].map(|name| fs::read(image(name)).unwrap());

    let error = SqliteStore::open(crashed.path()).unwrap_err();

    assert!(matches!(error, StoreError::Newer { found: 7, known: 1, .. }), "{error}");
    assert_eq!(before, ["mesh.db", "mesh.db-wal"].map(|name| fs::read(image(name)).unwrap()));
}

#[test]
fn the_database_of_another_program() {
    let dir = tempfile::tempdir().unwrap();
    let file = Connection::open(dir.path().join("mesh.db")).unwrap();
    file.execute_batch("CREATE TABLE song (name TEXT)").unwrap();
    file.close().unwrap();
    let error = refusal(dir.path());
    assert!(matches!(error, StoreError::Foreign { .. }));
    assert_eq!(
        message(dir.path(), &error),
        "DIR/mesh.db is not a ScheduleMesh store: it is the SQLite database of another program; \
         name another state directory, or move the file away"
    );
}

#[test]
fn something_that_is_no_database() {
    for (content, what) in [
        ("", "it is empty"),
        ("SQLite format 3\0", "it is not an SQLite database"),
        (&"notes ".repeat(100), "it is not an SQLite database"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("mesh.db"), content).unwrap();
        let error = refusal(dir.path());
        assert!(
            matches!(&error, StoreError::Foreign { what: found, .. } if found == what),
            "{error}"
        );
    }
}

#[test]
fn a_log_without_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    let copy = tempfile::tempdir().unwrap();
    fs::copy(dir.path().join("mesh.db-wal"), copy.path().join("mesh.db-wal")).unwrap();
    drop(store);
    let error = SqliteStore::open(copy.path()).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("it is missing, but its log"), "{error}");
    assert!(!copy.path().join("mesh.db").exists());
}

#[test]
fn a_store_that_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    let error = SqliteStore::open(dir.path()).unwrap_err();
    let pid = std::process::id();
    assert!(matches!(error, StoreError::Locked { pid: Some(found), .. } if found == pid));
    assert_eq!(
        message(dir.path(), &error),
        format!(
            "DIR/mesh.lock is in use by process {pid}; \
             stop that one, or name another state directory"
        )
    );
    drop(store);
    SqliteStore::open(dir.path()).unwrap();
}

#[test]
fn half_a_new_file_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mesh.db.new"), "half").unwrap();
    fs::write(dir.path().join("mesh.db.new-journal"), "half").unwrap();
    drop(filled(dir.path()));
    assert!(!dir.path().join("mesh.db.new").exists());
}
