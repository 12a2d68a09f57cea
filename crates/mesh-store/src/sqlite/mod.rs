//! A store in one SQLite file, in tables that grow at their ends.
//!
//! Write-ahead log, synced at every commit. A commit is one row of the journal and one row for
//! each piece of data; nothing has a secondary index. The log is emptied by a thread of its own, and
//! snapshots are written on whatever thread has the time, over a connection of their own.

mod checkpoint;
mod copy;
mod desk;
mod file;
mod lock;
mod log;
mod read;
mod shared;
mod snapshot;
mod survey;
mod write;

pub use self::log::LogEnd;
pub use self::survey::Survey;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use mesh_core::model::id::{Digest, TaskId};
use mesh_core::snapshot::Snapshot;

use self::checkpoint::{Checkpointer, Wake};
use self::desk::{AtDesk, Desk};
use self::file::{Access, Database};
use self::lock::Lock;
use self::shared::Shared;
use crate::reserve::Reserve;
use crate::{Batch, Entry, Result, Seq, Side, SnapshotWriter, Store, StoreError};

/// The name of the file in its directory.
const FILE_NAME: &str = "mesh.db";
/// The name of the lock beside it.
const LOCK_NAME: &str = "mesh.lock";

/// A store in a directory. Nobody else can open it while this lives.
#[derive(Debug)]
pub struct SqliteStore {
    // Dropped in this order, after the desk was closed: the thread ends, the log is emptied, and only
    // then others may come.
    desk: Arc<Desk>,
    wake: Wake,
    _checkpointer: Checkpointer,
    db: Database,
    _lock: Lock,
    last: Seq,
    shared: Arc<Shared>,
    reserve: Reserve,
}

impl SqliteStore {
    /// Opens the store in a directory, or makes a new one. A file that is not ours, or that a
    /// newer release wrote, is refused before anything is changed.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = file_in(dir);
        file::recognise(&path)?;
        std::fs::create_dir_all(dir).map_err(|error| StoreError::io(dir, "create", error))?;
        let lock = Lock::take(&dir.join(LOCK_NAME))?;
        let reserve = Reserve::of(dir);
        let parts = match Parts::open(&path) {
            // Opening takes a little room, and what was accepted must be readable on a full disk.
            Err(StoreError::Full { .. }) if reserve.release() => Parts::open(&path)?,
            opened => opened?,
        };
        let Parts { desk, wake, checkpointer, db, last, shared } = parts;
        Ok(Self { desk, wake, _checkpointer: checkpointer, db, _lock: lock, last, shared, reserve })
    }

    /// Opens the store in a directory in order to look at it, while its owner may be at work.
    /// `None` when there is none.
    pub fn open_read_only(dir: &Path) -> Result<Option<StoreReader>> {
        let path = file_in(dir);
        // Where this process is the owner, it has looked already, and must not look again: closing a
        // file takes back all locks that the process has on it, those of SQLite included.
        if !lock::is_ours(&dir.join(LOCK_NAME)) && !file::recognise(&path)? {
            return Ok(None);
        }
        Database::open(&path, Access::Inspector).map(|db| Some(StoreReader { db }))
    }
}

/// What an open store consists of, beside its lock.
struct Parts {
    desk: Arc<Desk>,
    wake: Wake,
    checkpointer: Checkpointer,
    db: Database,
    last: Seq,
    shared: Arc<Shared>,
}

impl Parts {
    /// Opens the file, or makes a new one.
    fn open(path: &Path) -> Result<Self> {
        // Looked at again: whoever held the lock may have made the file in between.
        if !file::recognise(path)? {
            file::create(path)?;
        }
        mesh_fail::pass("store.open.before_log");
        tell_of_torn_log(path, log::examine(path)?);
        let db = Database::open(path, Access::Owner)?;
        let last = db.check_ends()?;
        mesh_fail::pass("store.open.after_ends");
        let shared = Arc::new(Shared::default());
        let (checkpointer, wake) = Checkpointer::start(path, &shared)?;
        let desk = Arc::new(Desk::open(path, &shared, wake.clone())?);
        Ok(Self { desk, wake, checkpointer, db, last, shared })
    }
}

/// Looks at the write-ahead log of a store that nobody has open: damage before its end is an error.
pub fn examine_log(dir: &Path) -> Result<LogEnd> {
    log::examine(&file_in(dir))
}

fn tell_of_torn_log(path: &Path, end: LogEnd) {
    if let Some(offset) = end.torn_at {
        let (path, commits) = (path.display(), end.commits);
        tracing::warn!(
            %path, offset, commits,
            "the write-ahead log ends in a commit that was never finished, and of which nobody was \
             told: it is cut off"
        );
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        mesh_fail::pass("store.close");
        self.desk.close();
    }
}

