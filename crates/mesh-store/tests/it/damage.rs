//! Bytes that are not what was written are found, and named.

use std::fs;
use std::sync::LazyLock;

use mesh_core::model::id::TaskId;
use mesh_store::{Entry, Side, SqliteStore, Store, StoreError};
use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::keep::{check_sample, entries, filled};
use crate::sample;

/// A store whose directory goes with it.
#[derive(Debug)]
struct Opened {
    store: SqliteStore,
    _dir: TempDir,
}

impl std::ops::Deref for Opened {
    type Target = SqliteStore;

    fn deref(&self) -> &SqliteStore {
        &self.store
    }
}

fn open(dir: TempDir) -> Result<Opened, StoreError> {
    SqliteStore::open(dir.path()).map(|store| Opened { store, _dir: dir })
}

/// Changes the file of a store behind its back, and opens it.
fn after(change: &str) -> Result<Opened, StoreError> {
    let dir = tempfile::tempdir().unwrap();
    let mut store = filled(dir.path());
    store.save_snapshot(20, &sample::snapshot(), 0).unwrap();
    drop(store);
    Connection::open(dir.path().join("mesh.db")).unwrap().execute_batch(change).unwrap();
    open(dir)
}

/// The place and the description that an error names.
fn damage(error: &StoreError) -> String {
    let text = error.to_string();
    let Some((_path, rest)) = text.split_once(" is damaged at ") else { return text };
    let (damage, way_out) = rest.split_once("; `schedulemesh doctor`").unwrap();
    assert!(way_out.contains("`schedulemesh restore`"), "{way_out}");
    damage.to_owned()
}

fn replay_damage(store: &SqliteStore) -> (u64, String) {
    let mut last = 0;
    let visit = &mut |entry: Entry| {
        last = entry.last();
        true
    };
    let error = store.replay(0, visit).unwrap_err();
    (last, damage(&error))
}

/// SQL for a blob with one byte changed.
fn flipped(column: &str) -> String {
    format!("CAST(substr({column}, 1, 4) || x'c1' || substr({column}, 6) AS BLOB)")
}

#[test]
fn a_changed_byte_in_the_journal() {
    let set = flipped("events");
    let store = after(&format!("UPDATE journal SET events = {set} WHERE first = 11")).unwrap();
    assert_eq!(replay_damage(&store), (10, "event 11: its checksum is wrong".into()));
}

#[test]
fn a_changed_time_in_the_journal() {
    let store = after("UPDATE journal SET at = at + 1 WHERE first = 21").unwrap();
    assert_eq!(replay_damage(&store), (20, "event 21: its checksum is wrong".into()));
}

#[test]
fn a_missing_row_in_the_journal() {
    let store = after("DELETE FROM journal WHERE first = 21").unwrap();
    let what = "event 21: event 21 was expected, event 31 was found";
    assert_eq!(replay_damage(&store), (20, what.into()));
}

#[test]
fn a_journal_that_does_not_reach_the_snapshot() {
    let error = after("DELETE FROM journal WHERE first <= 21").unwrap_err();
    assert_eq!(damage(&error), "event 21: the events from 21 to 30 are missing");
    let error = after("DELETE FROM journal WHERE first > 10").unwrap_err();
    assert_eq!(damage(&error), "the snapshot of event 20: the journal ends at event 10");
}

#[test]
fn changed_data_and_code() {
    let set = flipped("bytes");
    let change = format!("UPDATE data SET bytes = {set}; UPDATE code SET bytes = {set};");
    let store = after(&change).unwrap();
    let error = store.data(TaskId(1), Side::Payload).unwrap_err();
    assert_eq!(damage(&error), "the arguments of t1: its checksum is wrong");
    let error = store.code(&sample::CODE).unwrap_err();
    assert!(damage(&error).starts_with("the code abab"), "{error}");
    assert_eq!(entries(&*store, 0).len(), 4, "the rest is served");
}

#[test]
fn bytes_in_the_place_of_others() {
    let store = after("UPDATE data SET id = 4 WHERE id = 2").unwrap();
    let error = store.data(TaskId(2), Side::Payload).unwrap_err();
    assert_eq!(damage(&error), "the arguments of t2: its checksum is wrong");
}

