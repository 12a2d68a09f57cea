//! Tasks: what is asked for, and how far it has come.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::amount::Resources;
use super::id::{Attempt, Digest, Key, LeaseId, SpecId, TaskId};
use super::label::Affinity;
use super::priority::Priority;
use super::time::{Span, Timestamp};

/// All that tasks may have in common. Kept once for every task that has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskSpec {
    /// What people call what is run, such as the function's name; a task may have a name of its own.
    pub title: Option<Arc<str>>,
    /// What is run.
    pub work: Work,
    /// What it needs in order to be placed.
    pub shape: Shape,
    /// How often it is tried again, and after what.
    pub retries: Retries,
    /// The longest that one attempt may run; `None` is for ever.
    pub timeout: Option<Span>,
    /// What happens to it when its cluster can no longer be heard.
    pub on_lost: OnLost,
    /// Whether to wait although no cluster could ever hold it as they are now.
    pub wait_for_growth: bool,
}

/// What is run. Code and arguments are opaque bytes that the core never sees.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Work {
    /// A function, by the digest of its pickle.
    Function(Digest),
    /// An actor, by the digest of its pickled class. Runs until it is cancelled or dies.
    Actor(Digest),
    /// A method call on an actor, in the order of submission.
    Call {
        /// The actor.
        actor: TaskId,
        /// The method's name.
        method: Arc<str>,
    },
    /// A whole Ray job; its entrypoint is in the payload.
    Job,
}

impl Work {
    /// The kind, as a word for people.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Function(_) => Kind::Function,
            Self::Actor(_) => Kind::Actor,
            Self::Call { .. } => Kind::Call,
            Self::Job => Kind::Job,
        }
    }

    /// The code that the work refers to.
    pub fn code(&self) -> Option<Digest> {
        match self {
            Self::Function(digest) | Self::Actor(digest) => Some(*digest),
            Self::Call { .. } | Self::Job => None,
        }
    }
}

/// The kinds of task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Runs once and returns a value.
    Function,
    /// Lives and answers calls.
    Actor,
    /// One method call on an actor.
    Call,
    /// An entrypoint with its own Ray driver.
    Job,
}

/// What decides where a task can go. Tasks of equal shape form a class: if one has no room, none has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Shape {
    /// What kind of work it is.
    pub kind: Kind,
    /// What it occupies while it runs.
    pub resources: Resources,
    /// Where it may go.
    pub affinity: Affinity,
    /// How much it matters.
    pub priority: Priority,
    /// The Python that pickled it; pickles of code do not travel between minor versions.
    pub python: Option<PythonVersion>,
    /// Ray's runtime environment, as the JSON text that Ray is given.
    pub runtime_env: Option<Arc<str>>,
}

/// A Python minor version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PythonVersion {
    /// 3, usually.
    pub major: u8,
    /// Such as 11.
    pub minor: u8,
}

impl std::fmt::Display for PythonVersion {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}.{}", self.major, self.minor)
    }
}

impl std::str::FromStr for PythonVersion {
    type Err = std::num::ParseIntError;

    /// Reads `3.11` and `3.11.7` alike.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (major, rest) = text.split_once('.').unwrap_or((text, ""));
        let minor = rest.split('.').next().unwrap_or_default();
        Ok(Self { major: major.parse()?, minor: minor.parse()? })
    }
}

/// How often a task is tried again. A hand-back before it started never counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Retries {
    /// Times, after its worker, node or cluster was lost or could not start it.
    pub lost: u16,
    /// Times, after its own code raised.
    pub raised: u16,
    /// Wait before the first retry; doubles with each one.
    pub backoff: Span,
    /// The longest wait.
    pub backoff_max: Span,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            lost: 3,
            raised: 0,
            backoff: Span::from_millis(100),
            backoff_max: Span::from_secs(30),
        }
    }
}

impl Retries {
    /// How long to wait before retry number `retry` (1 is the first).
    pub fn wait(&self, retry: u16) -> Span {
        let doublings = u32::from(retry.saturating_sub(1)).min(20);
        self.backoff.times(1 << doublings).min(self.backoff_max)
    }
}

/// What happens to a task whose cluster can no longer be heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLost {
    /// It is started elsewhere; what the lost cluster may still report changes nothing.
    Replace,
    /// It waits for the cluster to come back.
    Wait,
    /// It fails.
    Fail,
}

