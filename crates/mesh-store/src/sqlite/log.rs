//! The write-ahead log, looked at before SQLite does.
//!
//! SQLite reads a log up to the first page that is not whole, and takes that for its end. It is the
//! end after a crash: what follows is at most the one commit that nobody was told of. When more
//! commits follow, the place is damaged, and what SQLite would drop was acknowledged.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;

use super::file::beside;
use crate::error::Place;
use crate::{Result, StoreError};

/// Bytes before the first frame.
const HEADER_BYTES: usize = 32;
/// Bytes before the page of a frame.
const FRAME_BYTES: usize = 24;
/// How a log begins; the last bit says in which order its checksums take bytes.
const MAGIC: u32 = 0x377f_0682;

/// What the end of a log looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogEnd {
    /// Commits that are in the log, whole.
    pub commits: u64,
    /// Where the part begins that belongs to no whole commit, if there is such a part.
    pub torn_at: Option<u64>,
}

/// Looks at the log of a file that nobody writes to. Damage before its end is an error.
pub(super) fn examine(file: &Path) -> Result<LogEnd> {
    let path = beside(file, "-wal");
    let failed = |error| StoreError::io(&path, "read", error);
    let log = match File::open(&path) {
        Ok(log) => log,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(LogEnd::default()),
        Err(error) => return Err(failed(error)),
    };
    match scan(&mut BufReader::with_capacity(1 << 20, log)) {
        Ok(Ok(end)) => Ok(end),
        Ok(Err(at)) => Err(StoreError::Corrupt {
            path,
            place: Place::Byte(at),
            what: "its checksum is wrong, and commits that were acknowledged follow".into(),
        }),
        Err(error) => Err(failed(error)),
    }
}

/// The end of a log, or where it is damaged.
fn scan(log: &mut impl Read) -> std::io::Result<Result<LogEnd, u64>> {
    let mut header = [0; HEADER_BYTES];
    if !fill(log, &mut header)? || header == [0; HEADER_BYTES] {
        return Ok(Ok(LogEnd::default())); // Nothing was ever committed to it.
    }
    let Some(mut chain) = Chain::begin(&header) else { return Ok(Err(0)) };
    let mut frame = vec![0; FRAME_BYTES + chain.page_bytes];
    let frame_bytes = u64::try_from(frame.len()).unwrap_or(u64::MAX);
    let mut end = LogEnd::default();
    let mut at = u64::try_from(HEADER_BYTES).unwrap_or(u64::MAX);
    let (mut whole_to, mut commit_ended) = (at, at);
    let mut bad = None;
    let (mut frames_after, mut commits_after) = (0_u64, 0_u64);
    while fill(log, &mut frame)? {
        let is_ours = chain.is_of_this_log(&frame);
        let is_commit = number(&frame, 4) != Some(0);
        if bad.is_none() && is_ours && chain.accepts(&frame) {
            whole_to = at + frame_bytes;
            if is_commit {
                end.commits += 1;
                commit_ended = whole_to;
            }
        } else {
            // What is left from before the log was started over is not of this log; nor are zeros.
            bad = bad.or(Some(at));
            frames_after += u64::from(is_ours);
            commits_after += u64::from(is_ours && is_commit);
        }
        at += frame_bytes;
    }
    // One commit at a time is written and synced; a second one shows that the first was whole once.
    if let Some(bad) = bad.filter(|_| commits_after > 1) {
        return Ok(Err(bad));
    }
    let is_torn = frames_after > 0 || whole_to > commit_ended;
    end.torn_at = is_torn.then_some(commit_ended);
    Ok(Ok(end))
}

