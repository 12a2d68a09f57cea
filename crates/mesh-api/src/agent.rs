//! The agent link: MessagePack frames in binary WebSocket messages, the same whichever side dials.
//!
//! The agent speaks first ([`FromAgent::Hello`]), the control plane answers ([`ToAgent::Welcome`]
//! or [`ToAgent::Refused`]). From then on:
//!
//! * **Work is level-triggered.** After each welcome the control plane sends everything that is
//!   still to be done; later only what is new. An agent ignores an attempt that it already has.
//! * **Reports are numbered** from 1 for each incarnation of the agent, kept by it until
//!   [`ToAgent::Ack`], and sent again after a broken link from the number that the welcome asks
//!   for. The control plane acknowledges when they are durable.
//! * **Nothing is trusted twice.** (task, attempt) is the fencing token: what is said of an attempt
//!   that was replaced changes nothing.
//! * **Blobs travel in parts** of at most [`BLOB_PART_MAX`] bytes, asked for or confirmed one by
//!   one, so that neither side holds more of one than a few parts, whichever side dialled. What was
//!   under way on a link that broke is begun again on the next one.
//!
//! Frames are maps with the field names below; an enum is a map with one entry, its variant in
//! `snake_case`; bytes are MessagePack binary. Unknown fields are ignored, so that fields can be added.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Most bytes in one part of a blob.
pub const BLOB_PART_MAX: usize = 1 << 20;

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromAgent {
    /// The first frame.
    Hello(Hello),
    /// What happened, in the order in which it happened.
    Report(ReportFrame),
    /// The nodes of the cluster, all of them; the latest frame counts. Sent when something changed.
    Nodes(Vec<Node>),
    /// The answer to a [`ToAgent::Ask`].
    Answer(AskAnswer),
    /// Asks for a part of a blob: arguments that are too many for a frame.
    Pull(PullFrame),
    /// Brings a part of a blob: a result that is too large for a frame.
    Push(PushFrame),
    /// Nothing to say, still here.
    Heartbeat(Heartbeat),
}

/// What the control plane says to an agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToAgent {
    /// The link is up.
    Welcome(Welcome),
    /// The link will be closed.
    Refused(crate::problem::Problem),
    /// Run these.
    Start(StartFrame),
    /// End these.
    Stop(Vec<StopTask>),
    /// Reports up to this number are durable.
    Ack {
        /// The number.
        seq: u64,
    },
    /// A question that is not journaled, such as for a log.
    Ask(Ask),
    /// The answer to a [`FromAgent::Pull`].
    Piece(PieceFrame),
    /// The answer to a [`FromAgent::Push`].
    Pushed(PushedFrame),
    /// Nothing to say, still here.
    Heartbeat(Heartbeat),
}

/// An agent introduces itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::LINK_PROTOCOL`].
    pub protocol: u16,
    /// The cluster that it serves.
    pub cluster: String,
    /// A UUID made when the agent process started.
    pub incarnation: String,
    /// The agent's version.
    pub version: String,
    /// The Python that runs in the cluster, such as `3.11.7`.
    pub python: String,
    /// The Ray that runs there, such as `2.60.0`.
    pub ray: String,
    /// Operating system and machine, such as `linux x86_64`.
    pub platform: String,
    /// Every attempt that it runs, queues, or has not had the end of acknowledged.
    pub held: Vec<HeldTask>,
    /// The nodes of the cluster.
    pub nodes: Vec<Node>,
}

/// An attempt that an agent has not let go of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldTask {
    /// The task.
    pub task: u64,
    /// Which assignment of it.
    pub attempt: u32,
}

/// The control plane accepts a link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`crate::LINK_PROTOCOL`].
    pub protocol: u16,
    /// The control plane's version.
    pub version: String,
    /// The number of the last report of this incarnation that is durable; 0 for none.
    pub acked: u64,
    /// How often each side says something, in milliseconds. After four times as long in silence
    /// the other side counts as gone.
    pub heartbeat_ms: u64,
    /// More bytes than this travel as a blob.
    pub inline_max: usize,
}

/// A sign of life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Reports that the sender keeps because they are not acknowledged (0 from the control plane).
    #[serde(default)]
    pub unacked: u64,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Ray's node id.
    pub id: String,
    /// Its address.
    pub address: String,
    /// Its Ray labels, without `ray.io/node-id`.
    pub labels: BTreeMap<String, String>,
    /// What it has: `CPU`, `GPU`, `memory` (bytes) and custom resources, without Ray's internal
    /// ones (`node:…`, `object_store_memory`, placement group resources).
    pub total: BTreeMap<String, f64>,
    /// What is in use there and not by work or warm workers of this agent. Only what was seen
    /// twice in a row, so that work that is just starting or ending is not mistaken for a stranger's.
    #[serde(default)]
    pub foreign: BTreeMap<String, f64>,
}

/// Numbered reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportFrame {
    /// The number of the first item; the others follow it.
    pub seq: u64,
    /// What happened.
    pub items: Vec<ReportItem>,
}

/// What happened to one attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportItem {
    /// The task.
    pub task: u64,
    /// Which assignment of it.
    pub attempt: u32,
    /// What.
    pub what: Happened,
}

/// What can happen to an attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happened {
    /// It runs; an actor is up; a job's driver runs. May be left out for what ends at once.
    Started,
    /// It was handed back unstarted: the worker ahead of it is busy for longer than expected, or died.
    Returned,
    /// It returned.
    Finished {
        /// How long it ran, in microseconds, measured where it ran.
        run_us: u64,
        /// What it returned.
        result: DataFrame,
    },
    /// It was stopped because it was told to.
    Stopped {
        /// How long it ran, in microseconds.
        run_us: u64,
    },
    /// It failed.
    Failed {
        /// How long it ran, in microseconds.
        run_us: u64,
        /// Why.
        error: RemoteError,
        /// The pickled exception, when there is one and it could be pickled.
        details: DataFrame,
    },
}

