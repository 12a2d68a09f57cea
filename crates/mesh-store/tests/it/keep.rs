//! What was kept is found again.

use std::collections::BTreeSet;
use std::path::Path;

use mesh_core::model::id::{Digest, TaskId};
use mesh_store::{Batch, Entry, Side, SqliteStore, Store};

use crate::sample;

/// A store with the sample in it.
pub(crate) fn filled(dir: &Path) -> SqliteStore {
    let mut store = SqliteStore::open(dir).unwrap();
    for batch in sample::batches() {
        store.append(&batch).unwrap();
    }
    store
}

/// Everything in the journal after an event.
pub(crate) fn entries(store: &dyn Store, after: u64) -> Vec<Entry> {
    let mut entries = Vec::new();
    store
        .replay(after, &mut |entry| {
            entries.push(entry);
            true
        })
        .unwrap();
    entries
}

/// Fails unless the store holds the sample and nothing else.
pub(crate) fn check_sample(store: &dyn Store) {
    let mut first = 1;
    let mut expected = Vec::new();
    for batch in sample::batches() {
        let count = u64::try_from(batch.events.len()).unwrap();
        expected.push(Entry { first, at: batch.at, events: batch.events });
        first += count;
    }
    assert_eq!(entries(store, 0), expected);
    assert_eq!(store.last_seq(), sample::LAST);
    assert_eq!(store.oldest_seq().unwrap(), 1);
    assert_eq!(store.data(TaskId(1), Side::Payload).unwrap(), Some(sample::payload()));
    assert_eq!(store.data(TaskId(1), Side::Result).unwrap().unwrap(), "result");
    assert_eq!(store.data(TaskId(2), Side::Payload).unwrap(), None);
    assert_eq!(store.code(&sample::CODE).unwrap(), Some(sample::code()));
    assert!(store.has_code(&sample::CODE).unwrap());
    assert!(!store.has_code(&Digest([1; 32])).unwrap());
}

#[test]
fn every_event_is_in_the_sample() {
    let variants: BTreeSet<_> = sample::events().iter().map(sample::variant).collect();
    assert_eq!(variants.len(), sample::VARIANTS);
}

#[test]
fn what_was_appended_is_found_at_once_and_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    check_sample(&store);
    drop(store);
    check_sample(&SqliteStore::open(dir.path()).unwrap());
}

#[test]
fn a_new_store_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(&dir.path().join("a/b")).unwrap();
    assert_eq!(store.last_seq(), 0);
    assert_eq!(store.oldest_seq().unwrap(), 0);
    assert_eq!(store.load_snapshot().unwrap(), None);
    assert_eq!(entries(&store, 0), []);
    assert_eq!(store.append(&Batch::default()).unwrap(), 0);
}
