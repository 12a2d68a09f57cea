//! The client link: what the SDK speaks. MessagePack frames in binary WebSocket messages, encoded
//! like those of the agent link. The client dials, says hello, and from then on submits batches and
//! is told of the end of every task that it watches. It watches what it submits; after a broken link
//! it submits again what was not accepted (same keys, so nothing is done twice) and watches again
//! what has not ended.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::agent::{CodeFrame, DataFrame, Heartbeat, RemoteError};
use crate::problem::Problem;
use crate::v1::SpecBody;

/// What a client says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromClient {
    /// The first frame.
    Hello {
        /// [`crate::LINK_PROTOCOL`].
        protocol: u16,
        /// The SDK's version.
        version: String,
    },
    /// Accept these tasks.
    Submit(SubmitFrame),
    /// Tell me when these end; those that have ended are told at once.
    Watch {
        /// The tasks.
        tasks: Vec<u64>,
    },
    /// Stop these.
    Cancel {
        /// Repeated in the answer.
        id: u64,
        /// The tasks.
        tasks: Vec<u64>,
    },
    /// Still here.
    Heartbeat(Heartbeat),
}

/// What the control plane says to a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToClient {
    /// The link is up.
    Welcome {
        /// [`crate::LINK_PROTOCOL`].
        protocol: u16,
        /// The control plane's version.
        version: String,
        /// How often each side says something, in milliseconds; four times as long is silence.
        heartbeat_ms: u64,
        /// More bytes than this travel as a blob.
        inline_max: usize,
    },
    /// The link will be closed.
    Refused(Problem),
    /// What became of a [`FromClient::Submit`], durably; one entry for each task, in order.
    Accepted {
        /// The id of the frame.
        id: u64,
        /// What became of each.
        results: Vec<Accepted>,
    },
    /// What became of a [`FromClient::Cancel`], one entry for each task, in order; `None` is well.
    Cancelled {
        /// The id of the frame.
        id: u64,
        /// What went wrong with each.
        errors: Vec<Option<Problem>>,
    },
    /// Watched tasks that run now.
    Started {
        /// The tasks.
        tasks: Vec<u64>,
    },
    /// Watched tasks that ended. They are no longer watched.
    Ended {
        /// The tasks.
        tasks: Vec<EndedTask>,
    },
    /// Still here.
    Heartbeat(Heartbeat),
}

/// Tasks to accept, with what they share told once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubmitFrame {
    /// Repeated in the answer.
    pub id: u64,
    /// What tasks share.
    pub specs: Vec<SpecBody>,
    /// Code that this client has not sent to this server before, by digest.
    pub code: Vec<CodeFrame>,
    /// The tasks.
    pub tasks: Vec<SubmitTask>,
}

/// A task to accept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubmitTask {
    /// The index of its specification in the frame.
    pub spec: u32,
    /// What the client calls it: submitting it twice does it once.
    pub key: String,
    /// A name for people.
    #[serde(default)]
    pub name: Option<String>,
    /// Its arguments.
    pub payload: DataFrame,
}

/// What became of one submission.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accepted {
    /// It is accepted.
    Task {
        /// Its number.
        task: u64,
        /// Whether it had been accepted before.
        replayed: bool,
    },
    /// It is refused.
    Error(Problem),
}

/// How a watched task ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndedTask {
    /// Its number.
    pub task: u64,
    /// `succeeded`, `failed` or `cancelled`; `unknown` when there is no record of it.
    pub outcome: String,
    /// The cluster where it ran last.
    #[serde(default)]
    pub cluster: Option<String>,
    /// Its value, or the pickled exception of its failure.
    pub result: DataFrame,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<RemoteError>,
}

/// The bytes under the id of a task: kept for failures so that the traceback survives with the
/// pickled exception.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureRecord {
    /// Why it failed.
    pub error: RemoteError,
    /// The pickled exception; empty when there is none.
    pub pickle: Bytes,
}