/// Where some opaque bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Data {
    /// There are none.
    #[default]
    None,
    /// Beside the journal, under the id of their task; so many bytes.
    Inline(u32),
    /// In a file of their own.
    Blob(BlobId, u64),
}

impl Data {
    /// How many bytes.
    pub fn size(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Inline(size) => u64::from(size),
            Self::Blob(_, size) => size,
        }
    }
}

/// A file of bytes that are too many to keep beside the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlobId(pub u128);

/// One task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its number.
    pub id: TaskId,
    /// What its submitter calls it.
    pub key: Key,
    /// The digest of all that was submitted under the key.
    pub body: u64,
    /// A name for people.
    pub name: Option<Box<str>>,
    /// What it is.
    pub spec: SpecId,
    /// Its arguments.
    pub payload: Data,
    /// When it was accepted.
    pub submitted: Timestamp,
    /// The number of its latest assignment; 0 before the first.
    pub attempt: Attempt,
    /// Retries spent on losses.
    pub lost: u16,
    /// Retries spent on exceptions.
    pub raised: u16,
    /// The cluster that lost its last attempt, which is its last choice now.
    pub avoid: Option<super::id::ClusterId>,
    /// How far it is.
    pub phase: Phase,
}

/// How far a task is. A phase holds what is true in it and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Waits in the queue, or, for a call, for its actor.
    Queued,
    /// Waits for the time of its next attempt.
    Delayed {
        /// That time.
        until: Timestamp,
        /// Why the last attempt failed.
        last: Failure,
    },
    /// Was given room; its cluster is told, or will be.
    Assigned {
        /// The grant that it uses.
        lease: LeaseId,
    },
    /// Its cluster says that it runs.
    Running {
        /// The grant that it uses.
        lease: LeaseId,
        /// When that was said.
        since: Timestamp,
    },
    /// Was told to stop; still holds its room.
    Stopping {
        /// The grant that it uses.
        lease: LeaseId,
        /// Why it must stop.
        why: Stop,
    },
    /// Is over, holds nothing, and changes no more.
    Ended(Box<End>),
}

impl Phase {
    /// Counts a time of its own from later by so much.
    pub(crate) fn put_off(&mut self, span: Span) {
        match self {
            Self::Delayed { until, .. } => *until = until.after(span),
            Self::Running { since, .. } => *since = since.after(span),
            Self::Queued | Self::Assigned { .. } | Self::Stopping { .. } | Self::Ended(_) => {}
        }
    }

    /// The grant that the task uses now.
    pub fn lease(&self) -> Option<LeaseId> {
        match self {
            Self::Assigned { lease }
            | Self::Running { lease, .. }
            | Self::Stopping { lease, .. } => Some(*lease),
            Self::Queued | Self::Delayed { .. } | Self::Ended(_) => None,
        }
    }

    /// Whether the task is over.
    pub fn is_ended(&self) -> bool {
        matches!(self, Self::Ended(_))
    }
}

/// Why a task was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stop {
    /// Somebody cancelled it.
    Cancelled,
    /// It ran longer than it may.
    TimedOut,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// In which way.
    pub outcome: Outcome,
    /// When.
    pub at: Timestamp,
    /// When its last attempt began to run, as far as its cluster said so.
    pub started: Option<Timestamp>,
    /// How long its last attempt ran.
    pub ran: Span,
    /// Where it ran last.
    pub cluster: Option<super::id::ClusterId>,
    /// What it returned, or the details of its failure.
    pub result: Data,
}

/// In which way a task ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It returned a value; an actor, that it left by itself.
    Succeeded,
    /// It did not.
    Failed(Failure),
    /// It was cancelled.
    Cancelled,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of cause.
    pub cause: Cause,
    /// One line for people.
    pub message: Box<str>,
}

/// The kinds of cause that an attempt fails of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Its own code raised.
    Raised,
    /// The worker could not read it, or could not write its result.
    Unreadable,
    /// The process that ran it died.
    WorkerDied,
    /// Its environment, actor or job could not be started.
    NotStarted,
    /// The agent that ran it, or the whole cluster, was lost.
    ClusterLost,
    /// It ran longer than it may.
    TimedOut,
    /// The actor that it calls is over.
    ActorEnded,
}

impl Cause {
    /// Whether the system rather than the task is to blame: retried from `Retries::lost`.
    pub fn is_loss(self) -> bool {
        match self {
            Self::WorkerDied | Self::NotStarted | Self::ClusterLost => true,
            Self::Raised | Self::Unreadable | Self::TimedOut | Self::ActorEnded => false,
        }
    }
}
