//! The store in memory fails as it is told to.

use mesh_core::event::Event;
use mesh_core::model::id::LeaseId;
use mesh_store::memory::{Fault, MemoryDisk};
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
fn one_owner_at_a_time() {
    let disk = MemoryDisk::new();
    let store = disk.open().unwrap();
    assert!(matches!(disk.open(), Err(StoreError::Locked { .. })));
    drop(store);
    disk.open().unwrap();
}
