//! Death at any moment: what was acknowledged is there, what was not is there whole or not at all.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use mesh_core::event::Event;
use mesh_core::model::id::{Digest, LeaseId, TaskId};
use mesh_core::snapshot::{CodeRest, Snapshot};
use mesh_store::{Batch, Side, SqliteStore, Store, StoreError};

use crate::keep::entries;

/// Names the directory to a test that runs as the process that dies.
const CHILD_DIR: &str = "MESH_STORE_TEST_CHILD_DIR";
/// How often the process dies.
const KILLS: u64 = 20;
/// Commits between two snapshots.
const SNAPSHOT_EVERY: u64 = 50;

#[test]
fn acknowledged_batches_survive_kill_9() {
    if let Some(dir) = child_dir() {
        append_until_killed(&dir);
    }
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..KILLS {
        let name = "crash::acknowledged_batches_survive_kill_9";
        let mut child = spawn(&mut this_test(name), dir.path());
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut numbers = lines.filter_map(|line| number_after("ack ", &line.unwrap()));
        // Another number of commits each time, and then whatever it is doing at that moment.
        for _commit in 0..=round * 7 {
            acknowledged = numbers.next().unwrap();
        }
        child.kill().unwrap();
        // What it said before it died counts as well.
        acknowledged = numbers.last().unwrap_or(acknowledged);
        child.wait().unwrap();
        check_after_death(dir.path(), acknowledged);
    }
    assert!(acknowledged > KILLS * SNAPSHOT_EVERY, "only {acknowledged}");
}

#[test]
fn a_store_that_could_not_write_takes_nothing_more_until_it_is_opened_again() {
    if let Some(dir) = child_dir() {
        append_until_refused(&dir);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let name = "crash::a_store_that_could_not_write_takes_nothing_more_until_it_is_opened_again";
    // A write beyond the limit fails with an error that says nothing of a full disk.
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 600; exec \"$0\" \"$@\""]);
    shell.arg(std::env::current_exe().unwrap()).args([name, "--exact", "--nocapture"]);
    let child = spawn(&mut shell, dir.path());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let acknowledged = text.lines().rev().find_map(|line| number_after("ack ", line)).unwrap();
    let refusals: Vec<_> = text.lines().filter(|line| line.starts_with("refused ")).collect();
    assert!(refusals[0].contains("cannot append to"), "{text}");
    assert!(refusals[1].contains("must be opened again"), "{text}");
    check_after_death(dir.path(), acknowledged);
}

#[expect(clippy::disallowed_methods, reason = "how the parent talks to the child")]
fn child_dir() -> Option<PathBuf> {
    std::env::var(CHILD_DIR).ok().map(PathBuf::from)
}

/// This program, to run one test.
fn this_test(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--nocapture"]);
    command
}

fn spawn(command: &mut Command, dir: &Path) -> Child {
    command.env(CHILD_DIR, dir).stdout(Stdio::piped()).spawn().unwrap()
}

fn number_after(prefix: &str, line: &str) -> Option<u64> {
    line.rsplit_once(prefix)?.1.parse().ok()
}

/// Appends and says so, with a snapshot now and then, without end.
fn append_until_killed(dir: &Path) -> ! {
    let mut store = SqliteStore::open(dir).unwrap();
    loop {
        let last = store.append(&batch(store.last_seq() + 1, 300)).unwrap();
        println!("ack {last}");
        if last.is_multiple_of(SNAPSHOT_EVERY) {
            let snapshot = Snapshot { forgotten: last, ..Snapshot::default() };
            store.save_snapshot(last, &snapshot, last - SNAPSHOT_EVERY).unwrap();
        }
    }
}

