//! Snapshots: written in parts of bounded size, each a commit of its own, and there when the last
//! commit says so. The one before stays until then.

use std::io::{self, Read, Write};

use mesh_core::snapshot::Snapshot;
use rusqlite::{Connection, Params, params};

use super::desk::Tools;
use super::file::Database;
use super::read::{checked_bytes, number};
use super::shared::Shared;
use crate::codec::{checksum, read_snapshot, write_snapshot};
use crate::error::Place;
use crate::{Result, Seq, StoreError};

/// Bytes in a part: what a snapshot needs of memory beside itself, and how long a commit of the
/// owner may have to wait for it.
const PART_BYTES: usize = mesh_fail::sooner(512 << 10, 16 << 10);
/// Rows of the journal that are dropped in one commit.
const DROP_ROWS_MAX: u32 = 64;

impl Database {
    /// The last event that the newest snapshot includes.
    pub(super) fn snapshot_seq(&self) -> Result<Option<Seq>> {
        self.row("SELECT seq FROM snapshot ORDER BY seq DESC LIMIT 1", [], number)
    }

    /// See [`crate::Store::load_snapshot`].
    pub(super) fn load_snapshot(&self) -> Result<Option<(Seq, Snapshot)>> {
        let sql = "SELECT seq, parts FROM snapshot ORDER BY seq DESC LIMIT 1";
        let Some((seq, parts)) = self.row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))? else {
            return Ok(None);
        };
        let mut reader = PartReader::new(self, seq, parts);
        let read = read_snapshot(&mut reader);
        if let Some(error) = reader.failure.take() {
            return Err(error);
        }
        let corrupt = |what: String| self.corrupt(Place::Snapshot(seq.cast_unsigned()), what);
        let snapshot = read.map_err(|error| corrupt(error.to_string()))?;
        if !reader.is_at_end() {
            return Err(corrupt("there is more than one snapshot in it".into()));
        }
        Ok(Some((seq.cast_unsigned(), snapshot)))
    }
}

impl Tools {
    /// The work of one snapshot.
    pub(super) fn work<'a>(&'a self, shared: &'a Shared) -> Work<'a> {
        Work { tools: self, shared }
    }
}

/// Writing a snapshot, and clearing away what it replaces: many short commits, between which the
/// owner of the store has its turns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work<'a> {
    tools: &'a Tools,
    shared: &'a Shared,
}

impl Work<'_> {
    /// Makes a snapshot durable unless there is one that includes as much, and drops those before
    /// it.
    pub(super) fn save(&self, seq: Seq, snapshot: &Snapshot) -> Result<()> {
        if self.tools.db.snapshot_seq()?.is_some_and(|newest| newest >= seq) {
            return Ok(());
        }
        self.drop_loose_parts()?;
        let mut writer = PartWriter::new(*self, seq.cast_signed());
        let written = write_snapshot(&mut writer, snapshot);
        if let Some(error) = writer.failure.take() {
            return Err(error);
        }
        written.map_err(|error| StoreError::Codec {
            what: format!("the snapshot of event {seq}"),
            why: error.to_string(),
        })?;
        let parts = writer.finish()?;
        mesh_fail::pass("store.snapshot.before_flip");
        self.publish(seq.cast_signed(), parts)?;
        mesh_fail::pass("store.snapshot.after_flip");
        self.drop_loose_parts()
    }

    /// Drops the rows of the journal whose events are all up to `last`, oldest first, so that what
    /// is left has no gap whenever this is cut short.
    pub(super) fn drop_journal(&self, last: Seq) -> Result<()> {
        let sql = "DELETE FROM journal WHERE first IN (SELECT first FROM journal
                   WHERE first <= ?1 AND first + count - 1 <= ?1 ORDER BY first LIMIT ?2)";
        mesh_fail::pass("store.journal.before_drop");
        self.repeat(sql, params![last.cast_signed(), DROP_ROWS_MAX], "store.journal.after_drop")
    }

    /// Drops parts that belong to no complete snapshot: to an old one, or to one that was being
    /// written when the process died.
    pub(super) fn drop_loose_parts(&self) -> Result<()> {
        let sql = "DELETE FROM snapshot_part WHERE rowid IN (SELECT rowid FROM snapshot_part
                   WHERE seq NOT IN (SELECT seq FROM snapshot) LIMIT 1)";
        self.repeat(sql, [], "store.snapshot.clearing")
    }

    /// Makes a complete snapshot the only one.
    fn publish(&self, seq: i64, parts: i64) -> Result<()> {
        self.step(0, |conn| {
            let tx = conn.unchecked_transaction()?;
            tx.execute("INSERT INTO snapshot (seq, parts) VALUES (?1, ?2)", [seq, parts])?;
            tx.execute("DELETE FROM snapshot WHERE seq <> ?1", [seq])?;
            tx.commit()
        })
    }

    /// Runs a statement that does a bounded part of some work until there is nothing left to do.
    fn repeat(&self, sql: &str, params: impl Params + Copy, point: &'static str) -> Result<()> {
        while self.step(0, |conn| conn.prepare_cached(sql)?.execute(params))? > 0 {
            mesh_fail::pass(point);
        }
        Ok(())
    }

    fn insert_part(&self, seq: i64, part: i64, bytes: &[u8]) -> Result<()> {
        let sql = "INSERT INTO snapshot_part (seq, part, crc, bytes) VALUES (?1, ?2, ?3, ?4)";
        let crc = checksum(&[seq, part], bytes);
        let ordered = |error| StoreError::io(&self.tools.db.path, "write a snapshot to", error);
        mesh_fail::fault("store.snapshot.before_part").map_err(ordered)?;
        self.step(bytes.len(), |conn| {
            conn.prepare_cached(sql)?.execute(params![seq, part, crc, bytes])
        })?;
        mesh_fail::pass("store.snapshot.after_part");
        Ok(())
    }

    /// One commit of so many bytes, when it is its turn.
    fn step<T>(
        &self,
        bytes: usize,
        commit: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        if self.shared.is_closing() {
            return Err(StoreError::Closed);
        }
        let db = &self.tools.db;
        let done = {
            let _turn = self.shared.guest_turn();
            commit(&db.conn).map_err(|error| db.failed("write a snapshot to", error))?
        };
        self.tools.wake.committed(bytes);
        Ok(done)
    }
}