/// Fills the buffer; `false` when there is not so much left.
fn fill(log: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<bool> {
    match log.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// A number of the log, which keeps them with the largest byte first.
fn number(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// The checksum of a log, which goes on from frame to frame.
struct Chain {
    sum: (u32, u32),
    salts: (Option<u32>, Option<u32>),
    largest_first: bool,
    page_bytes: usize,
}

impl Chain {
    /// Begins with the header; `None` when that is not whole.
    fn begin(header: &[u8]) -> Option<Self> {
        let magic = number(header, 0)?;
        let page_bytes = usize::try_from(number(header, 8)?).ok()?;
        if magic & !1 != MAGIC || !page_bytes.is_power_of_two() || page_bytes > 1 << 16 {
            return None;
        }
        let mut chain = Self {
            sum: (0, 0),
            salts: (number(header, 16), number(header, 20)),
            largest_first: magic & 1 == 1,
            page_bytes,
        };
        chain.add(header.get(..24)?);
        (Some(chain.sum.0) == number(header, 24) && Some(chain.sum.1) == number(header, 28))
            .then_some(chain)
    }

    /// Whether a frame was written since the log was last started over.
    fn is_of_this_log(&self, frame: &[u8]) -> bool {
        (number(frame, 8), number(frame, 12)) == self.salts
    }

    /// Goes on to a frame; `false` when it is not whole.
    fn accepts(&mut self, frame: &[u8]) -> bool {
        let (Some(head), Some(page)) = (frame.get(..8), frame.get(FRAME_BYTES..)) else {
            return false;
        };
        self.add(head);
        self.add(page);
        number(frame, 16) == Some(self.sum.0) && number(frame, 20) == Some(self.sum.1)
    }

    fn add(&mut self, bytes: &[u8]) {
        let word = |bytes: &[u8; 4]| {
            if self.largest_first { u32::from_be_bytes(*bytes) } else { u32::from_le_bytes(*bytes) }
        };
        let (mut one, mut two) = self.sum;
        let (words, _rest) = bytes.as_chunks::<4>();
        let (pairs, _odd) = words.as_chunks::<2>();
        for [first, second] in pairs {
            one = one.wrapping_add(word(first)).wrapping_add(two);
            two = two.wrapping_add(word(second)).wrapping_add(one);
        }
        self.sum = (one, two);
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::event::Event;
    use mesh_core::model::id::LeaseId;

    use super::*;
    use crate::{Batch, SqliteStore, Store};

    /// The log of a store to which some commits were made.
    fn log_of(commits: u64) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(dir.path()).unwrap();
        for number in 0..commits {
            let events = vec![Event::Released(LeaseId(number)); 3];
            store.append(&Batch { events, ..Batch::default() }).unwrap();
        }
        without_zeros(std::fs::read(dir.path().join("mesh.db-wal")).unwrap())
    }

    /// Cuts off what was only made longer.
    fn without_zeros(mut log: Vec<u8>) -> Vec<u8> {
        let written = log.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let frames = (written - HEADER_BYTES).div_ceil(FRAME_BYTES + 4_096);
        log.truncate(HEADER_BYTES + frames * (FRAME_BYTES + 4_096));
        log
    }

    fn end_of(mut log: &[u8]) -> Result<LogEnd, u64> {
        scan(&mut log).unwrap()
    }

    #[test]
    fn a_whole_log_ends_with_a_commit() {
        assert_eq!(end_of(&log_of(5)), Ok(LogEnd { commits: 5, torn_at: None }));
        assert_eq!(end_of(&[]), Ok(LogEnd::default()));
        assert_eq!(end_of(&[0; 8_192]), Ok(LogEnd::default()));
    }

    #[test]
    fn a_log_that_was_cut_short_is_torn_where_the_last_whole_commit_ends() {
        let log = log_of(5);
        let frame = FRAME_BYTES + 4_096;
        let cut = end_of(&log[..log.len() - 1]).unwrap();
        assert_eq!(cut.commits, 4);
        let frames_of_one = (log.len() - HEADER_BYTES) / frame / 5;
        if frames_of_one > 1 {
            assert!(cut.torn_at.is_some());
        }
    }

    #[test]
    fn a_changed_byte_in_the_last_commit_is_torn_and_one_before_that_is_damage() {
        let log = log_of(5);
        let mut last = log.clone();
        let end = last.len() - 1;
        last[end] ^= 1;
        let found = end_of(&last).unwrap();
        assert_eq!(found.commits, 4);
        assert!(found.torn_at.is_some());
        for at in [0, 20, HEADER_BYTES + 9, HEADER_BYTES + FRAME_BYTES + 7, log.len() / 2] {
            let mut damaged = log.clone();
            damaged[at] ^= 1;
            let place = end_of(&damaged).unwrap_err();
            let place = usize::try_from(place).unwrap();
            assert!(place <= at && at < place + FRAME_BYTES + 4_096, "{at}: {place}");
        }
    }

    #[test]
    fn what_is_left_of_a_log_before_is_neither() {
        let mut log = log_of(5);
        let old = log.split_off(log.len() - 2 * (FRAME_BYTES + 4_096));
        let whole = end_of(&log).unwrap();
        let other = old.iter().map(|byte| byte ^ 0x5a);
        log.extend(other);
        assert_eq!(end_of(&log).unwrap(), whole);
    }
}
