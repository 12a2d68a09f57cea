//! Whatever is done to them, the store on disk and the one in memory give the same answers.

use bytes::Bytes;
use mesh_core::model::id::{Digest, TaskId};
use mesh_core::model::time::Timestamp;
use mesh_core::snapshot::Snapshot;
use mesh_store::memory::MemoryDisk;
use mesh_store::{Batch, Side, SqliteStore, Store};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::keep::entries;
use crate::sample;

/// Something that is done to a store.
#[derive(Clone, Debug)]
enum Step {
    Append(Batch),
    Snapshot { back: u64, keep: u64 },
    Reopen,
}

fn side() -> impl Strategy<Value = Side> {
    select(vec![Side::Payload, Side::Result])
}

fn task() -> impl Strategy<Value = TaskId> {
    (1..6_u64).prop_map(TaskId)
}

fn digest() -> impl Strategy<Value = Digest> {
    (0..3_u8).prop_map(|byte| Digest([byte; 32]))
}

fn some_bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..6_000).prop_map(Bytes::from)
}

prop_compose! {
    fn batch()(
        at in any::<u64>(),
        events in vec(select(sample::events()), 0..8),
        data in vec((task(), side(), some_bytes()), 0..4),
        code in vec((digest(), some_bytes()), 0..2),
        drop_data in vec((task(), side()), 0..2),
        drop_code in vec(digest(), 0..2),
    ) -> Batch {
        Batch { at: Timestamp::from_micros(at), events, data, code, drop_data, drop_code }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => batch().prop_map(Step::Append),
        1 => (0..5_u64, any::<u64>()).prop_map(|(back, keep)| Step::Snapshot { back, keep }),
        1 => (0..5_u64, 0..20_u64).prop_map(|(back, keep)| Step::Snapshot { back, keep }),
        1 => Just(Step::Reopen),
    ]
}

fn take(step: &Step, store: &mut dyn Store) -> u64 {
    match step {
        Step::Append(batch) => store.append(batch).unwrap(),
        Step::Snapshot { back, keep } => {
            let seq = store.last_seq().saturating_sub(*back);
            // A snapshot that is older than the one before would be one of another history.
            let newest = store.load_snapshot().unwrap().map_or(0, |(newest, _snapshot)| newest);
            let seq = seq.max(newest);
            let snapshot = Snapshot { forgotten: seq, ..sample::snapshot() };
            store.save_snapshot(seq, &snapshot, *keep).unwrap();
            seq
        }
        Step::Reopen => store.last_seq(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn disk_and_memory_agree(steps in vec(step(), 1..12)) {
        let dir = tempfile::tempdir().unwrap();
        let mut on_disk = SqliteStore::open(dir.path()).unwrap();
        let mut in_memory = MemoryDisk::new().open().unwrap();
        for step in &steps {
            if matches!(step, Step::Reopen) {
                drop(on_disk);
                on_disk = SqliteStore::open(dir.path()).unwrap();
            }
            prop_assert_eq!(take(step, &mut on_disk), take(step, &mut in_memory));
            compare(&on_disk, &in_memory)?;
        }
    }
}

fn compare(one: &dyn Store, other: &dyn Store) -> Result<(), TestCaseError> {
    prop_assert_eq!(one.last_seq(), other.last_seq());
    prop_assert_eq!(one.oldest_seq().unwrap(), other.oldest_seq().unwrap());
    prop_assert_eq!(one.load_snapshot().unwrap(), other.load_snapshot().unwrap());
    for after in [0, one.last_seq() / 2] {
        prop_assert_eq!(entries(one, after), entries(other, after));
    }
    for task in (1..6).map(TaskId) {
        for side in [Side::Payload, Side::Result] {
            prop_assert_eq!(one.data(task, side).unwrap(), other.data(task, side).unwrap());
        }
    }
    for digest in (0..3).map(|byte| Digest([byte; 32])) {
        prop_assert_eq!(one.code(&digest).unwrap(), other.code(&digest).unwrap());
        prop_assert_eq!(one.has_code(&digest).unwrap(), other.has_code(&digest).unwrap());
    }
    Ok(())
}
