//! The store in memory fails as it is told to.

use mesh_core::event::Event;
use mesh_core::model::id::LeaseId;
use mesh_core::snapshot::Snapshot;
use mesh_store::memory::{Fault, MemoryDisk, RESERVED_WRITES};
use mesh_store::{Batch, Store, StoreError};

fn batch() -> Batch {
    Batch { events: vec![Event::Released(LeaseId(1))], ..Batch::default() }
}

#[test]
fn a_full_disk_keeps_nothing_and_recovers() {
    let disk = MemoryDisk::new();
    let mut store = disk.open().unwrap();
    disk.fail_next(Fault::Full);
    assert!(matches!(store.append(&batch()), Err(StoreError::Full { .. })));
    assert_eq!(store.last_seq(), 0);
    assert_eq!(store.append(&batch()).unwrap(), 1);
}

#[test]
fn a_failure_lasts_until_the_store_is_opened_again() {
    for (fault, kept) in [(Fault::Failed, 0), (Fault::FailedButKept, 1)] {
        let disk = MemoryDisk::new();
        let mut store = disk.open().unwrap();
        disk.fail_next(fault);
        assert!(matches!(store.append(&batch()), Err(StoreError::Failed { .. })));
        assert!(matches!(store.append(&batch()), Err(StoreError::Failed { .. })));
        assert_eq!(store.last_seq(), 0);
        drop(store);
        let mut store = disk.open().unwrap();
        assert_eq!(store.last_seq(), kept, "{fault:?}");
        assert_eq!(store.append(&batch()).unwrap(), kept + 1);
    }
}

#[test]
fn snapshots_fail_as_appends_do() {
    let disk = MemoryDisk::new();
    let mut store = disk.open().unwrap();
    store.append(&batch()).unwrap();
    let mut writer = store.snapshots();
    let ahead = writer.save(2, &Snapshot::default(), 0);
    assert!(matches!(ahead, Err(StoreError::Ahead { seq: 2, last: 1 })));
    disk.fail_next(Fault::Full);
    let full = writer.save(1, &Snapshot::default(), 0);
    assert!(matches!(full, Err(StoreError::Full { .. })));
    assert_eq!(store.load_snapshot().unwrap(), None);
    writer.save(1, &Snapshot::default(), 0).unwrap();
    assert_eq!(store.load_snapshot().unwrap(), Some((1, Snapshot::default())));
    disk.fail_next(Fault::Failed);
    let failed = writer.save(1, &Snapshot::default(), 0);
    assert!(matches!(failed, Err(StoreError::Failed { .. })));
    let refused = store.append(&batch());
    assert!(matches!(refused, Err(StoreError::Failed { .. })), "nobody knows what the disk holds");
    drop(store);
    let closed = writer.save(1, &Snapshot::default(), 0);
    assert!(matches!(closed, Err(StoreError::Closed)));
}

#[test]
fn one_owner_at_a_time() {
    let disk = MemoryDisk::new();
    let store = disk.open().unwrap();
    assert!(matches!(disk.open(), Err(StoreError::Locked { .. })));
    drop(store);
    disk.open().unwrap();
}

#[test]
fn the_reserve_of_a_full_disk_is_enough_for_some_writes() {
    let disk = MemoryDisk::new();
    let mut store = disk.open().unwrap();
    assert!(store.hold_reserve());
    disk.fill();
    assert!(matches!(store.append(&batch()), Err(StoreError::Full { .. })));
    assert!(store.release_reserve());
    assert!(
        !store.release_reserve() && !store.hold_reserve(),
        "there is one, and no room for more"
    );
    for _write in 0..RESERVED_WRITES {
        store.append(&batch()).unwrap();
    }
    assert!(matches!(store.append(&batch()), Err(StoreError::Full { .. })));
    disk.free();
    assert!(store.hold_reserve());
    store.append(&batch()).unwrap();
}
