//! What was kept is found again.

use std::collections::BTreeSet;
use std::path::Path;

use mesh_core::event::Event;
use mesh_core::model::id::{Digest, TaskId};
use mesh_core::snapshot::Snapshot;
use mesh_store::{Batch, Entry, Side, SqliteStore, Store, StoreError};

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

/// The name of a variant. A new variant does not compile until it has a name here, and the tests
/// fail until it is in the sample as well.
fn variant(event: &Event) -> &'static str {
    match event {
        Event::ClusterAdded(..) => "ClusterAdded",
        Event::ClusterChanged(..) => "ClusterChanged",
        Event::ClusterDrained(..) => "ClusterDrained",
        Event::ClusterRemoved(..) => "ClusterRemoved",
        Event::ClusterLinked(..) => "ClusterLinked",
        Event::ClusterSuspected(..) => "ClusterSuspected",
        Event::ClusterLost(..) => "ClusterLost",
        Event::NodesSeen(..) => "NodesSeen",
        Event::BreakerOpened(..) => "BreakerOpened",
        Event::BreakerHalfOpened(..) => "BreakerHalfOpened",
        Event::SpecDefined(..) => "SpecDefined",
        Event::Submitted { .. } => "Submitted",
        Event::Leased { .. } => "Leased",
        Event::Assigned(..) => "Assigned",
        Event::Released(..) => "Released",
        Event::Started(..) => "Started",
        Event::Returned(..) => "Returned",
        Event::StopAsked(..) => "StopAsked",
        Event::Retried { .. } => "Retried",
        Event::Requeued(..) => "Requeued",
        Event::Ended { .. } => "Ended",
        Event::LateReport(..) => "LateReport",
        Event::Forgotten(..) => "Forgotten",
        Event::CodeForgotten(..) => "CodeForgotten",
        Event::ClockSkipped(..) => "ClockSkipped",
    }
}

/// How many variants [`variant`] names.
const VARIANTS: usize = 25;

#[test]
fn every_event_is_in_the_sample() {
    let variants: BTreeSet<_> = sample::events().iter().map(variant).collect();
    assert_eq!(variants.len(), VARIANTS);
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

#[test]
fn replay_begins_after_the_event_and_ends_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    let events = sample::events();

    let tail = entries(&store, 27);
    assert_eq!(tail.iter().map(|entry| entry.first).collect::<Vec<_>>(), [28, 31]);
    assert_eq!(tail.into_iter().flat_map(|entry| entry.events).collect::<Vec<_>>(), events[27..]);
    assert_eq!(entries(&store, 30)[0].first, 31);
    assert_eq!(entries(&store, sample::LAST), []);
    assert_eq!(entries(&store, u64::MAX), []);

    let mut seen = Vec::new();
    let visit = &mut |entry: Entry| {
        seen.push(entry.first);
        seen.len() < 2
    };
    store.replay(0, visit).unwrap();
    assert_eq!(seen, [1, 11]);
}

#[test]
fn data_is_replaced_and_code_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = filled(dir.path());
    let batch = Batch {
        data: vec![(TaskId(1), Side::Result, "second".into())],
        code: vec![(sample::CODE, "other".into())],
        ..Batch::default()
    };
    assert_eq!(store.append(&batch).unwrap(), sample::LAST);
    assert_eq!(store.data(TaskId(1), Side::Result).unwrap().unwrap(), "second");
    assert_eq!(store.code(&sample::CODE).unwrap(), Some(sample::code()));

    let batch = Batch { drop_code: vec![sample::CODE], ..Batch::default() };
    store.append(&batch).unwrap();
    assert_eq!(store.code(&sample::CODE).unwrap(), None);
}

