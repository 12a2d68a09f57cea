//! Writing: a batch is one transaction, in rows that SQLite can put at the ends of its tables.

use mesh_core::model::id::{Digest, TaskId};
use mesh_core::model::time::Timestamp;
use rusqlite::{Transaction, TransactionBehavior, params};

use super::file::Database;
use crate::codec::{checksum, encode_event};
use crate::{Batch, Result, Seq, Side, StoreError};

/// Bytes of events after which a commit goes on in another row of the journal, so that reading a
/// row never needs much more memory than this.
const ROW_BYTES_MAX: usize = 8 << 20;

/// One row of the journal to be.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    first: Seq,
    count: u64,
    at: Timestamp,
    events: Vec<u8>,
}

/// A row of the data to be: its id and its bytes.
type DataRow<'a> = (i64, &'a [u8]);

impl Database {
    /// Commits a batch whose first event gets the number `first`. Answers how many bytes that
    /// were, without the pages around them.
    pub(super) fn commit(&mut self, first: Seq, batch: &Batch) -> Result<usize> {
        let rows = rows_of(first, batch, ROW_BYTES_MAX)?;
        let data = rows_of_data(batch)?;
        let dropped = batch.drop_data.iter().map(|(task, side)| data_id(*task, *side));
        let dropped = dropped.collect::<Result<Vec<_>, _>>()?;
        let path = &self.path;
        let failed = |error| StoreError::sqlite(path, "append to", error);
        let ordered = |error| StoreError::io(path, "append to", error);

        mesh_fail::fault("store.append.begin").map_err(ordered)?;
        let behavior = TransactionBehavior::Immediate;
        let tx = self.conn.transaction_with_behavior(behavior).map_err(failed)?;
        let written = insert_events(&tx, &rows)
            .and_then(|events| Ok(events + insert_data(&tx, &data)? + insert_code(&tx, batch)?))
            .map_err(failed)?;
        delete(&tx, &dropped, &batch.drop_code).map_err(failed)?;
        mesh_fail::fault("store.append.before_commit").map_err(ordered)?;
        tx.commit().map_err(failed)?;
        mesh_fail::fault("store.append.after_commit").map_err(ordered)?;
        Ok(written)
    }
}

/// Where the bytes of a task are: what is submitted together lies together.
pub(super) fn data_id(task: TaskId, side: Side) -> Result<i64> {
    let side = match side {
        Side::Payload => 0,
        Side::Result => 1,
    };
    i64::try_from(task.0)
        .ok()
        .and_then(|number| number.checked_mul(2)?.checked_add(side))
        .ok_or_else(|| StoreError::TooLarge { what: format!("the number of {task}") })
}

/// The numbers that a row's checksum covers beside its bytes.
pub(super) fn row_numbers(first: Seq, count: u64, at: Timestamp) -> [i64; 3] {
    [first.cast_signed(), count.cast_signed(), at.micros().cast_signed()]
}

fn rows_of(first: Seq, batch: &Batch, bytes_max: usize) -> Result<Vec<Row>> {
    let empty = |first| Row { first, count: 0, at: batch.at, events: Vec::new() };
    let mut rows = Vec::new();
    let mut row = empty(first);
    for event in &batch.events {
        if row.events.len() >= bytes_max {
            let next = empty(row.first + row.count);
            rows.push(std::mem::replace(&mut row, next));
        }
        encode_event(&mut row.events, event)?;
        row.count += 1;
    }
    if row.count > 0 {
        rows.push(row);
    }
    Ok(rows)
}

fn rows_of_data(batch: &Batch) -> Result<Vec<DataRow<'_>>> {
    let mut rows = Vec::with_capacity(batch.data.len());
    for (task, side, bytes) in &batch.data {
        rows.push((data_id(*task, *side)?, bytes.as_ref()));
    }
    Ok(rows)
}

fn insert_events(tx: &Transaction<'_>, rows: &[Row]) -> rusqlite::Result<usize> {
    let mut insert = tx.prepare_cached(
        "INSERT INTO journal (first, count, at, crc, events) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    let mut written = 0;
    for row in rows {
        let numbers = row_numbers(row.first, row.count, row.at);
        let [first, count, at] = numbers;
        insert.execute(params![first, count, at, checksum(&numbers, &row.events), row.events])?;
        written += row.events.len();
    }
    mesh_fail::pass("store.append.after_events");
    Ok(written)
}

fn insert_data(tx: &Transaction<'_>, data: &[DataRow<'_>]) -> rusqlite::Result<usize> {
    if data.is_empty() {
        return Ok(0);
    }
    let mut insert =
        tx.prepare_cached("INSERT OR REPLACE INTO data (id, crc, bytes) VALUES (?1, ?2, ?3)")?;
    let mut written = 0;
    for (id, bytes) in data {
        insert.execute(params![id, checksum(&[*id], bytes), bytes])?;
        written += bytes.len();
    }
    mesh_fail::pass("store.append.after_data");
    Ok(written)
}

fn insert_code(tx: &Transaction<'_>, batch: &Batch) -> rusqlite::Result<usize> {
    if batch.code.is_empty() {
        return Ok(0);
    }
    let mut insert =
        tx.prepare_cached("INSERT OR IGNORE INTO code (digest, crc, bytes) VALUES (?1, ?2, ?3)")?;
    let mut written = 0;
    for (digest, bytes) in &batch.code {
        insert.execute(params![digest.0, checksum(&[], bytes), bytes.as_ref()])?;
        written += bytes.len();
    }
    mesh_fail::pass("store.append.after_code");
    Ok(written)
}

fn delete(tx: &Transaction<'_>, data: &[i64], code: &[Digest]) -> rusqlite::Result<()> {
    if !data.is_empty() {
        let mut delete = tx.prepare_cached("DELETE FROM data WHERE id = ?1")?;
        for id in data {
            delete.execute([id])?;
        }
    }
    if !code.is_empty() {
        let mut delete = tx.prepare_cached("DELETE FROM code WHERE digest = ?1")?;
        for digest in code {
            delete.execute([digest.0])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mesh_core::event::Event;
    use mesh_core::model::id::LeaseId;

    use super::*;

    #[test]
    fn a_commit_of_many_bytes_goes_on_in_another_row() {
        let events = (0..5).map(|number| Event::Released(LeaseId(number))).collect();
        let batch = Batch { at: Timestamp::from_micros(7), events, ..Batch::default() };
        let mut one = Vec::new();
        encode_event(&mut one, &Event::Released(LeaseId(0))).unwrap();

        let rows = rows_of(10, &batch, one.len() * 2).unwrap();

        let shape: Vec<_> = rows.iter().map(|row| (row.first, row.count)).collect();
        assert_eq!(shape, [(10, 2), (12, 2), (14, 1)]);
    }

    #[test]
    fn numbers_that_no_row_can_have_are_refused() {
        assert_eq!(data_id(TaskId(3), Side::Result).unwrap(), 7);
        let refusal = data_id(TaskId(1 << 62), Side::Payload).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "the number of t4611686018427387904 is too large for a store"
        );
    }
}