#[test]
fn a_changed_or_incomplete_snapshot() {
    let set = flipped("bytes");
    let store = after(&format!("UPDATE snapshot_part SET bytes = {set}")).unwrap();
    let error = store.load_snapshot().unwrap_err();
    assert_eq!(damage(&error), "the snapshot of event 20: its checksum is wrong");
    let store = after("DELETE FROM snapshot_part").unwrap();
    let error = store.load_snapshot().unwrap_err();
    assert_eq!(damage(&error), "the snapshot of event 20: part 1 of 1 is missing");
}

/// A file and its log as a crash leaves them, and the file as a regular end leaves it.
struct Image {
    file: Vec<u8>,
    log: Vec<u8>,
    closed: Vec<u8>,
}

static IMAGE: LazyLock<Image> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    let read = |name| fs::read(dir.path().join(name)).unwrap();
    let (file, mut log) = (read("mesh.db"), read("mesh.db-wal"));
    // It is longer than what was written to it, by zeros.
    let written = log.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    log.truncate(32 + (written - 32).div_ceil(24 + 4_096) * (24 + 4_096));
    drop(store);
    Image { file, log, closed: read("mesh.db") }
});

fn open_image(file: &[u8], log: &[u8]) -> Result<Opened, StoreError> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mesh.db"), file).unwrap();
    fs::write(dir.path().join("mesh.db-wal"), log).unwrap();
    open(dir)
}

#[test]
fn an_unharmed_image_is_whole() {
    check_sample(&*open_image(&IMAGE.file, &IMAGE.log).unwrap());
    check_sample(&*open_image(&IMAGE.closed, &[]).unwrap());
}

#[test]
fn a_torn_log_gives_whole_batches_from_the_first_on() {
    let all = entries(&*open_image(&IMAGE.file, &IMAGE.log).unwrap(), 0);
    let mut most = 0;
    for length in (0..=IMAGE.log.len()).step_by(509).chain([IMAGE.log.len()]) {
        let store = open_image(&IMAGE.file, &IMAGE.log[..length]).unwrap();
        let found = entries(&*store, 0);
        assert_eq!(found, all[..found.len()], "log of {length} bytes");
        assert!(found.len() >= most, "more of the log must not give less");
        most = found.len();
        let data = store.data(TaskId(1), Side::Payload).unwrap();
        assert_eq!(data, (most > 0).then(sample::payload), "data comes with its batch");
    }
    assert_eq!(most, all.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn no_changed_bit_in_the_file_changes_an_event(at in 0.0..1.0_f64, bit in 0..8_u32) {
        let mut file = IMAGE.closed.clone();
        flip(&mut file, at, bit);
        if let Ok(store) = open_image(&file, &[]) {
            check_prefix(&store)?;
        }
    }

    #[test]
    fn no_changed_bit_in_the_log_changes_an_event(at in 0.0..1.0_f64, bit in 0..8_u32) {
        let mut log = IMAGE.log.clone();
        flip(&mut log, at, bit);
        match open_image(&IMAGE.file, &log) {
            Ok(store) => check_prefix(&store)?,
            Err(error) => {
                let error = error.to_string();
                prop_assert!(error.contains("mesh.db-wal is damaged at byte "), "{error}");
            }
        }
    }
}

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a place somewhere in the bytes"
)]
fn flip(bytes: &mut [u8], at: f64, bit: u32) {
    let index = (at * bytes.len() as f64) as usize;
    bytes[index] ^= 1 << bit;
}

/// Fails when the store serves an event that was not written, or one in the wrong place.
fn check_prefix(store: &SqliteStore) -> Result<(), TestCaseError> {
    let mut found = Vec::new();
    let visit = &mut |entry: Entry| {
        found.extend(entry.events);
        true
    };
    let _whole = store.replay(0, visit).is_ok();
    let expected = sample::events();
    prop_assert_eq!(&found, &expected[..found.len()]);
    if let Ok(Some(payload)) = store.data(TaskId(1), Side::Payload) {
        prop_assert_eq!(payload, sample::payload());
    }
    Ok(())
}

