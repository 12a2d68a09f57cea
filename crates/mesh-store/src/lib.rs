//! The durable side of a mesh: the journal of events, the bytes that belong to tasks, code, and
//! snapshots. It knows how to keep things and nothing of what they mean.
//!
//! A [`Batch`] is one commit: when [`Store::append`] has returned, all of it survives power loss;
//! when it has failed, none of it is there.

mod codec;
mod error;
pub mod memory;
mod reserve;
mod space;
mod sqlite;

use bytes::Bytes;
use mesh_core::event::Event;
use mesh_core::model::id::{Digest, TaskId};
use mesh_core::model::time::Timestamp;
use mesh_core::snapshot::Snapshot;

pub use error::{Place, Result, StoreError};
pub use reserve::{RESERVE_BYTES, RESERVE_FILE};
pub use space::Space;
pub use sqlite::{LogEnd, SqliteStore, StoreReader, Survey, examine_log};

/// The number of an event: 1 is the first ever.
pub type Seq = u64;

/// What one commit makes durable.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// When its events happened.
    pub at: Timestamp,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// Arguments and results that are kept beside the journal.
    pub data: Vec<(TaskId, Side, Bytes)>,
    /// Code by its digest; what is there already is left alone.
    pub code: Vec<(Digest, Bytes)>,
    /// Data that is no longer needed.
    pub drop_data: Vec<(TaskId, Side)>,
    /// Code that is no longer needed.
    pub drop_code: Vec<Digest>,
}

impl Batch {
    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
            && self.data.is_empty()
            && self.code.is_empty()
            && self.drop_data.is_empty()
            && self.drop_code.is_empty()
    }
}

/// Which bytes of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Its arguments.
    Payload,
    /// Its result, or the details of its failure.
    Result,
}

/// Events that happened in one commit, as the journal keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The number of the first event.
    pub first: Seq,
    /// When they happened.
    pub at: Timestamp,
    /// What happened.
    pub events: Vec<Event>,
}

impl Entry {
    /// The number of the last event.
    pub fn last(&self) -> Seq {
        let count = u64::try_from(self.events.len()).unwrap_or(u64::MAX);
        self.first.saturating_add(count).saturating_sub(1)
    }
}

/// Where a mesh is kept. One owner at a time; reads and writes come from that owner's thread.
pub trait Store: Send {
    /// Makes a batch durable, and returns the number of the last event that is now.
    ///
    /// After [`StoreError::Failed`] and [`StoreError::Corrupt`] the store takes no more writes until
    /// it is opened again, which shows whether the disk kept the batch after all. After any other
    /// error nothing of it is there, and the next append may succeed.
    fn append(&mut self, batch: &Batch) -> Result<Seq>;

    /// The number of the last durable event; 0 before the first.
    fn last_seq(&self) -> Seq;

    /// The newest snapshot and the number of the last event that it includes.
    fn load_snapshot(&self) -> Result<Option<(Seq, Snapshot)>>;

    /// Hands every entry that holds an event after `after` to `visit`, in order (events up to
    /// `after` cut off), until `visit` returns false.
    fn replay(&self, after: Seq, visit: &mut dyn FnMut(Entry) -> bool) -> Result<()>;

    /// The number of the oldest event that is still kept; 0 when none is.
    fn oldest_seq(&self) -> Result<Seq>;

    /// Somebody who writes snapshots beside the owner, on another thread. After the store was
    /// dropped every answer is [`StoreError::Closed`].
    fn snapshots(&self) -> Box<dyn SnapshotWriter>;

    /// Makes a snapshot durable, and waits for it. See [`SnapshotWriter::save`].
    fn save_snapshot(&mut self, seq: Seq, snapshot: &Snapshot, keep_after: Seq) -> Result<()> {
        self.snapshots().save(seq, snapshot, keep_after)
    }

    /// Gives up the room that was kept for a full disk, so that a little more can be appended.
    /// `false` when there is none left to give.
    fn release_reserve(&mut self) -> bool {
        false
    }

    /// Takes room for a full disk again, unless the disk is nearly full. Whether it is held now; a
    /// store that keeps none holds all that it ever will.
    fn hold_reserve(&mut self) -> bool {
        true
    }

    /// The bytes of a task; `None` when there are none.
    fn data(&self, task: TaskId, side: Side) -> Result<Option<Bytes>>;

    /// The code of a digest; `None` when it is not here.
    fn code(&self, digest: &Digest) -> Result<Option<Bytes>>;

    /// Whether the code of a digest is here.
    fn has_code(&self, digest: &Digest) -> Result<bool>;
}

/// Writes snapshots while the owner of the store goes on appending: an append waits for one short
/// step of it at most.
pub trait SnapshotWriter: Send {
    /// Makes a snapshot durable, unless there is one that includes as much, after which entries that
    /// end at or before both `seq` and `keep_after` are dropped.
    ///
    /// Killed at any moment, the snapshot before is there until this one is. A failure that leaves
    /// open what the disk holds stops the store as a failed append does.
    fn save(&mut self, seq: Seq, snapshot: &Snapshot, keep_after: Seq) -> Result<()>;
}
