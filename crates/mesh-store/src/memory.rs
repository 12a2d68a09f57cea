//! A store that forgets: for tests and simulations, with the same promises and with faults on
//! demand.
//!
//! ```
//! use mesh_store::memory::{Fault, MemoryDisk};
//! use mesh_store::{Batch, Store, StoreError};
//! use mesh_core::event::Event;
//! use mesh_core::model::id::LeaseId;
//!
//! let disk = MemoryDisk::new();
//! let mut store = disk.open()?;
//! let batch = Batch { events: vec![Event::Released(LeaseId(1))], ..Batch::default() };
//! disk.fail_next(Fault::Full);
//! assert!(matches!(store.append(&batch), Err(StoreError::Full { .. })));
//! assert_eq!(store.append(&batch)?, 1);
//! # Ok::<(), StoreError>(())
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use mesh_core::model::id::{Digest, TaskId};
use mesh_core::snapshot::Snapshot;

use crate::{Batch, Entry, Result, Seq, Side, SnapshotWriter, Store, StoreError};

/// Writes for which the reserve of a full disk is enough.
pub const RESERVED_WRITES: u32 = 1_000;

/// What goes wrong with a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no room, nor a reserve that could be given up. Nothing is kept, and the next write
    /// may succeed.
    Full,
    /// The write fails and nothing is kept. The store must be opened again.
    Failed,
    /// The write fails, but reopening shows that it was kept: a sync may fail like that.
    FailedButKept,
}

/// What survives its stores, as a directory does. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    kept: Kept,
    faults: VecDeque<Fault>,
    /// How many more writes there is room for; `None` when there is plenty.
    room: Option<u32>,
    /// Whether the reserve was given up.
    reserve_gone: bool,
    open: bool,
}

#[derive(Clone, Debug, Default)]
struct Kept {
    last: Seq,
    journal: VecDeque<Entry>,
    snapshot: Option<(Seq, Snapshot)>,
    data: BTreeMap<(TaskId, Side), Bytes>,
    code: BTreeMap<Digest, Bytes>,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens the store on this disk. One at a time, as with a real one.
    pub fn open(&self) -> Result<MemoryStore> {
        let mut shared = self.shared();
        if std::mem::replace(&mut shared.open, true) {
            return Err(StoreError::Locked { path: path(), pid: Some(std::process::id()) });
        }
        Ok(MemoryStore { desk: Desk::new(self), last: shared.kept.last })
    }

    /// Makes the next write that is not yet doomed fail.
    pub fn fail_next(&self, fault: Fault) {
        self.shared().faults.push_back(fault);
    }

    /// Leaves no room: every write fails as full until the reserve is given up, which is enough for
    /// some more, or until [`MemoryDisk::free`].
    pub fn fill(&self) {
        self.shared().room = Some(0);
    }

    /// Makes room again.
    pub fn free(&self) {
        self.shared().room = None;
    }

    /// Makes no other write fail than those that failed already.
    pub fn forget_faults(&self) {
        self.shared().faults.clear();
    }

    /// What is kept after an event, whoever has the store open.
    pub fn entries_after(&self, after: Seq) -> Vec<Entry> {
        let (mut next, mut entries) = (after, Vec::new());
        while let Some(entry) = self.shared().kept.entry_after(next) {
            next = entry.last();
            entries.push(entry);
        }
        entries
    }

    /// A panic elsewhere leaves nothing half done here: every change is made in one step.
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store on a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryStore {
    desk: Desk,
    last: Seq,
}

/// What a store shares with those who write its snapshots.
#[derive(Clone, Debug)]
struct Desk {
    disk: MemoryDisk,
    poisoned: Arc<AtomicBool>,
    closed: Arc<AtomicBool>,
}

impl Desk {
    fn new(disk: &MemoryDisk) -> Self {
        Self { disk: disk.clone(), poisoned: Arc::default(), closed: Arc::default() }
    }

