//! Reading: every row is checked against its checksum before anybody sees it.

use bytes::Bytes;
use mesh_core::model::id::{Digest, TaskId};
use mesh_core::model::time::Timestamp;
use rusqlite::{OptionalExtension, Params, Row};

use super::file::Database;
use super::write::{data_id, row_numbers};
use crate::codec::{checksum, decode_events};
use crate::error::Place;
use crate::{Entry, Result, Seq, Side};

impl Database {
    /// The numbers of the oldest and the last event in the journal; `None` when it is empty.
    pub(super) fn journal_ends(&self) -> Result<Option<(Seq, Seq)>> {
        let Some(oldest) =
            self.row("SELECT first FROM journal ORDER BY first LIMIT 1", [], number)?
        else {
            return Ok(None);
        };
        let newest = "SELECT first + count - 1 FROM journal ORDER BY first DESC LIMIT 1";
        Ok(self.row(newest, [], number)?.map(|last| (oldest, last)))
    }

    /// See [`crate::Store::replay`]. Holds one row at a time.
    pub(super) fn replay(&self, after: Seq, visit: &mut dyn FnMut(Entry) -> bool) -> Result<()> {
        let failed = |error| self.failed("read the journal of", error);
        let mut select = self
            .conn
            .prepare_cached(
                "SELECT first, count, at, crc, events FROM journal WHERE first >= coalesce(
                     (SELECT max(first) FROM journal WHERE first <= ?1), 0) ORDER BY first",
            )
            .map_err(failed)?;
        let mut rows = select.query([after.saturating_add(1).cast_signed()]).map_err(failed)?;
        let mut expected = None;
        while let Some(row) = rows.next().map_err(failed)? {
            let (entry, next) = self.entry(row, after, expected)?;
            expected = Some(next);
            if !entry.events.is_empty() && !visit(entry) {
                break;
            }
        }
        Ok(())
    }

    /// What a row of the journal says after event `after`, and the number of the event that comes
    /// next.
    fn entry(&self, row: &Row<'_>, after: Seq, expected: Option<Seq>) -> Result<(Entry, Seq)> {
        let failed = |error| self.failed("read the journal of", error);
        let first = number(row).map_err(failed)?;
        if let Some(expected) = expected
            && first != expected
        {
            let what = format!("event {expected} was expected, event {first} was found");
            return Err(self.corrupt(Place::Event(expected), what));
        }
        let corrupt = |what: String| self.corrupt(Place::Event(first), what);
        let count = row.get(1).map(i64::cast_unsigned).map_err(failed)?;
        let at = row.get(2).map(i64::cast_unsigned).map(Timestamp::from_micros).map_err(failed)?;
        let crc: i64 = row.get(3).map_err(failed)?;
        let events = row.get_ref(4).map_err(failed)?;
        let events = events.as_blob().map_err(|error| corrupt(error.to_string()))?;
        if checksum(&row_numbers(first, count, at), events) != crc {
            return Err(corrupt("its checksum is wrong".into()));
        }
        let skip = after.saturating_add(1).saturating_sub(first);
        let events = decode_events(events, count, skip).map_err(corrupt)?;
        Ok((Entry { first: first.saturating_add(skip), at, events }, first.saturating_add(count)))
    }

    /// The bytes of a task.
    pub(super) fn data(&self, task: TaskId, side: Side) -> Result<Option<Bytes>> {
        let Ok(id) = data_id(task, side) else { return Ok(None) };
        let found = self.row("SELECT crc, bytes FROM data WHERE id = ?1", [id], checked_bytes)?;
        found.map(|found| self.verify(Place::Data(task, side), &[id], found)).transpose()
    }

    /// The code of a digest.
    pub(super) fn code(&self, digest: &Digest) -> Result<Option<Bytes>> {
        let sql = "SELECT crc, bytes FROM code WHERE digest = ?1";
        let found = self.row(sql, [digest.0], checked_bytes)?;
        found.map(|found| self.verify(Place::Code(*digest), &[], found)).transpose()
    }

    /// Whether the code of a digest is here.
    pub(super) fn has_code(&self, digest: &Digest) -> Result<bool> {
        let sql = "SELECT 1 FROM code WHERE digest = ?1";
        Ok(self.row(sql, [digest.0], |_row| Ok(()))?.is_some())
    }

    /// Bytes, if they are what was written.
    pub(super) fn verify(
        &self,
        place: Place,
        numbers: &[i64],
        (crc, bytes): (i64, Vec<u8>),
    ) -> Result<Bytes> {
        if checksum(numbers, &bytes) != crc {
            return Err(self.corrupt(place, "its checksum is wrong"));
        }
        Ok(bytes.into())
    }

    /// The first row of an answer.
    pub(super) fn row<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        let select = self.conn.prepare_cached(sql);
        select
            .and_then(|mut select| select.query_row(params, read).optional())
            .map_err(|error| self.failed("read", error))
    }
}

/// The first column, as a number that counts something.
pub(super) fn number(row: &Row<'_>) -> rusqlite::Result<u64> {
    row.get(0).map(i64::cast_unsigned)
}

/// A checksum and what it belongs to.
pub(super) fn checked_bytes(row: &Row<'_>) -> rusqlite::Result<(i64, Vec<u8>)> {
    Ok((row.get(0)?, row.get(1)?))
}
