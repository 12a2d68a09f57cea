//! A copy of a store, of one moment, while its owner may be at work.

use std::fs::File;
use std::path::Path;

use mesh_core::snapshot::Snapshot;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::file::{Database, beside, private_file, remove_if_there, sync_directory};
use super::{FILE_NAME, SqliteStore};
use crate::{Result, Seq, StoreError};

impl Database {
    /// Copies every page, as they are at one moment, to a new store in another directory.
    pub(super) fn copy_to(&self, dir: &Path) -> Result<()> {
        let path = dir.join(FILE_NAME);
        let failed = |error| StoreError::sqlite(&path, "copy to", error);
        private_file(&path).map_err(|error| StoreError::io(&path, "create", error))?;
        let mut copy = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)
            .map_err(failed)?;
        {
            let backup = Backup::new(&self.conn, &mut copy).map_err(failed)?;
            // All at once: in WAL mode this keeps nobody from writing.
            match backup.step(-1).map_err(failed)? {
                StepResult::Done => {}
                _ => return Err(StoreError::Locked { path: self.path.clone(), pid: None }),
            }
        }
        copy.close().map_err(|(_copy, error)| failed(error))?;
        for helper in ["-wal", "-shm"] {
            remove_if_there(&beside(&path, helper))?;
        }
        File::open(&path)
            .and_then(|file| file.sync_all())
            .and_then(|()| sync_directory(&path))
            .map_err(|error| StoreError::io(&path, "sync", error))
    }
}

impl SqliteStore {
    /// Replaces what the journal and the snapshot say by a snapshot of a later moment, as if events
    /// up to `seq` had led to it. Data and code stay.
    pub fn start_over(&mut self, seq: Seq, snapshot: &Snapshot) -> Result<()> {
        self.desk.start_over(self.last, seq, snapshot)?;
        self.last = seq;
        Ok(())
    }
}
