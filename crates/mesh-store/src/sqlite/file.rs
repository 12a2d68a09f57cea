//! The file: how it is made, recognised and opened.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::error::Place;
use crate::{Result, Seq, StoreError};

/// The format that this release writes, and the newest that it reads.
pub(super) const FORMAT: u32 = 1;
/// Marks an SQLite file as ours: the letters `SMsh`.
const APPLICATION_ID: u32 = 0x534d_7368;
/// How every SQLite file begins.
const MAGIC: &[u8] = b"SQLite format 3\0";
/// Bytes of an SQLite file's header.
const HEADER_BYTES: usize = 100;
/// Pages in the write-ahead log from which a commit helps to empty it. The checkpointer does so
/// long before, unless the disk is too slow for both: then commits must become slower.
const AUTOCHECKPOINT_PAGES: u32 = 40_000;
/// What the log is cut to when it is started over after a burst. Below that it keeps its size:
/// writing over what is there is cheaper than making the file longer.
const LOG_BYTES_KEPT: u32 = 64 << 20;
/// How long to wait for a program that looks at the file from outside.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Prepared statements that are kept.
const STATEMENTS_MAX: usize = 32;

const SCHEMA: &str = "
    CREATE TABLE journal (
        first INTEGER PRIMARY KEY, -- the number of the first event
        count INTEGER NOT NULL,    -- how many events there are
        at INTEGER NOT NULL,       -- when they happened, in microseconds
        crc INTEGER NOT NULL,      -- of the numbers above and the bytes below
        events BLOB NOT NULL       -- one after the other
    );
    CREATE TABLE data (
        id INTEGER PRIMARY KEY,    -- twice the number of the task, and 1 more for its result
        crc INTEGER NOT NULL,
        bytes BLOB NOT NULL
    );
    CREATE TABLE code (
        digest BLOB PRIMARY KEY,
        crc INTEGER NOT NULL,
        bytes BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE snapshot (
        seq INTEGER PRIMARY KEY,   -- the last event that it includes
        parts INTEGER NOT NULL     -- how many rows of snapshot_part make it up
    );
    CREATE TABLE snapshot_part (
        seq INTEGER NOT NULL,
        part INTEGER NOT NULL,
        crc INTEGER NOT NULL,
        bytes BLOB NOT NULL,
        PRIMARY KEY (seq, part)
    );
";

/// An open file of ours.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) conn: Connection,
    pub(super) path: PathBuf,
}

/// Who opens a file, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Its owner, to read and write.
    Owner,
    /// Somebody who works beside the owner, in the same process.
    Guest,
    /// Somebody who looks at it while it may be in use.
    Inspector,
}

impl Database {
    /// Opens a file that [`recognise`] accepted.
    pub(super) fn open(path: &Path, access: Access) -> Result<Self> {
        let mode = match access {
            Access::Owner | Access::Guest => OpenFlags::SQLITE_OPEN_READ_WRITE,
            Access::Inspector => OpenFlags::SQLITE_OPEN_READ_ONLY,
        };
        let conn = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .map_err(|error| StoreError::sqlite(path, "open", error))?;
        let db = Self { conn, path: path.into() };
        // The header may be older than what the log says: look again before anything is changed.
        db.keep_log_on_close(true)?;
        db.check_version()?;
        if access != Access::Inspector {
            db.keep_log_on_close(false)?;
            db.configure(access).map_err(|error| db.failed("configure", error))?;
        }
        Ok(db)
    }

    /// Turns what SQLite said into an error that names this file.
    pub(super) fn failed(&self, doing: &'static str, error: rusqlite::Error) -> StoreError {
        StoreError::sqlite(&self.path, doing, error)
    }

    /// An error that names a damaged place in this file.
    pub(super) fn corrupt(&self, place: Place, what: impl Into<String>) -> StoreError {
        StoreError::Corrupt { path: self.path.clone(), place, what: what.into() }
    }

    /// The number of the last durable event, after a look at whether the journal and the snapshot
    /// fit together.
    pub(super) fn check_ends(&self) -> Result<Seq> {
        let snapshot = self.snapshot_seq()?.unwrap_or(0);
        let Some((oldest, last)) = self.journal_ends()? else { return Ok(snapshot) };
        if oldest > snapshot + 1 {
            let what = format!("the events from {} to {} are missing", snapshot + 1, oldest - 1);
            return Err(self.corrupt(Place::Event(snapshot + 1), what));
        }
        if last < snapshot {
            let what = format!("the journal ends at event {last}");
            return Err(self.corrupt(Place::Snapshot(snapshot), what));
        }
        Ok(last)
    }

