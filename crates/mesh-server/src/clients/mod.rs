//! Client links: what the SDK speaks. A link task reads, parses and answers; the driver tells it
//! what became of tasks through a queue of small notices, so that a slow client costs little: its
//! results stay in the store until it has taken those before them.

mod session;

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use mesh_api::client_link::Accepted;
use mesh_core::model::id::{ClusterName, TaskId};
use mesh_core::model::task::{Data, Outcome};

pub use session::serve;
pub(crate) use session::{code_too_large, upgrade};

/// The number of a client link. Only grows.
pub type ClientId = u64;

/// Most bytes of notices, results included, that wait for one client.
pub const NOTICE_BYTES_MAX: usize = 256 << 20;
/// Above so many waiting bytes, results are left in the store until the client has caught up.
pub(crate) const RESULT_BYTES_MAX: usize = 16 << 20;

/// What the driver tells a client link.
#[derive(Debug)]
pub enum Notice {
    /// What became of a submission.
    Accepted {
        /// What the client called it.
        id: u64,
        /// One for each task, in order.
        results: Vec<Accepted>,
    },
    /// These run.
    Started(Vec<TaskId>),
    /// These ended.
    Ended(Vec<EndNotice>),
    /// There is no record of these.
    Unknown(Vec<TaskId>),
}

/// How a task ended.
#[derive(Debug)]
pub struct EndNotice {
    /// The task.
    pub task: TaskId,
    /// How.
    pub outcome: Outcome,
    /// Where its last attempt was.
    pub cluster: Option<ClusterName>,
    /// Where its result is.
    pub result: Data,
    /// The bytes of the result, when they were at hand.
    pub bytes: Option<Bytes>,
}

impl EndNotice {
    /// About how many bytes it keeps.
    pub(crate) fn size(&self) -> usize {
        const RECORD: usize = 96;
        self.bytes.as_ref().map_or(0, Bytes::len) + RECORD
    }
}

/// A number for a new link.
fn next_id() -> ClientId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
