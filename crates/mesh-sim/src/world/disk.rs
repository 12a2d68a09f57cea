//! The disk under the control plane: the memory store, and the faults of this world.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use mesh_core::model::id::{Digest, TaskId};
use mesh_core::snapshot::Snapshot;
use mesh_store::memory::{Fault, MemoryDisk, MemoryStore};
use mesh_store::{Batch, Entry, Place, Result, Seq, Side, SnapshotWriter, Store, StoreError};

/// What unwinds through a process that loses its power: it is not heard of again.
#[derive(Debug)]
pub(super) struct PowerLost;

/// A disk that outlives its stores.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    kept: MemoryDisk,
    mood: Arc<Mutex<Mood>>,
}

/// What the disk will do.
#[derive(Debug, Default)]
struct Mood {
    /// The next commit is the last thing that the process does; whether it is kept.
    crash: Option<bool>,
    /// Bytes that can't be read.
    damaged: Vec<(TaskId, Side)>,
    commits: u64,
}

impl Disk {
    pub(super) fn open(&self) -> Result<SimStore> {
        Ok(SimStore { inner: self.kept.open()?, mood: Arc::clone(&self.mood) })
    }

    pub(super) fn fill(&self) {
        self.kept.fill();
    }

    pub(super) fn free(&self) {
        self.kept.free();
    }

    pub(super) fn crash_next(&self, kept: bool) {
        lock(&self.mood).crash = Some(kept);
    }

    pub(super) fn fail_next(&self, fault: Fault) {
        self.kept.fail_next(fault);
    }

    pub(super) fn damage(&self, task: TaskId, side: Side) {
        lock(&self.mood).damaged.push((task, side));
    }

    pub(super) fn is_damaged(&self, task: TaskId) -> bool {
        lock(&self.mood).damaged.iter().any(|(damaged, _)| *damaged == task)
    }

    /// Nothing more goes wrong; what was damaged stays so.
    pub(super) fn calm(&self) {
        self.kept.free();
        self.kept.forget_faults();
        lock(&self.mood).crash = None;
    }

    /// How many commits there were.
    pub(super) fn commits(&self) -> u64 {
        lock(&self.mood).commits
    }

    /// What is durable after an event, whoever has the store open.
    pub(super) fn entries_after(&self, after: Seq) -> Vec<Entry> {
        self.kept.entries_after(after)
    }
}

fn lock(mood: &Mutex<Mood>) -> MutexGuard<'_, Mood> {
    mood.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The store of one life of the control plane.
#[derive(Debug)]
pub(super) struct SimStore {
    inner: MemoryStore,
    mood: Arc<Mutex<Mood>>,
}

impl SimStore {
    fn check(&self, task: TaskId, side: Side) -> Result<()> {
        if !lock(&self.mood).damaged.contains(&(task, side)) {
            return Ok(());
        }
        let (place, what) = (Place::Data(task, side), "its checksum is wrong".to_owned());
        Err(StoreError::Corrupt { path: "simulated".into(), place, what })
    }
}

impl Store for SimStore {
    fn append(&mut self, batch: &Batch) -> Result<Seq> {
        let mut mood = lock(&self.mood);
        if let Some(kept) = mood.crash.take() {
            drop(mood);
            if kept {
                drop(self.inner.append(batch)); // nobody hears whether it worked
            }
            std::panic::resume_unwind(Box::new(PowerLost));
        }
        mood.commits += 1;
        drop(mood);
        self.inner.append(batch)
    }

    fn last_seq(&self) -> Seq {
        self.inner.last_seq()
    }

    fn load_snapshot(&self) -> Result<Option<(Seq, Snapshot)>> {
        self.inner.load_snapshot()
    }

    fn replay(&self, after: Seq, visit: &mut dyn FnMut(Entry) -> bool) -> Result<()> {
        self.inner.replay(after, visit)
    }

    fn oldest_seq(&self) -> Result<Seq> {
        self.inner.oldest_seq()
    }

    fn snapshots(&self) -> Box<dyn SnapshotWriter> {
        self.inner.snapshots()
    }

    fn release_reserve(&mut self) -> bool {
        self.inner.release_reserve()
    }

    fn hold_reserve(&mut self) -> bool {
        self.inner.hold_reserve()
    }

    fn data(&self, task: TaskId, side: Side) -> Result<Option<Bytes>> {
        self.check(task, side)?;
        self.inner.data(task, side)
    }

    fn code(&self, digest: &Digest) -> Result<Option<Bytes>> {
        self.inner.code(digest)
    }

    fn has_code(&self, digest: &Digest) -> Result<bool> {
        self.inner.has_code(digest)
    }
}