    /// Changes what is kept, unless a fault was asked for.
    fn write<T>(&self, change: impl FnOnce(&mut Kept) -> Result<T>) -> Result<T> {
        let failed = |why: &str| StoreError::Failed {
            path: path(),
            doing: "write to",
            source: why.to_owned().into(),
        };
        let mut shared = self.disk.shared();
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        if self.poisoned.load(Ordering::Acquire) {
            return Err(failed("it failed before and must be opened again"));
        }
        if let Some(room) = &mut shared.room {
            let Some(left) = room.checked_sub(1) else {
                return Err(StoreError::Full { path: path() });
            };
            *room = left;
        }
        match shared.faults.pop_front() {
            None => return change(&mut shared.kept),
            Some(Fault::Full) => return Err(StoreError::Full { path: path() }),
            Some(Fault::Failed) => {}
            Some(Fault::FailedButKept) => {
                change(&mut shared.kept)?;
            }
        }
        self.poisoned.store(true, Ordering::Release);
        Err(failed("this fault was asked for"))
    }
}

impl SnapshotWriter for Desk {
    fn save(&mut self, seq: Seq, snapshot: &Snapshot, keep_after: Seq) -> Result<()> {
        self.write(|kept| kept.save(seq, snapshot, keep_after))
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        let mut shared = self.desk.disk.shared();
        self.desk.closed.store(true, Ordering::Release);
        shared.open = false;
    }
}

impl Store for MemoryStore {
    fn append(&mut self, batch: &Batch) -> Result<Seq> {
        if batch.is_empty() && !self.desk.poisoned.load(Ordering::Acquire) {
            return Ok(self.last);
        }
        self.last = self.desk.write(|kept| Ok(kept.append(batch)))?;
        Ok(self.last)
    }

    fn last_seq(&self) -> Seq {
        self.last
    }

    fn load_snapshot(&self) -> Result<Option<(Seq, Snapshot)>> {
        Ok(self.desk.disk.shared().kept.snapshot.clone())
    }

    fn replay(&self, after: Seq, visit: &mut dyn FnMut(Entry) -> bool) -> Result<()> {
        let mut next = after;
        loop {
            // Not held while visiting: a visitor may look at the disk.
            let Some(entry) = self.desk.disk.shared().kept.entry_after(next) else { return Ok(()) };
            next = entry.last();
            if !visit(entry) {
                return Ok(());
            }
        }
    }

    fn oldest_seq(&self) -> Result<Seq> {
        Ok(self.desk.disk.shared().kept.journal.front().map_or(0, |entry| entry.first))
    }

    fn snapshots(&self) -> Box<dyn SnapshotWriter> {
        Box::new(self.desk.clone())
    }

    fn release_reserve(&mut self) -> bool {
        let mut shared = self.desk.disk.shared();
        let gone = shared.reserve_gone;
        let Some(room) = shared.room.as_mut().filter(|_| !gone) else { return false };
        *room += RESERVED_WRITES;
        shared.reserve_gone = true;
        true
    }

    fn hold_reserve(&mut self) -> bool {
        let mut shared = self.desk.disk.shared();
        shared.reserve_gone &= shared.room.is_some();
        !shared.reserve_gone
    }

    fn data(&self, task: TaskId, side: Side) -> Result<Option<Bytes>> {
        Ok(self.desk.disk.shared().kept.data.get(&(task, side)).cloned())
    }

    fn code(&self, digest: &Digest) -> Result<Option<Bytes>> {
        Ok(self.desk.disk.shared().kept.code.get(digest).cloned())
    }

    fn has_code(&self, digest: &Digest) -> Result<bool> {
        Ok(self.desk.disk.shared().kept.code.contains_key(digest))
    }
}

impl Kept {
    fn append(&mut self, batch: &Batch) -> Seq {
        if !batch.events.is_empty() {
            let first = self.last + 1;
            self.last += u64::try_from(batch.events.len()).unwrap_or(u64::MAX);
            self.journal.push_back(Entry { first, at: batch.at, events: batch.events.clone() });
        }
        for (task, side, bytes) in &batch.data {
            self.data.insert((*task, *side), bytes.clone());
        }
        for (digest, bytes) in &batch.code {
            self.code.entry(*digest).or_insert_with(|| bytes.clone());
        }
        for place in &batch.drop_data {
            self.data.remove(place);
        }
        for digest in &batch.drop_code {
            self.code.remove(digest);
        }
        self.last
    }

    fn save(&mut self, seq: Seq, snapshot: &Snapshot, keep_after: Seq) -> Result<()> {
        if seq > self.last {
            return Err(StoreError::Ahead { seq, last: self.last });
        }
        if self.snapshot.as_ref().is_none_or(|(newest, _)| *newest < seq) {
            self.snapshot = Some((seq, snapshot.clone()));
        }
        let drop_to = seq.min(keep_after);
        while self.journal.front().is_some_and(|entry| entry.last() <= drop_to) {
            self.journal.pop_front();
        }
        Ok(())
    }

    /// What the first entry that ends after an event holds after it.
    fn entry_after(&self, after: Seq) -> Option<Entry> {
        let index = self.journal.partition_point(|entry| entry.last() <= after);
        let entry = self.journal.get(index)?;
        let skip = after.saturating_add(1).saturating_sub(entry.first);
        let events = entry.events.iter().skip(usize::try_from(skip).ok()?).cloned().collect();
        Some(Entry { first: entry.first + skip, at: entry.at, events })
    }
}

fn path() -> PathBuf {
    "memory".into()
}
