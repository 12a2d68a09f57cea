//! Durable records a second: this store beside what SQLite alone does with the same batches.
//!
//! Both write 256 bytes a record with full sync, in turns, so that a busy machine slows both.
//! `cargo bench -p mesh-store`

#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mesh_core::event::Event;
use mesh_core::model::id::{Key, SpecId, TaskId};
use mesh_core::model::task::Data;
use mesh_core::model::time::Timestamp;
use mesh_store::{Batch, Side, SqliteStore, Store};
use rusqlite::Connection;

type Failure = Box<dyn std::error::Error>;

/// Bytes that belong to a record.
const PAYLOAD_BYTES: u32 = 256;
/// Records in a commit.
const SIZES: [u64; 4] = [1, 10, 100, 1_000];
/// How long one of the two writes before it is the other's turn.
const TURN: Duration = Duration::from_millis(100);
/// Turns of each for each size.
const TURNS: usize = 10;

fn main() -> Result<(), Failure> {
    println!(
        "records per commit |  SQLite alone, p50 |   this store, p50 | ratio, median of turns"
    );
    for size in SIZES {
        let dir = tempfile::tempdir()?;
        let mut bare = Bare::open(&dir.path().join("bare.db"))?;
        let mut ours = Ours::open(&dir.path().join("ours"))?;
        let (mut bare_turns, mut our_turns) = (Turns::default(), Turns::default());
        for _turn in 0..TURNS {
            bare_turns.take(|| bare.commit(size))?;
            our_turns.take(|| ours.commit(size))?;
        }
        println!(
            "{size:18} | {} | {} | {:.2}",
            bare_turns.row(size),
            our_turns.row(size),
            our_turns.ratio(&bare_turns)
        );
    }
    Ok(())
}

/// How long commits took, turn by turn.
#[derive(Default)]
struct Turns {
    commits: Vec<Duration>,
    /// Commits a second.
    rates: Vec<f64>,
}

impl Turns {
    fn take(&mut self, mut commit: impl FnMut() -> Result<(), Failure>) -> Result<(), Failure> {
        let (begin, mut count) = (Instant::now(), 0.0);
        while begin.elapsed() < TURN {
            let start = Instant::now();
            commit()?;
            self.commits.push(start.elapsed());
            count += 1.0;
        }
        self.rates.push(count / begin.elapsed().as_secs_f64());
        Ok(())
    }

    #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "for people")]
    fn row(&self, size: u64) -> String {
        let rate = median(self.rates.clone()) * size as f64;
        let micros = median(self.commits.iter().map(Duration::as_secs_f64).collect()) * 1e6;
        format!("{rate:8.0}/s {micros:5.0} µs")
    }

    fn ratio(&self, other: &Self) -> f64 {
        median(self.rates.iter().zip(&other.rates).map(|(one, other)| one / other).collect())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// One table, and nothing that is not needed.
struct Bare {
    conn: Connection,
    next: i64,
}

impl Bare {
    fn open(path: &Path) -> Result<Self, Failure> {
        let conn = Connection::open(path)?;
        conn.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             PRAGMA wal_autocheckpoint = 10000;
             CREATE TABLE record (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL);",
        )?;
        Ok(Self { conn, next: 0 })
    }

    fn commit(&mut self, size: u64) -> Result<(), Failure> {
        let bytes = vec![7_u8; usize::try_from(PAYLOAD_BYTES)?];
        let tx = self.conn.transaction()?;
        let mut insert = tx.prepare_cached("INSERT INTO record (id, bytes) VALUES (?1, ?2)")?;
        for _record in 0..size {
            self.next += 1;
            insert.execute(rusqlite::params![self.next, bytes])?;
        }
        drop(insert);
        Ok(tx.commit()?)
    }
}

/// Submissions, as the driver commits them.
struct Ours {
    store: SqliteStore,
    payload: Bytes,
}

impl Ours {
    fn open(dir: &Path) -> Result<Self, Failure> {
        let payload = vec![7_u8; usize::try_from(PAYLOAD_BYTES)?].into();
        Ok(Self { store: SqliteStore::open(dir)?, payload })
    }

    fn commit(&mut self, size: u64) -> Result<(), Failure> {
        let first = self.store.last_seq() + 1;
        let mut batch = Batch { at: Timestamp::from_micros(1 << 50), ..Batch::default() };
        for number in first..first + size {
            batch.events.push(submitted(number));
            batch.data.push((TaskId(number), Side::Payload, self.payload.clone()));
        }
        self.store.append(&batch)?;
        Ok(())
    }
}

fn submitted(number: u64) -> Event {
    Event::Submitted {
        task: TaskId(number),
        spec: SpecId(1),
        key: Key::Uuid(u128::from(number) << 60 | 7),
        body: number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        name: None,
        payload: Data::Inline(PAYLOAD_BYTES),
    }
}
