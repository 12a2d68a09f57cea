//! A place beside the owner at which snapshots are written, on whatever thread has the time.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh_core::snapshot::Snapshot;

use super::checkpoint::Wake;
use super::file::{Access, Database};
use super::shared::Shared;
use crate::{Result, Seq, SnapshotWriter, StoreError};

/// A connection for snapshots, which the owner closes when it goes.
#[derive(Debug)]
pub(super) struct Desk {
    /// `None` once the owner has gone. Locked while a snapshot is written: one at a time.
    tools: Mutex<Option<Tools>>,
    shared: Arc<Shared>,
}

/// What a snapshot is written with.
#[derive(Debug)]
pub(super) struct Tools {
    pub(super) db: Database,
    pub(super) wake: Wake,
}

impl Desk {
    /// Opens the connection, and clears away a snapshot that was never finished.
    pub(super) fn open(path: &Path, shared: &Arc<Shared>, wake: Wake) -> Result<Self> {
        let db = Database::open(path, Access::Guest)?;
        let tools = Tools { db, wake };
        tools.work(shared).drop_loose_parts()?;
        Ok(Self { tools: Mutex::new(Some(tools)), shared: Arc::clone(shared) })
    }

    /// See [`SnapshotWriter::save`].
    pub(super) fn save(&self, seq: Seq, snapshot: &Snapshot, keep_after: Seq) -> Result<()> {
        let tools = self.tools();
        let Some(tools) = tools.as_ref().filter(|_| !self.shared.is_closing()) else {
            return Err(StoreError::Closed);
        };
        self.shared.check_poison(&tools.db.path)?;
        let last = tools.db.check_ends()?;
        if seq > last {
            return Err(StoreError::Ahead { seq, last });
        }
        let work = tools.work(&self.shared);
        let saved = work.save(seq, snapshot).and_then(|()| work.drop_journal(seq.min(keep_after)));
        self.shared.poison_if_grave(saved)
    }

    /// See [`super::SqliteStore::start_over`].
    pub(super) fn start_over(&self, last: Seq, seq: Seq, snapshot: &Snapshot) -> Result<()> {
        let tools = self.tools();
        let Some(tools) = tools.as_ref() else { return Err(StoreError::Closed) };
        self.shared.check_poison(&tools.db.path)?;
        let work = tools.work(&self.shared);
        let saved = work.save(seq, snapshot).and_then(|()| work.drop_journal(last));
        self.shared.poison_if_grave(saved)
    }

    /// Ends what is at work at its next step, and closes the connection.
    pub(super) fn close(&self) {
        self.shared.close();
        drop(self.tools().take());
    }

    /// A panic while a snapshot was written leaves one that is unfinished, and no harm.
    pub(super) fn tools(&self) -> MutexGuard<'_, Option<Tools>> {
        self.tools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes snapshots at the desk of a store.
#[derive(Debug)]
pub(super) struct AtDesk(pub(super) Arc<Desk>);

impl SnapshotWriter for AtDesk {
    fn save(&mut self, seq: Seq, snapshot: &Snapshot, keep_after: Seq) -> Result<()> {
        self.0.save(seq, snapshot, keep_after)
    }
}