impl Store for SqliteStore {
    fn append(&mut self, batch: &Batch) -> Result<Seq> {
        self.shared.check_poison(&self.db.path)?;
        if batch.is_empty() {
            return Ok(self.last);
        }
        let result = {
            let _turn = self.shared.owner_turn();
            self.db.commit(self.last + 1, batch)
        };
        let bytes = self.shared.poison_if_grave(result)?;
        self.wake.committed(bytes);
        self.last += u64::try_from(batch.events.len()).unwrap_or(u64::MAX);
        Ok(self.last)
    }

    fn last_seq(&self) -> Seq {
        self.last
    }

    fn load_snapshot(&self) -> Result<Option<(Seq, Snapshot)>> {
        self.db.load_snapshot()
    }

    fn replay(&self, after: Seq, visit: &mut dyn FnMut(Entry) -> bool) -> Result<()> {
        self.db.replay(after, visit)
    }

    fn oldest_seq(&self) -> Result<Seq> {
        Ok(self.db.journal_ends()?.map_or(0, |(oldest, _last)| oldest))
    }

    fn snapshots(&self) -> Box<dyn SnapshotWriter> {
        Box::new(AtDesk(Arc::clone(&self.desk)))
    }

    fn release_reserve(&mut self) -> bool {
        self.reserve.release()
    }

    fn hold_reserve(&mut self) -> bool {
        self.reserve.hold().unwrap_or_else(|error| {
            tracing::warn!(%error, "no room is kept for a full disk");
            true
        })
    }

    fn data(&self, task: TaskId, side: Side) -> Result<Option<Bytes>> {
        self.db.data(task, side)
    }

    fn code(&self, digest: &Digest) -> Result<Option<Bytes>> {
        self.db.code(digest)
    }

    fn has_code(&self, digest: &Digest) -> Result<bool> {
        self.db.has_code(digest)
    }
}

/// A look at a store that somebody else may own. Every answer is of the moment it is given.
#[derive(Debug)]
pub struct StoreReader {
    db: Database,
}

impl StoreReader {
    /// See [`Store::last_seq`].
    pub fn last_seq(&self) -> Result<Seq> {
        self.db.check_ends()
    }

    /// See [`Store::oldest_seq`].
    pub fn oldest_seq(&self) -> Result<Seq> {
        Ok(self.db.journal_ends()?.map_or(0, |(oldest, _last)| oldest))
    }

    /// See [`Store::load_snapshot`].
    pub fn load_snapshot(&self) -> Result<Option<(Seq, Snapshot)>> {
        self.db.load_snapshot()
    }

    /// See [`Store::replay`].
    pub fn replay(&self, after: Seq, visit: &mut dyn FnMut(Entry) -> bool) -> Result<()> {
        self.db.replay(after, visit)
    }

    /// See [`Store::data`].
    pub fn data(&self, task: TaskId, side: Side) -> Result<Option<Bytes>> {
        self.db.data(task, side)
    }

    /// See [`Store::code`].
    pub fn code(&self, digest: &Digest) -> Result<Option<Bytes>> {
        self.db.code(digest)
    }
}

impl StoreReader {
    /// Looks at everything, and goes on where it finds damage.
    pub fn survey(&self) -> Result<Survey> {
        self.db.survey()
    }

    /// Copies everything, as it is at one moment, to a new store in a directory that has none.
    pub fn copy_to(&self, dir: &Path) -> Result<()> {
        self.db.copy_to(dir)
    }

    /// The format of the file.
    pub fn format(&self) -> Result<u32> {
        self.db.format()
    }

    /// Answers everything as it is at one moment, whatever its owner does meanwhile.
    pub fn at_one_moment<T>(&self, look: impl FnOnce(&Self) -> T) -> Result<T> {
        let failed = |error| self.db.failed("read", error);
        let _moment = self.db.conn.unchecked_transaction().map_err(failed)?;
        Ok(look(self))
    }
}

fn file_in(dir: &Path) -> PathBuf {
    dir.join(FILE_NAME)
}

#[cfg(test)]
mod tests {
    use mesh_core::event::Event;
    use mesh_core::model::id::LeaseId;

    use super::*;

    fn batch(bytes: usize) -> Batch {
        Batch {
            events: vec![Event::Released(LeaseId(1)); 3],
            data: vec![(TaskId(1), Side::Payload, vec![7; bytes].into())],
            ..Batch::default()
        }
    }

    fn limit_pages(store: &SqliteStore, pages: i64) {
        let set = |_row: &rusqlite::Row<'_>| Ok(());
        let tools = store.desk.tools();
        for conn in [&store.db.conn, &tools.as_ref().unwrap().db.conn] {
            conn.pragma_update_and_check(None, "max_page_count", pages, set).unwrap();
        }
    }