/// Why an attempt failed, as structure: exceptions are not trusted to travel as pickles alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteError {
    /// `raised`, `unreadable`, `worker_died`, `not_started` or `cluster_lost`.
    pub cause: String,
    /// The exception's class, such as `ValueError`.
    #[serde(default)]
    pub exception: String,
    /// Its message.
    pub message: String,
    /// The remote traceback, as text.
    #[serde(default)]
    pub traceback: String,
}

/// Opaque bytes on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataFrame {
    /// There are none.
    #[default]
    None,
    /// These.
    Inline(Bytes),
    /// Those in a blob, uploaded before: by an agent with [`PushFrame`]s, by a client with
    /// `PUT /v1/blobs`.
    Blob(BlobFrame),
}

/// A blob on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobFrame {
    /// Its id.
    pub id: String,
    /// Its size in bytes.
    pub size: u64,
}

/// Attempts to run, with what they share told once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StartFrame {
    /// The leases that the tasks of this frame use.
    pub leases: Vec<LeaseFrame>,
    /// Code that this link has not carried before, by digest.
    pub code: Vec<CodeFrame>,
    /// The attempts. Those of one lease run in this order, one after the other.
    pub tasks: Vec<StartTask>,
}

/// A grant of resources on one node: one worker, which runs its tasks one after the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeaseFrame {
    /// Its number.
    pub lease: u64,
    /// Ray's id of the node.
    pub node: String,
    /// What it occupies: `CPU`, `GPU`, `memory` (bytes) and custom resources.
    pub resources: BTreeMap<String, f64>,
    /// Ray's runtime environment, as JSON text.
    #[serde(default)]
    pub runtime_env: Option<String>,
}

/// Pickled code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeFrame {
    /// The BLAKE3 digest of the bytes, in hex.
    pub digest: String,
    /// The bytes.
    pub bytes: Bytes,
}

/// One attempt to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartTask {
    /// The task.
    pub task: u64,
    /// Which assignment of it.
    pub attempt: u32,
    /// The lease that it uses.
    pub lease: u64,
    /// What to run.
    pub work: WorkFrame,
    /// Its arguments: for a function, an actor or a call the pickle of `(args, kwargs)`, for an
    /// actor of `(args, kwargs, options)`, where the only option is `max_concurrency`, how many of
    /// its calls may run at once (1 when it is left out: in order); for a job the JSON of
    /// [`crate::v1::JobBody`].
    pub payload: DataFrame,
}

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkFrame {
    /// A function, by the digest of its code.
    Function {
        /// The digest, in hex.
        code: String,
    },
    /// An actor, by the digest of its class.
    Actor {
        /// The digest, in hex.
        code: String,
    },
    /// A method of an actor that runs in the same lease.
    Call {
        /// The actor's task.
        actor: u64,
        /// The method.
        method: String,
    },
    /// A Ray job.
    Job,
}

/// An attempt to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopTask {
    /// The task.
    pub task: u64,
    /// Which assignment of it.
    pub attempt: u32,
    /// How long it may take to end by itself before it is killed, in milliseconds.
    pub grace_ms: u64,
}

/// A question to an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Chosen by the asker, repeated in the answer.
    pub id: u64,
    /// What is asked.
    pub what: Question,
}

/// What can be asked of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// What a task printed: a job's log, or the output of the worker that runs or ran it.
    Logs {
        /// The task.
        task: u64,
        /// Which assignment of it.
        attempt: u32,
        /// Most bytes, counted from the end.
        tail_bytes: u64,
    },
    /// Whether Ray answers, now.
    Health,
}

/// An agent's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskAnswer {
    /// The id of the question.
    pub id: u64,
    /// The answer, or why there is none.
    pub result: Result<String, String>,
}

/// Asks for a part of a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullFrame {
    /// The blob.
    pub id: String,
    /// Where the part begins.
    pub offset: u64,
    /// Most bytes wanted, not above [`BLOB_PART_MAX`].
    pub len: u64,
}

/// A part of a blob, or why there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PieceFrame {
    /// The blob.
    pub id: String,
    /// Where the part begins.
    pub offset: u64,
    /// The part; shorter than asked for only at the end of the blob.
    pub bytes: Bytes,
    /// Why there is none, such as `UNKNOWN_BLOB`.
    #[serde(default)]
    pub problem: Option<crate::problem::Problem>,
}

/// Brings the next part of a new blob. Parts come in order, the first one at offset 0, which
/// begins the upload (again, when it had begun before). At most a few are unconfirmed at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushFrame {
    /// Chosen by the agent, unique on this link.
    pub upload: u64,
    /// Where the part begins: the number of bytes brought before it.
    pub offset: u64,
    /// The part, of at most [`BLOB_PART_MAX`] bytes; may be empty in the last one.
    pub bytes: Bytes,
    /// Whether this is the last part.
    pub done: bool,
}

/// A part of a new blob was written, or why it was not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PushedFrame {
    /// The upload.
    pub upload: u64,
    /// How many bytes of it are written.
    pub offset: u64,
    /// The blob: answers the last part, when it is durable.
    #[serde(default)]
    pub blob: Option<BlobFrame>,
    /// Why the upload is given up, such as `STORE_FULL`.
    #[serde(default)]
    pub problem: Option<crate::problem::Problem>,
}
