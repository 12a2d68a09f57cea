//! A look at everything in a store, which goes on where it finds damage.

use mesh_core::model::id::{Digest, TaskId};
use mesh_core::model::time::Timestamp;
use rusqlite::Row;
use rusqlite::types::ValueRef;

use super::file::Database;
use super::read::number;
use super::write::row_numbers;
use crate::codec::{checksum, decode_events};
use crate::error::Place;
use crate::{Result, Seq, Side, StoreError};

/// Most findings of one kind that are told one by one.
const FINDINGS_MAX: usize = 100;

/// What a look at everything in a store found.
#[derive(Debug, Default)]
pub struct Survey {
    /// The oldest event in the journal; 0 when it is empty.
    pub oldest: Seq,
    /// The last event in the journal; 0 when it is empty.
    pub last: Seq,
    /// The commits in the journal.
    pub commits: u64,
    /// The last event that the snapshot includes; `None` when there is no snapshot.
    pub snapshot: Option<Seq>,
    /// Parts of a snapshot that was never finished. They do no harm.
    pub loose_parts: u64,
    /// Of which tasks there are bytes, in order.
    pub data: Vec<(TaskId, Side)>,
    /// Of which code there are bytes.
    pub code: Vec<Digest>,
    /// What is damaged.
    pub damage: Vec<StoreError>,
}

impl Survey {
    /// Takes note of damage; any other failure ends the look.
    fn note<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(damage @ StoreError::Corrupt { .. }) => {
                if self.damage.len() < FINDINGS_MAX {
                    self.damage.push(damage);
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Database {
    /// Looks at everything: the file's own structure, and each row against its checksum.
    pub(super) fn survey(&self) -> Result<Survey> {
        let mut survey = Survey::default();
        let structure = self.survey_structure(&mut survey);
        survey.note(structure)?;
        let journal = self.survey_journal(&mut survey);
        survey.note(journal)?;
        let snapshot = self.snapshot_seq();
        survey.snapshot = survey.note(snapshot)?.flatten();
        let loose =
            "SELECT count(*) FROM snapshot_part WHERE seq NOT IN (SELECT seq FROM snapshot)";
        let loose = self.row(loose, [], number);
        survey.loose_parts = survey.note(loose)?.flatten().unwrap_or_default();
        if survey.damage.is_empty() {
            let ends = self.check_ends();
            survey.note(ends)?;
        }
        let data = self.survey_data(&mut survey);
        survey.note(data)?;
        let code = self.survey_code(&mut survey);
        survey.note(code)?;
        Ok(survey)
    }

    fn survey_structure(&self, survey: &mut Survey) -> Result<()> {
        let page_bytes = self.row("PRAGMA page_size", [], number)?.unwrap_or_default();
        self.each("PRAGMA integrity_check(100)", |row| {
            let what: String = row.get(0).map_err(|error| self.failed("check", error))?;
            if what != "ok" {
                let place = place_of(&what, page_bytes);
                survey.note::<()>(Err(self.corrupt(place, what)))?;
            }
            Ok(())
        })
    }

    fn survey_journal(&self, survey: &mut Survey) -> Result<()> {
        let mut expected = None;
        self.each("SELECT first, count, at, crc, events FROM journal ORDER BY first", |row| {
            let failed = |error| self.failed("read the journal of", error);
            let first = number(row).map_err(failed)?;
            if let Some(expected) = expected.filter(|expected| *expected != first) {
                let what = format!("event {expected} was expected, event {first} was found");
                survey.note::<()>(Err(self.corrupt(Place::Event(expected), what)))?;
            }
            let count = row.get(1).map(i64::cast_unsigned).map_err(failed)?;
            let whole = self.whole_commit(row, first, count);
            survey.note(whole)?;
            survey.commits += 1;
            survey.oldest = if survey.oldest == 0 { first } else { survey.oldest };
            survey.last = first.saturating_add(count).saturating_sub(1);
            expected = Some(survey.last.saturating_add(1));
            Ok(())
        })
    }

    /// Whether a row of the journal is what was written.
    fn whole_commit(&self, row: &Row<'_>, first: Seq, count: u64) -> Result<()> {
        let failed = |error| self.failed("read the journal of", error);
        let at = row.get(2).map(i64::cast_unsigned).map(Timestamp::from_micros).map_err(failed)?;
        let crc: i64 = row.get(3).map_err(failed)?;
        let corrupt = |what: String| self.corrupt(Place::Event(first), what);
        let events = row.get_ref(4).map_err(failed)?;
        let events = events.as_blob().map_err(|error| corrupt(error.to_string()))?;
        if checksum(&row_numbers(first, count, at), events) != crc {
            return Err(corrupt("its checksum is wrong".into()));
        }
        decode_events(events, count, count).map(drop).map_err(corrupt)
    }

    fn survey_data(&self, survey: &mut Survey) -> Result<()> {
        self.each("SELECT id, crc, bytes FROM data ORDER BY id", |row| {
            let id: i64 = row.get(0).map_err(|error| self.failed("read", error))?;
            let side = if id & 1 == 0 { Side::Payload } else { Side::Result };
            let task = TaskId(id.cast_unsigned() / 2);
            let whole = self.whole_bytes(row, Place::Data(task, side), &[id]);
            survey.note(whole)?;
            survey.data.push((task, side));
            Ok(())
        })
    }

    fn survey_code(&self, survey: &mut Survey) -> Result<()> {
        self.each("SELECT digest, crc, bytes FROM code ORDER BY digest", |row| {
            let digest = row.get(0).map(Digest).map_err(|error| {
                self.corrupt(Place::File, format!("a digest of code is none: {error}"))
            });
            let Some(digest) = survey.note(digest)? else { return Ok(()) };
            let whole = self.whole_bytes(row, Place::Code(digest), &[]);
            survey.note(whole)?;
            survey.code.push(digest);
            Ok(())
        })
    }

    /// Whether the bytes in the third column are those that the checksum in the second is of.
    fn whole_bytes(&self, row: &Row<'_>, place: Place, numbers: &[i64]) -> Result<()> {
        let failed = |error| self.failed("read", error);
        let crc: i64 = row.get(1).map_err(failed)?;
        match row.get_ref(2).map_err(failed)? {
            ValueRef::Blob(bytes) if checksum(numbers, bytes) == crc => Ok(()),
            _ => Err(self.corrupt(place, "its checksum is wrong")),
        }
    }

    /// Looks at each row of an answer.
    fn each(&self, sql: &str, mut look: impl FnMut(&Row<'_>) -> Result<()>) -> Result<()> {
        let failed = |error| self.failed("read", error);
        let mut select = self.conn.prepare(sql).map_err(failed)?;
        let mut rows = select.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            look(row)?;
        }
        Ok(())
    }
}

/// The place that SQLite's own check speaks of, when it names a page.
fn place_of(what: &str, page_bytes: u64) -> Place {
    let after = what.split_once("page ").map(|(_, after)| after).unwrap_or_default();
    let digits = after.split(|letter: char| !letter.is_ascii_digit()).next().unwrap_or_default();
    match digits.parse::<u64>() {
        Ok(page) if page > 0 => Place::Byte((page - 1).saturating_mul(page_bytes)),
        _ => Place::File,
    }
}