/// Cuts a stream of bytes into rows.
struct PartWriter<'a> {
    work: Work<'a>,
    seq: i64,
    parts: i64,
    bytes: Vec<u8>,
    failure: Option<StoreError>,
}

impl<'a> PartWriter<'a> {
    fn new(work: Work<'a>, seq: i64) -> Self {
        Self { work, seq, parts: 0, bytes: Vec::new(), failure: None }
    }

    /// Writes what is left and answers how many parts there are.
    fn finish(mut self) -> Result<i64> {
        self.end_part()?;
        Ok(self.parts)
    }

    fn end_part(&mut self) -> Result<()> {
        self.work.insert_part(self.seq, self.parts, &self.bytes)?;
        self.parts += 1;
        self.bytes.clear();
        Ok(())
    }
}

impl Write for PartWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() >= PART_BYTES
            && let Err(error) = self.end_part()
        {
            self.failure = Some(error);
            return Err(io::ErrorKind::Other.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Joins rows to a stream of bytes.
struct PartReader<'a> {
    db: &'a Database,
    seq: i64,
    parts: i64,
    next: i64,
    part: io::Cursor<bytes::Bytes>,
    failure: Option<StoreError>,
}

impl<'a> PartReader<'a> {
    fn new(db: &'a Database, seq: i64, parts: i64) -> Self {
        Self { db, seq, parts, next: 0, part: io::Cursor::default(), failure: None }
    }

    fn is_at_end(&mut self) -> bool {
        matches!(self.read(&mut [0]), Ok(0))
    }

    fn next_part(&mut self) -> Result<bytes::Bytes> {
        let sql = "SELECT crc, bytes FROM snapshot_part WHERE seq = ?1 AND part = ?2";
        let place = Place::Snapshot(self.seq.cast_unsigned());
        let (seq, part) = (self.seq, self.next);
        let Some(found) = self.db.row(sql, [seq, part], checked_bytes)? else {
            let what = format!("part {} of {} is missing", part + 1, self.parts);
            return Err(self.db.corrupt(place, what));
        };
        self.next += 1;
        self.db.verify(place, &[seq, part], found)
    }
}

impl Read for PartReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.part.read(into)?;
            if count > 0 || into.is_empty() || self.next == self.parts {
                return Ok(count);
            }
            match self.next_part() {
                Ok(bytes) => self.part = io::Cursor::new(bytes),
                Err(error) => {
                    self.failure = Some(error);
                    return Err(io::ErrorKind::Other.into());
                }
            }
        }
    }
}