fn survey(change: &str) -> mesh_store::Survey {
    let dir = tempfile::tempdir().unwrap();
    let mut store = filled(dir.path());
    store.save_snapshot(20, &sample::snapshot(), 0).unwrap();
    drop(store);
    Connection::open(dir.path().join("mesh.db")).unwrap().execute_batch(change).unwrap();
    SqliteStore::open_read_only(dir.path()).unwrap().unwrap().survey().unwrap()
}

#[test]
fn a_survey_of_what_is_whole_finds_everything_and_no_damage() {
    let found = survey("");
    assert_eq!((found.oldest, found.last, found.commits), (1, sample::LAST, 4));
    assert_eq!((found.snapshot, found.loose_parts), (Some(20), 0));
    assert_eq!(found.data, [(TaskId(1), Side::Payload), (TaskId(1), Side::Result)]);
    assert_eq!(found.code, [sample::CODE]);
    assert!(found.damage.is_empty(), "{:?}", found.damage);
}

#[test]
fn a_survey_goes_on_where_it_finds_damage() {
    let (events, bytes) = (flipped("events"), flipped("bytes"));
    let found = survey(&format!(
        "UPDATE journal SET events = {events} WHERE first = 11; DELETE FROM journal WHERE first = 21;
         UPDATE data SET bytes = {bytes} WHERE id = 2; UPDATE code SET bytes = {bytes};"
    ));
    let damage: Vec<_> = found.damage.iter().map(damage).collect();
    assert_eq!(
        damage,
        [
            "event 11: its checksum is wrong",
            "event 21: event 21 was expected, event 31 was found",
            "the arguments of t1: its checksum is wrong",
            &format!("the code {}: its checksum is wrong", sample::CODE),
        ]
    );
}

#[test]
fn a_survey_names_the_page_that_is_no_page() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = IMAGE.closed.clone();
    file[2 * 4_096..3 * 4_096].fill(0x77);
    fs::write(dir.path().join("mesh.db"), file).unwrap();
    let reader = SqliteStore::open_read_only(dir.path()).unwrap().unwrap();
    let found = reader.survey().unwrap();
    let damage: Vec<_> = found.damage.iter().map(damage).collect();
    assert!(damage.iter().any(|what| what.starts_with("byte 8192: ")), "{damage:?}");
}

#[test]
fn damage_in_the_middle_of_the_log_is_refused_and_its_end_is_cut_off() {
    let mut log = IMAGE.log.clone();
    log[32 + 24 + 5] ^= 1;
    let error = open_image(&IMAGE.file, &log).unwrap_err();
    let what = "byte 32: its checksum is wrong, and commits that were acknowledged follow";
    assert_eq!(damage(&error), what);
    let mut log = IMAGE.log.clone();
    *log.last_mut().unwrap() ^= 1;
    let store = open_image(&IMAGE.file, &log).unwrap();
    assert_eq!(store.last_seq(), 30, "the last commit was never whole");
}

#[test]
fn a_copy_of_a_store_in_use_is_a_store() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut store = filled(dir.path());
    let reader = SqliteStore::open_read_only(dir.path()).unwrap().unwrap();
    reader.copy_to(copy.path()).unwrap();
    store.append(&sample::batches()[0]).unwrap();
    check_sample(&SqliteStore::open(copy.path()).unwrap());
    assert!(reader.copy_to(copy.path()).is_err(), "there is one already");
}

#[test]
fn a_store_that_starts_over_keeps_data_and_goes_on_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = filled(dir.path());
    store.start_over(1_000, &sample::snapshot()).unwrap();
    drop(store);
    let mut store = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(store.load_snapshot().unwrap(), Some((1_000, sample::snapshot())));
    assert_eq!((store.oldest_seq().unwrap(), store.last_seq()), (0, 1_000));
    assert_eq!(store.data(TaskId(1), Side::Payload).unwrap(), Some(sample::payload()));
    assert_eq!(store.append(&sample::batches()[0]).unwrap(), 1_010);
}