#[test]
fn a_snapshot_that_is_being_written_is_there_whole_or_not_at_all() {
    if let Some(dir) = child_dir() {
        snapshot_until_killed(&dir);
    }
    let dir = tempfile::tempdir().unwrap();
    let mut saved = BTreeSet::new();
    for round in 0..KILLS / 2 {
        let name = "crash::a_snapshot_that_is_being_written_is_there_whole_or_not_at_all";
        let mut child = spawn(&mut this_test(name), dir.path());
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut numbers = lines.filter_map(|line| number_after("ack ", &line.unwrap()));
        for _commit in 0..=round * 20 {
            numbers.next().unwrap();
        }
        child.kill().unwrap();
        let acknowledged = numbers.last().unwrap_or_default();
        child.wait().unwrap();
        check_after_death(dir.path(), acknowledged);
        let store = SqliteStore::open(dir.path()).unwrap();
        if let Some((seq, snapshot)) = store.load_snapshot().unwrap() {
            assert_eq!(snapshot, large_snapshot(seq));
            saved.insert(seq);
        }
        drop(store);
        assert_eq!(loose_parts(dir.path()), 0, "what was not finished is thrown away at the start");
    }
    assert!(saved.len() > 1, "{saved:?}");
}

/// Appends on one thread, and writes one large snapshot after the other on another, without end.
fn snapshot_until_killed(dir: &Path) -> ! {
    let mut store = SqliteStore::open(dir).unwrap();
    let mut snapshots = store.snapshots();
    let (ask, asked) = std::sync::mpsc::sync_channel::<u64>(0);
    std::thread::spawn(move || {
        for last in asked {
            snapshots.save(last, &large_snapshot(last), last / 2).unwrap();
        }
    });
    loop {
        let last = store.append(&batch(store.last_seq() + 1, 300)).unwrap();
        println!("ack {last}");
        // Refused while one is being written.
        let _busy = ask.try_send(last).is_err();
    }
}

/// Some parts long, and told by its number.
fn large_snapshot(seq: u64) -> Snapshot {
    let code = (0..20_000_u32).map(|number| {
        let mut digest = [0xff; 32];
        digest[..4].copy_from_slice(&number.to_be_bytes());
        (Digest(digest), CodeRest { runs: number, ..CodeRest::default() })
    });
    Snapshot { forgotten: seq, code: code.collect(), ..Snapshot::default() }
}

/// Parts of snapshots that are not complete.
fn loose_parts(dir: &Path) -> i64 {
    let file = rusqlite::Connection::open(dir.join("mesh.db")).unwrap();
    let sql = "SELECT count(*) FROM snapshot_part WHERE seq NOT IN (SELECT seq FROM snapshot)";
    file.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn append_until_refused(dir: &Path) {
    let mut store = SqliteStore::open(dir).unwrap();
    let error = loop {
        match store.append(&batch(store.last_seq() + 1, 10_000)) {
            Ok(last) => println!("ack {last}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
    println!("refused {error}");
    let error = store.append(&batch(store.last_seq() + 1, 1)).unwrap_err();
    println!("refused {error}");
}

/// From one to seven events, each with its data, all of which tell their own number.
fn batch(first: u64, bytes: usize) -> Batch {
    let numbers = first..=first + first % 7;
    let data = |number: u64| {
        let byte = u8::try_from(number % 251).unwrap();
        (TaskId(number), Side::Payload, vec![byte; bytes].into())
    };
    Batch {
        events: numbers.clone().map(|number| Event::Released(LeaseId(number))).collect(),
        data: numbers.map(data).collect(),
        ..Batch::default()
    }
}

/// Every acknowledged event is there with its data, without a gap; nothing is half there.
fn check_after_death(dir: &Path, acknowledged: u64) {
    let store = SqliteStore::open(dir).unwrap();
    let last = store.last_seq();
    assert!(last >= acknowledged, "event {acknowledged} was acknowledged, {last} is the last");
    let snapshot = store.load_snapshot().unwrap();
    let seq = snapshot.map_or(0, |(seq, snapshot)| {
        assert_eq!(snapshot.forgotten, seq);
        seq
    });
    let mut expected = store.oldest_seq().unwrap();
    assert!(expected <= seq + 1);
    for entry in entries(&store, 0) {
        assert_eq!(entry.first, expected);
        for event in &entry.events {
            assert_eq!(*event, Event::Released(LeaseId(expected)));
            let data = store.data(TaskId(expected), Side::Payload).unwrap().unwrap();
            assert!(data.iter().all(|byte| u64::from(*byte) == expected % 251));
            expected += 1;
        }
        assert_eq!(entry.events.len(), batch(entry.first, 0).events.len(), "a whole batch");
    }
    assert_eq!(expected, last + 1);
    assert_eq!(store.data(TaskId(last + 1), Side::Payload).unwrap(), None);
}
