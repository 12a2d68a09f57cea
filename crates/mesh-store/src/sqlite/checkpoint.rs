//! Empties the write-ahead log beside the commits, so that no commit has to wait for it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::file::{Access, Database};
use crate::{Result, StoreError};

/// Bytes of the log after which it is emptied.
const EVERY_BYTES: usize = 8 << 20;
/// What a commit writes at least: a few pages, whatever is in it.
const COMMIT_BYTES: usize = 16 << 10;

/// A thread that copies what is in the log to its place in the file.
#[derive(Debug)]
pub(super) struct Checkpointer {
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    failed: Arc<AtomicBool>,
    written: usize,
}

impl Checkpointer {
    /// Starts the thread.
    pub(super) fn start(path: &Path) -> Result<Self> {
        let db = Database::open(path, Access::Checkpointer)?;
        let (wake, woken) = sync_channel(1);
        let failed = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&failed);
        let thread = std::thread::Builder::new()
            .name("mesh-checkpoint".into())
            .spawn(move || run(&db, &woken, &flag))
            .map_err(|error| StoreError::io(path, "start a checkpointer for", error))?;
        Ok(Self { wake: Some(wake), thread: Some(thread), failed, written: 0 })
    }

    /// Takes note of a commit of so many bytes, and wakes the thread when there is enough to do.
    pub(super) fn committed(&mut self, bytes: usize) {
        self.written = self.written.saturating_add(bytes).saturating_add(COMMIT_BYTES);
        if self.written < EVERY_BYTES {
            return;
        }
        // A full channel means that the thread is about to look anyway.
        if let Some(wake) = &self.wake
            && wake.try_send(()).is_ok()
        {
            self.written = 0;
        }
    }

    /// Whether the system failed to write or sync the file.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        drop(self.wake.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the checkpointer panicked");
        }
    }
}

fn run(db: &Database, woken: &Receiver<()>, failed: &AtomicBool) {
    while woken.recv().is_ok() {
        let Err(error) = checkpoint(db) else { continue };
        tracing::warn!(%error, "cannot empty the write-ahead log");
        if error.poisons() {
            failed.store(true, Ordering::Release);
            return;
        }
    }
}

/// Copies as much as is possible without making anybody wait.
fn checkpoint(db: &Database) -> Result<()> {
    db.conn
        .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_row| Ok(()))
        .map_err(|error| db.failed("checkpoint", error))
}