    #[test]
    fn the_library_keeps_a_log_intact_while_it_is_emptied() {
        // 3.51.3 mended a race between a checkpoint and the start of a new log.
        assert!(rusqlite::version_number() >= 3_051_003);
    }

    #[test]
    fn a_full_disk_keeps_nothing_of_the_batch_and_recovers() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(dir.path()).unwrap();
        store.append(&batch(100)).unwrap();
        limit_pages(&store, 40);

        for _again in 0..2 {
            let error = store.append(&batch(1 << 20)).unwrap_err();
            assert!(matches!(error, StoreError::Full { .. }), "{error}");
            let what = error.to_string();
            assert!(what.starts_with("no room left for "), "{what}");
            assert_eq!(store.last_seq(), 3);
            assert_eq!(store.data(TaskId(1), Side::Payload).unwrap().unwrap().len(), 100);
        }
        let snapshot = Snapshot { forgotten: 9, ..Snapshot::default() };
        store.save_snapshot(3, &snapshot, 0).unwrap();

        limit_pages(&store, 1 << 30);
        assert_eq!(store.append(&batch(1 << 20)).unwrap(), 6);
        drop(store);
        let store = SqliteStore::open(dir.path()).unwrap();
        assert_eq!(store.last_seq(), 6);
        assert_eq!(store.load_snapshot().unwrap(), Some((3, snapshot)));
    }

    #[test]
    fn a_snapshot_that_found_no_room_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(dir.path()).unwrap();
        store.append(&batch(100)).unwrap();
        store.save_snapshot(2, &Snapshot::default(), 0).unwrap();
        limit_pages(&store, 40);

        let code = (0..u32::MAX)
            .map(|number| {
                let mut digest = [0xff; 32];
                digest[..4].copy_from_slice(&number.to_be_bytes());
                (Digest(digest), mesh_core::snapshot::CodeRest::default())
            })
            .take(5_000)
            .collect();
        let large = Snapshot { code, ..Snapshot::default() };
        let error = store.save_snapshot(3, &large, 3).unwrap_err();
        assert!(matches!(error, StoreError::Full { .. }), "{error}");
        assert_eq!(store.load_snapshot().unwrap(), Some((2, Snapshot::default())));
        assert_eq!(store.oldest_seq().unwrap(), 1);

        limit_pages(&store, 1 << 30);
        store.save_snapshot(3, &large, 3).unwrap();
        assert_eq!(store.load_snapshot().unwrap(), Some((3, large)));
        assert_eq!(store.oldest_seq().unwrap(), 0);
    }

    /// How many locks there are on a file, of whatever kind.
    #[cfg(target_os = "linux")]
    fn locks_on(path: &Path) -> usize {
        use std::os::unix::fs::MetadataExt;

        let inode = std::fs::metadata(path).unwrap().ino().to_string();
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        let on = |line: &&str| line.split([' ', ':']).any(|word| word == inode);
        locks.lines().filter(on).count()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn looking_at_a_store_in_its_own_process_leaves_its_locks() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(dir.path()).unwrap();
        store.append(&batch(100)).unwrap();
        let before = locks_on(&dir.path().join(FILE_NAME));
        assert!(before > 0, "SQLite holds a lock as long as it is open");
        drop(SqliteStore::open_read_only(dir.path()).unwrap().unwrap());
        assert_eq!(locks_on(&dir.path().join(FILE_NAME)), before);
    }

    #[test]
    fn the_log_is_long_before_commits_need_it_and_stays_so() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(dir.path()).unwrap();
        let log = dir.path().join("mesh.db-wal");
        store.append(&batch(100)).unwrap();
        while log.metadata().unwrap().len() < 20 << 20 {
            std::thread::yield_now();
        }
        assert_eq!(store.append(&batch(100)).unwrap(), 6);
        let reader = SqliteStore::open_read_only(dir.path()).unwrap().unwrap();
        assert_eq!(reader.last_seq().unwrap(), 6);
        let crashed = tempfile::tempdir().unwrap();
        for name in [FILE_NAME, "mesh.db-wal"] {
            std::fs::copy(dir.path().join(name), crashed.path().join(name)).unwrap();
        }
        let end = examine_log(crashed.path()).unwrap();
        assert_eq!(end, LogEnd { commits: 2, torn_at: None });
        assert_eq!(SqliteStore::open(crashed.path()).unwrap().last_seq(), 6);
    }

    #[test]
    fn the_log_does_not_grow_without_bound() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(dir.path()).unwrap();
        let mut longest = 0;
        for _commit in 0..150 {
            store.append(&batch(1 << 20)).unwrap();
            let log = dir.path().join("mesh.db-wal");
            longest = longest.max(log.metadata().unwrap().len());
        }
        assert!(longest < 100 << 20, "{longest} bytes");
    }
}
