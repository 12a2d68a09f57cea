//! Why a store could not be opened, written or read.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

use mesh_core::model::id::{Digest, TaskId};

use crate::{Seq, Side};

/// Why something could not be kept or found again. Each variant asks for another reaction.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file is not ours. It was not touched.
    #[error(
        "{} is not a ScheduleMesh store: {what}; name another state directory, or move the file away",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What gives it away.
        what: String,
    },
    /// A newer release wrote the file. It was not touched.
    #[error(
        "{} has format {found}, this release knows formats up to {known}; \
         start the release that wrote it, or a newer one",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that this release reads.
        known: u32,
    },
    /// Somebody else has the store open. It was not touched.
    #[error(
        "{} is in use by {}; stop that one, or name another state directory",
        path.display(), Holder(*pid)
    )]
    Locked {
        /// What is locked.
        path: PathBuf,
        /// The process that holds it, where it could be told.
        pid: Option<u32>,
    },
    /// What was read is not what was written. Nothing is served from it.
    #[error(
        "{} is damaged at {place}: {what}; `schedulemesh doctor` tells the extent, \
         `schedulemesh restore` puts a backup in its place",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        place: Place,
        /// What is wrong there.
        what: String,
    },
    /// The disk, or the quota on it, is full. Nothing of the batch was kept; the next one may be.
    #[error("no room left for {}; free some space on its disk", path.display())]
    Full {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// Something is larger than a store can hold. Nothing of the batch was kept.
    #[error("{what} is too large for a store")]
    TooLarge {
        /// What it is.
        what: String,
    },
    /// Something that was to be kept could not be written as bytes. Nothing of the batch was kept.
    #[error("{what} cannot be encoded: {why}")]
    Codec {
        /// What it is.
        what: String,
        /// Why.
        why: String,
    },
    /// A snapshot was said to include events that the journal does not hold yet.
    #[error("a snapshot at event {seq} was given, the journal ends at event {last}")]
    Ahead {
        /// Where the snapshot claims to be.
        seq: Seq,
        /// The last durable event.
        last: Seq,
    },
    /// The store was closed while somebody still wanted to write a snapshot beside it. Nothing of
    /// that is kept.
    #[error("the store was closed; open it again")]
    Closed,
    /// The system failed to read, write or sync. After a failed write nobody knows what the disk
    /// holds: the store takes no more writes until it is opened again, which finds out.
    #[error("cannot {doing} {}: {source}", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// What a store answers.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// A place in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The file as a whole.
    File,
    /// So many bytes from the beginning of the file.
    Byte(u64),
    /// The journal, at the commit that begins with this event.
    Event(Seq),
    /// The snapshot that includes the events up to this one.
    Snapshot(Seq),
    /// The bytes of a task.
    Data(TaskId, Side),
    /// A piece of code.
    Code(Digest),
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => out.write_str("the file itself"),
            Self::Byte(offset) => write!(out, "byte {offset}"),
            Self::Event(seq) => write!(out, "event {seq}"),
            Self::Snapshot(seq) => write!(out, "the snapshot of event {seq}"),
            Self::Data(task, Side::Payload) => write!(out, "the arguments of {task}"),
            Self::Data(task, Side::Result) => write!(out, "the result of {task}"),
            Self::Code(digest) => write!(out, "the code {digest}"),
        }
    }
}

/// Says who holds a lock.
struct Holder(Option<u32>);

impl fmt::Display for Holder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(out, "process {pid}"),
            None => out.write_str("another program"),
        }
    }
}

impl StoreError {
    /// What the system said while `doing` something with `path`.
    pub(crate) fn io(path: &Path, doing: &'static str, error: std::io::Error) -> Self {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        if matches!(error.kind(), StorageFull | QuotaExceeded) {
            return Self::Full { path: path.into() };
        }
        Self::Failed { path: path.into(), doing, source: Box::new(error) }
    }

    /// What SQLite said while `doing` something with `path`.
    pub(crate) fn sqlite(path: &Path, doing: &'static str, error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        use rusqlite::ffi::SQLITE_IOERR_SHMSIZE;

        let path = path.to_path_buf();
        let Some(cause) = error.sqlite_error() else {
            return Self::Failed { path, doing, source: Box::new(error) };
        };
        match cause.code {
            ErrorCode::DiskFull => Self::Full { path },
            // The index of the write-ahead log could not grow: SQLite reports a full disk as this.
            ErrorCode::SystemIoFailure if cause.extended_code == SQLITE_IOERR_SHMSIZE => {
                Self::Full { path }
            }
            ErrorCode::DatabaseBusy => Self::Locked { path, pid: None },
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
                Self::Corrupt { path, place: Place::File, what: error.to_string() }
            }
            ErrorCode::TooBig => Self::TooLarge { what: "what was to be kept".into() },
            _ => Self::Failed { path, doing, source: Box::new(error) },
        }
    }

    /// Whether nobody knows any more what the disk holds.
    pub(crate) fn poisons(&self) -> bool {
        match self {
            Self::Failed { .. } | Self::Corrupt { .. } => true,
            Self::Foreign { .. }
            | Self::Newer { .. }
            | Self::Locked { .. }
            | Self::Full { .. }
            | Self::TooLarge { .. }
            | Self::Codec { .. }
            | Self::Ahead { .. }
            | Self::Closed => false,
        }
    }
}
