//! A disk that is full, as a small file system of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mesh_core::model::id::TaskId;
use mesh_store::{Batch, RESERVE_FILE, Side, Space, SqliteStore, Store, StoreError};

use crate::keep::entries;
use crate::sample;

/// A file system of its own, where this user may mount one; else this returns nothing, and what it
/// would show is shown by the store in memory alone.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(mebibytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir.path())
            .output();
        mount.is_ok_and(|done| done.status.success()).then_some(Self { dir })
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Leaves so many bytes.
    fn fill(&self, left: u64) -> PathBuf {
        let path = self.dir.path().join("ballast");
        let free = Space::of(self.dir.path()).unwrap().free;
        let length = usize::try_from(free.saturating_sub(left)).unwrap();
        fs::write(&path, vec![7; length]).unwrap();
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg("-l").arg(self.dir.path()).status();
    }
}

fn batch(bytes: usize) -> Batch {
    Batch {
        events: sample::events(),
        data: vec![(TaskId(1), Side::Payload, vec![7; bytes].into())],
        ..Batch::default()
    }
}

fn is_full(result: &Result<u64, StoreError>) -> bool {
    matches!(result, Err(StoreError::Full { .. }))
}

fn has_reserve(dir: &Path) -> bool {
    dir.join(RESERVE_FILE).exists()
}

#[test]
fn a_full_disk_takes_a_little_more_once_its_reserve_is_given_up() {
    let Some(disk) = SmallDisk::mount(32) else { return };
    let mut store = SqliteStore::open(&disk.path()).unwrap();
    assert!(store.hold_reserve() && has_reserve(&disk.path()));
    let ballast = disk.fill(64 << 10);
    let mut last = store.last_seq();
    let full = loop {
        match store.append(&batch(100_000)) {
            Ok(appended) => last = appended,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, StoreError::Full { .. }), "{full}");
    assert!(store.release_reserve() && !has_reserve(&disk.path()));
    for _commit in 0..100 {
        last = store.append(&batch(1_000)).unwrap();
    }
    assert!(!store.hold_reserve(), "there is no room for it");
    while store.append(&batch(1_000_000)).is_ok() {
        last = store.last_seq();
    }
    assert!(is_full(&store.append(&batch(1_000_000))) && !store.release_reserve());
    fs::remove_file(ballast).unwrap();
    assert!(store.hold_reserve() && has_reserve(&disk.path()));
    last = store.append(&batch(1_000_000)).unwrap().max(last);
    drop(store);
    let store = SqliteStore::open(&disk.path()).unwrap();
    let found: usize = entries(&store, 0).iter().map(|entry| entry.events.len()).sum();
    assert_eq!(u64::try_from(found).unwrap(), last, "all that was acknowledged, and no more");
}

#[test]
fn a_store_on_a_full_disk_opens() {
    let Some(disk) = SmallDisk::mount(32) else { return };
    let mut store = SqliteStore::open(&disk.path()).unwrap();
    assert!(store.hold_reserve());
    let last = store.append(&batch(1_000)).unwrap();
    drop(store);
    disk.fill(0);
    let reserve = fs::metadata(disk.path().join(RESERVE_FILE)).unwrap().len();
    assert_eq!(reserve, 4 << 20, "an eighth of a small disk");
    let mut store = SqliteStore::open(&disk.path()).unwrap();
    assert_eq!(store.last_seq(), last);
    assert!(!has_reserve(&disk.path()), "it was needed for opening");
    store.append(&batch(1_000)).unwrap();
}
