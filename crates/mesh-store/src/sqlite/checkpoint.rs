//! Empties the write-ahead log beside the commits, so that no commit has to wait for it, and sees to it
//! that commits write over what is there: a sync after the file became longer takes twice as long.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::file::{Access, Database, beside};
use super::shared::Shared;
use crate::{Result, Space, StoreError};

/// Bytes of the log after which it is emptied.
const EVERY_BYTES: usize = mesh_fail::sooner(8 << 20, 1 << 20);
/// What a commit writes at least: a few pages, whatever is in it.
const COMMIT_BYTES: usize = 16 << 10;
/// Pages in the log from which it is started over, so that it does not grow while commits keep
/// coming.
const START_OVER_PAGES: i64 = mesh_fail::sooner(4_096, 256);

/// Bytes to which the log is made longer at the start: what it grows to before it is started over.
const GROWN_BYTES: u64 = 20 << 20;
/// Bytes of that in one step.
const GROW_STEP: usize = 1 << 20;
/// Room on the disk that is worth more than speed.
const LEAVE_FREE: u64 = 256 << 20;

/// A thread that copies what is in the log to its place in the file. Dropped after the last
/// [`Wake`], it is waited for.
#[derive(Debug)]
pub(super) struct Checkpointer {
    thread: Option<JoinHandle<()>>,
}

/// Wakes the thread when there is enough to do. It ends when the last of these is gone.
#[derive(Clone, Debug)]
pub(super) struct Wake {
    sender: SyncSender<()>,
    written: Arc<AtomicUsize>,
}

impl Checkpointer {
    /// Starts the thread.
    pub(super) fn start(path: &Path, shared: &Arc<Shared>) -> Result<(Self, Wake)> {
        let db = Database::open(path, Access::Guest)?;
        // Whoever reads for long only delays it; waiting for him would delay commits.
        db.conn
            .busy_timeout(Duration::ZERO)
            .map_err(|error| StoreError::sqlite(path, "configure", error))?;
        let (sender, woken) = sync_channel(1);
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new()
            .name("mesh-checkpoint".into())
            .spawn(move || run(&db, &woken, &shared))
            .map_err(|error| StoreError::io(path, "start a checkpointer for", error))?;
        Ok((Self { thread: Some(thread) }, Wake { sender, written: Arc::default() }))
    }
}

impl Wake {
    /// Takes note of a commit of so many bytes, and wakes the thread when there is enough to do.
    pub(super) fn committed(&self, bytes: usize) {
        let bytes = bytes.saturating_add(COMMIT_BYTES);
        let before = self.written.fetch_add(bytes, Ordering::Relaxed);
        // A full channel means that the thread is about to look anyway.
        if before.saturating_add(bytes) >= EVERY_BYTES && self.sender.try_send(()).is_ok() {
            self.written.store(0, Ordering::Relaxed);
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the checkpointer panicked");
        }
    }
}

fn run(db: &Database, woken: &Receiver<()>, shared: &Shared) {
    if let Err(error) = grow(&beside(&db.path, "-wal"), shared) {
        // It grows with the commits then, which take longer for it.
        tracing::debug!(%error, "write-ahead log not made longer");
    }
    while woken.recv().is_ok() {
        let Err(error) = shared.poison_if_grave(empty(db, shared)) else { continue };
        tracing::warn!(%error, "cannot empty the write-ahead log");
        if error.poisons() {
            return;
        }
    }
}

/// Copies what is in the log without making anybody wait. When the log has become long, it is
/// started over: that commits have to wait for, and so all but what they added in the meantime is
/// copied before.
fn empty(db: &Database, shared: &Shared) -> Result<()> {
    mesh_fail::pass("store.checkpoint.begin");
    let (pages, copied) = checkpoint(db, "PRAGMA wal_checkpoint(PASSIVE)")?;
    mesh_fail::pass("store.checkpoint.copied");
    if pages < START_OVER_PAGES || copied < pages {
        return Ok(());
    }
    checkpoint(db, "PRAGMA wal_checkpoint(PASSIVE)")?;
    let _turn = shared.guest_turn();
    mesh_fail::pass("store.checkpoint.before_restart");
    checkpoint(db, "PRAGMA wal_checkpoint(RESTART)")?;
    mesh_fail::pass("store.checkpoint.after_restart");
    Ok(())
}

/// Makes the log longer, by zeros behind what is in it: no frame begins like that, so that for all who
/// read it, it ends where it did. Nobody writes to it during a step.
fn grow(log: &Path, shared: &Shared) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).open(log)?;
    let zeros = vec![0; GROW_STEP];
    loop {
        let turn = shared.guest_turn();
        let length = file.metadata()?.len();
        if length >= GROWN_BYTES || shared.is_closing() || Space::of(log)?.free < LEAVE_FREE {
            break;
        }
        file.write_all_at(&zeros, length)?;
        drop(turn);
        // Nobody may go on after a sync that failed, whoever asked for it.
        let synced = file.sync_data().map_err(|error| StoreError::io(log, "sync", error));
        if shared.poison_if_grave(synced).is_err() {
            break;
        }
    }
    Ok(())
}

/// How many pages are in the log, and how many of those are in the file now too.
fn checkpoint(db: &Database, sql: &str) -> Result<(i64, i64)> {
    db.conn
        .query_row(sql, [], |row| Ok((row.get(1)?, row.get(2)?)))
        .map_err(|error| db.failed("checkpoint", error))
}
