//! How long after a kill the control plane is ready: the real program, on a state directory with a
//! million queued tasks in its snapshot, without and with a journal of another hundred thousand events
//! behind it. Prints one JSON object a line.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a benchmark measures time, prints, and stops when something is wrong"
)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use mesh_core::command::Submission;
use mesh_core::model::amount::{Amount, Resources};
use mesh_core::model::id::{Digest, Key, TaskId};
use mesh_core::model::label::Affinity;
use mesh_core::model::priority::Priority;
use mesh_core::model::task::{Data, Kind, OnLost, Retries, Shape, TaskSpec, Work};
use mesh_core::model::time::Timestamp;
use mesh_core::{Command as Wish, Event, Limits, Mesh};
use mesh_store::{Batch, Side, SqliteStore, Store as _};

/// Tasks in the snapshot.
const QUEUED: u64 = 1_000_000;
/// Events behind it.
const TAIL: u64 = 100_000;
/// Events in a commit.
const COMMIT: u64 = 1_000;
/// Bytes of each task's arguments.
const PAYLOAD_BYTES: u32 = 256;
/// Starts of each kind, of which the median counts.
const STARTS: usize = 3;
/// When it all happened.
const AT: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let mut mesh = Mesh::new(Limits { queue_max: usize::MAX, ..Limits::default() });
    let mut store = SqliteStore::open(dir.path()).unwrap();
    submit(&mut mesh, &mut store, 1..=QUEUED);
    let last = store.last_seq();
    store.save_snapshot(last, &mesh.snapshot(), last).unwrap();
    drop(store);
    measure(dir.path(), 0);
    let mut store = SqliteStore::open(dir.path()).unwrap();
    submit(&mut mesh, &mut store, QUEUED + 1..=QUEUED + TAIL);
    drop(store);
    measure(dir.path(), TAIL);
}

/// Accepts tasks as the control plane does.
fn submit(mesh: &mut Mesh, store: &mut SqliteStore, numbers: std::ops::RangeInclusive<u64>) {
    let spec = Arc::new(spec());
    let payload: bytes::Bytes = vec![7; usize::try_from(PAYLOAD_BYTES).unwrap()].into();
    let mut batch = Batch { at: AT, ..Batch::default() };
    for number in numbers.clone() {
        let submission = Submission {
            key: key(number),
            body: number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            name: None,
            spec: Arc::clone(&spec),
            payload: Data::Inline(PAYLOAD_BYTES),
        };
        let (events, _answer) = mesh.decide(AT, &Wish::Submit(submission)).unwrap();
        for event in &events {
            mesh.apply(AT, event);
        }
        batch.events.extend::<Vec<Event>>(events);
        batch.data.push((TaskId(number), Side::Payload, payload.clone()));
        if number.is_multiple_of(COMMIT) || number == *numbers.end() {
            store.append(&batch).unwrap();
            batch = Batch { at: AT, ..Batch::default() };
            mesh.take_changes();
        }
    }
}

/// A key as clients make them: the time first, then version 7, then chance.
fn key(number: u64) -> Key {
    let millis = u128::from(AT.micros() / 1_000);
    Key::Uuid(millis << 80 | 7 << 76 | u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

fn spec() -> TaskSpec {
    TaskSpec {
        title: Some("train".into()),
        work: Work::Function(Digest([1; 32])),
        shape: Shape {
            kind: Kind::Function,
            resources: Resources { cpu: Amount::whole(1), ..Resources::NONE },
            affinity: Affinity::default(),
            priority: Priority::default(),
            python: None,
            runtime_env: None,
        },
        retries: Retries::default(),
        timeout: None,
        on_lost: OnLost::Replace,
        wait_for_growth: true,
    }
}

fn measure(dir: &Path, tail: u64) {
    assert_eq!(open_tasks(dir), QUEUED + tail, "they are all there");
    let mut times: Vec<_> = (0..STARTS).map(|_| seconds_until_ready(dir)).collect();
    times.sort_by(f64::total_cmp);
    let median = times.get(STARTS / 2).copied().unwrap_or_default();
    let bytes = std::fs::metadata(dir.join("mesh.db")).unwrap().len() as f64;
    println!(
        "{{\"queued\": {QUEUED}, \"tail\": {tail}, \"file_mib\": {:.0}, \"ready_s\": {median:.2}}}",
        bytes / f64::from(1 << 20)
    );
}

/// The tasks that wait, as the doctor counts them.
fn open_tasks(dir: &Path) -> u64 {
    let output = Command::new(env!("CARGO_BIN_EXE_schedulemesh"))
        .args(["doctor", "-o", "json", "--state-dir"])
        .arg(dir)
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    report.get("open_tasks").and_then(serde_json::Value::as_u64).unwrap()
}

/// From the start of the program until it says where it listens. It is killed, so that the next start
/// finds what this one found.
fn seconds_until_ready(dir: &Path) -> f64 {
    let begun = Instant::now();
    let mut server = Command::new(env!("CARGO_BIN_EXE_schedulemesh"))
        .args(["serve", "--listen", "127.0.0.1:0", "--log-level", "error"])
        .args(["--queue-max", "10000000", "--state-dir"])
        .arg(dir)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ready = is_ready(&mut server).then(|| begun.elapsed());
    server.kill().unwrap();
    server.wait().unwrap();
    ready.unwrap().as_secs_f64()
}

fn is_ready(server: &mut Child) -> bool {
    let said = BufReader::new(server.stderr.take().unwrap()).lines().map_while(Result::ok);
    said.into_iter().any(|line| line.starts_with("control plane at "))
}