    /// Whether closing the last connection leaves the write-ahead log as it is.
    fn keep_log_on_close(&self, keep: bool) -> Result<()> {
        self.conn
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep)
            .map(|_now| ())
            .map_err(|error| self.failed("configure", error))
    }

    /// The format of the file.
    pub(super) fn format(&self) -> Result<u32> {
        self.conn
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(|error| self.failed("open", error))
    }

    fn check_version(&self) -> Result<()> {
        refuse_newer(&self.path, self.format()?)
    }

    fn configure(&self, access: Access) -> rusqlite::Result<()> {
        let conn = &self.conn;
        conn.busy_timeout(BUSY_TIMEOUT)?;
        let autocheckpoint = if access == Access::Owner { AUTOCHECKPOINT_PAGES } else { 0 };
        conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        conn.pragma_update(None, "synchronous", "FULL")?;
        conn.pragma_update(None, "wal_autocheckpoint", autocheckpoint)?;
        conn.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
        conn.pragma_update(None, "temp_store", "MEMORY")?;
        conn.pragma_update(None, "trusted_schema", "OFF")
    }
}

/// Looks at the first bytes of the file without changing anything: `false` when there is no file,
/// an error when it is not one that we may open.
pub(super) fn recognise(path: &Path) -> Result<bool> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    match File::open(path) {
        Ok(file) => file
            .take(u64::try_from(HEADER_BYTES).unwrap_or(u64::MAX))
            .read_to_end(&mut header)
            .map_err(|error| StoreError::io(path, "read", error))?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(StoreError::io(path, "open", error)),
    };
    let foreign = |what: &str| StoreError::Foreign { path: path.into(), what: what.into() };
    if header.is_empty() {
        return Err(foreign("it is empty"));
    }
    if header.len() < HEADER_BYTES || !header.starts_with(MAGIC) {
        return Err(foreign("it is not an SQLite database"));
    }
    if number_at(&header, 68) != Some(APPLICATION_ID) {
        return Err(foreign("it is the SQLite database of another program"));
    }
    refuse_newer(path, number_at(&header, 60).unwrap_or(u32::MAX))?;
    Ok(true)
}

/// A number of the header, which keeps them with the largest byte first.
fn number_at(header: &[u8], offset: usize) -> Option<u32> {
    let bytes = header.get(offset..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}

fn refuse_newer(path: &Path, found: u32) -> Result<()> {
    if found > FORMAT {
        return Err(StoreError::Newer { path: path.into(), found, known: FORMAT });
    }
    Ok(())
}

/// Makes a new file. It gets its name when it is complete, so that there never is half a file
/// under that name.
pub(super) fn create(path: &Path) -> Result<()> {
    let log = beside(path, "-wal");
    if log.exists() {
        let what = format!("it is missing, but its log {} is there", log.display());
        return Err(StoreError::Corrupt { path: path.into(), place: Place::File, what });
    }
    let draft = beside(path, ".new");
    for leftover in ["", "-journal", "-wal", "-shm"] {
        remove_if_there(&beside(&draft, leftover))?;
    }
    let failed = |error| StoreError::io(&draft, "create", error);
    private_file(&draft).map_err(failed)?;
    mesh_fail::pass("store.create.before_schema");
    fill(&draft).map_err(|error| StoreError::sqlite(&draft, "create", error))?;
    mesh_fail::pass("store.create.after_schema");
    File::open(&draft).and_then(|file| file.sync_all()).map_err(failed)?;
    mesh_fail::pass("store.create.before_rename");
    fs::rename(&draft, path).map_err(failed)?;
    mesh_fail::pass("store.create.before_dir_sync");
    sync_directory(path).map_err(failed)
}

/// A new file that only its owner may read. SQLite gives its helper files the same mode.
pub(super) fn private_file(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn fill(path: &Path) -> rusqlite::Result<()> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    conn.execute_batch(&format!("BEGIN; {SCHEMA} COMMIT;"))?;
    conn.pragma_update(None, "application_id", APPLICATION_ID)?;
    conn.pragma_update(None, "user_version", FORMAT)?;
    conn.pragma_update_and_check(None, "journal_mode", "WAL", |_row| Ok(()))?;
    conn.close().map_err(|(_conn, error)| error)
}

/// The file whose name is this one's and `ending`.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

pub(super) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(StoreError::io(path, "remove", error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes a new name durable.
pub(super) fn sync_directory(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(parent) if cfg!(unix) => File::open(parent)?.sync_all(),
        Some(_) | None => Ok(()),
    }
}