#[test]
fn a_snapshot_comes_back_and_lets_old_entries_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = filled(dir.path());
    store.save_snapshot(25, &sample::snapshot(), 12).unwrap();
    assert_eq!(store.oldest_seq().unwrap(), 11, "event 12 is in the entry from 11 to 20");
    store.save_snapshot(sample::LAST, &sample::snapshot(), u64::MAX).unwrap();
    assert_eq!(store.oldest_seq().unwrap(), 0);
    drop(store);

    let mut store = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(store.load_snapshot().unwrap(), Some((sample::LAST, sample::snapshot())));
    assert_eq!(store.last_seq(), sample::LAST, "numbers go on although the journal is empty");
    let batch = Batch { events: sample::events(), ..Batch::default() };
    assert_eq!(store.append(&batch).unwrap(), 2 * sample::LAST);
    assert_eq!(entries(&store, 0)[0].first, sample::LAST + 1);
}

#[test]
fn a_snapshot_of_many_parts_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = filled(dir.path());
    let mut snapshot = sample::snapshot();
    let task = snapshot.tasks[1].clone();
    snapshot.tasks = vec![task; 150_000];
    store.save_snapshot(30, &snapshot, 0).unwrap();
    assert_eq!(store.load_snapshot().unwrap(), Some((30, snapshot)));
    store.save_snapshot(31, &sample::snapshot(), 0).unwrap();
    assert_eq!(store.load_snapshot().unwrap(), Some((31, sample::snapshot())));
    drop(store);
    let file = rusqlite::Connection::open(dir.path().join("mesh.db")).unwrap();
    let parts: i64 =
        file.query_row("SELECT count(*) FROM snapshot_part", [], |row| row.get(0)).unwrap();
    assert_eq!(parts, 1, "the parts of the snapshot before are gone");
}

#[test]
fn a_snapshot_of_the_future_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = filled(dir.path());
    let refusal = store.save_snapshot(36, &sample::snapshot(), 0).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "a snapshot at event 36 was given, the journal ends at event 35"
    );
}

#[test]
fn a_snapshot_is_written_while_its_owner_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = filled(dir.path());
    let mut snapshot = sample::snapshot();
    let task = snapshot.tasks[1].clone();
    snapshot.tasks = vec![task; 100_000];
    let mut writer = store.snapshots();
    let given = snapshot.clone();
    let writing = std::thread::spawn(move || writer.save(30, &given, 0));
    let mut appended = 0;
    while !writing.is_finished() {
        store.append(&sample::batches()[0]).unwrap();
        appended += 10;
    }
    writing.join().unwrap().unwrap();
    assert!(appended > 10, "{appended}");
    assert_eq!(store.last_seq(), sample::LAST + appended);
    assert_eq!(store.load_snapshot().unwrap(), Some((30, snapshot)));
}

#[test]
fn an_older_snapshot_does_not_replace_a_newer_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = filled(dir.path());
    store.save_snapshot(30, &sample::snapshot(), 0).unwrap();
    store.snapshots().save(20, &Snapshot::default(), 0).unwrap();
    assert_eq!(store.load_snapshot().unwrap(), Some((30, sample::snapshot())));
}

#[test]
fn who_writes_snapshots_does_not_keep_a_store_from_being_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    let mut writer = store.snapshots();
    drop(store);
    let store = SqliteStore::open(dir.path()).unwrap();
    let refusal = writer.save(30, &sample::snapshot(), 0).unwrap_err();
    assert!(matches!(refusal, StoreError::Closed), "{refusal}");
    assert_eq!(store.load_snapshot().unwrap(), None);
}

#[test]
fn a_reader_sees_what_its_owner_commits() {
    let dir = tempfile::tempdir().unwrap();
    assert!(SqliteStore::open_read_only(dir.path()).unwrap().is_none());
    let mut store = filled(dir.path());
    let reader = SqliteStore::open_read_only(dir.path()).unwrap().unwrap();
    assert_eq!(reader.last_seq().unwrap(), sample::LAST);
    store.append(&sample::batches()[3]).unwrap();
    assert_eq!(reader.last_seq().unwrap(), sample::LAST + 5);
    assert_eq!(reader.data(TaskId(1), Side::Payload).unwrap(), Some(sample::payload()));
    drop(store);
    assert_eq!(reader.oldest_seq().unwrap(), 1);
}

#[test]
fn only_its_owner_may_read_the_file() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().unwrap();
    let _store = filled(dir.path());
    for name in ["mesh.db", "mesh.db-wal"] {
        let mode = dir.path().join(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}
