//! What may be asked of a mesh, what it answers, and how it refuses.

use std::sync::Arc;

use crate::explain::Verdict;
use crate::model::cluster::{AgentFacts, ClusterSpec, NodeFacts};
use crate::model::id::{Attempt, ClusterName, Key, TaskId};
use crate::model::task::{Data, Failure, TaskSpec};
use crate::model::time::Span;

/// A question, a wish or an observation. Observations are commands too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Accept a task.
    Submit(Submission),
    /// Stop a task, or never start it.
    Cancel(TaskId),
    /// Register a cluster.
    AddCluster(ClusterName, Box<ClusterSpec>),
    /// Change what was said about a cluster.
    ChangeCluster(ClusterName, Box<ClusterSpec>),
    /// Send no new work to a cluster, or send work again.
    DrainCluster(ClusterName, bool),
    /// Forget a cluster; with `force`, even while work runs there.
    RemoveCluster {
        /// Its name.
        name: ClusterName,
        /// Treat what runs there as lost.
        force: bool,
    },
    /// An agent has linked.
    Link {
        /// Its cluster.
        cluster: ClusterName,
        /// What it says about itself.
        agent: Box<AgentFacts>,
        /// Every attempt whose end it has not yet had confirmed.
        held: Vec<Held>,
    },
    /// An agent's link broke, or its heartbeat stopped.
    Unlink(ClusterName),
    /// The nodes of a cluster, all of them, as its agent sees them.
    Nodes(ClusterName, Vec<NodeFacts>),
    /// An agent saw something happen to an attempt.
    Report(ClusterName, Report),
    /// The driver starts: no agent is linked any more, whatever the journal says.
    Restart {
        /// How far the clock has gone on since the driver last looked without that time having
        /// passed: nothing is due because of it.
        skipped: Span,
    },
    /// Time passed.
    Tick,
}

/// A task that somebody wants to have run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// What the submitter calls it.
    pub key: Key,
    /// The digest of all that is submitted under the key, arguments included.
    pub body: u64,
    /// A name for people.
    pub name: Option<Box<str>>,
    /// What it is.
    pub spec: Arc<TaskSpec>,
    /// Its arguments.
    pub payload: Data,
}

/// An attempt that an agent has not let go of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The task.
    pub task: TaskId,
    /// Which assignment of it.
    pub attempt: Attempt,
}

/// What an agent saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The task.
    pub task: TaskId,
    /// Which assignment of it.
    pub attempt: Attempt,
    /// What happened to it.
    pub what: Seen,
}

/// What can happen to an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It runs.
    Started,
    /// It was handed back before it ran.
    Returned,
    /// It returned a value, or was stopped as it was told.
    Finished {
        /// How long it ran.
        ran: Span,
        /// What it returned.
        result: Data,
    },
    /// It was stopped because it was told to.
    Stopped {
        /// How long it ran.
        ran: Span,
    },
    /// It failed.
    Failed {
        /// How long it ran.
        ran: Span,
        /// Why.
        failure: Failure,
        /// The details, such as the traceback.
        details: Data,
    },
}

/// What a mesh answers to a command that it did not refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done, or nothing had to be done.
    Done,
    /// The task is accepted under this number.
    Submitted {
        /// The number.
        task: TaskId,
        /// Whether it had been accepted before, under the same key.
        replayed: bool,
    },
}

/// Why a mesh refuses a command. Each has a stable code; nothing was changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Rejection {
    /// There is no task of that number, or its record was given up.
    #[error("task {0} is not known here")]
    UnknownTask(TaskId),
    /// There is no cluster of that name.
    #[error("cluster {0} is not registered")]
    UnknownCluster(ClusterName),
    /// There is one already, and it was said to be different.
    #[error("cluster {0} is already registered, with other settings")]
    ClusterExists(ClusterName),
    /// Work runs there.
    #[error("cluster {name} still has {tasks} tasks")]
    ClusterBusy {
        /// The cluster.
        name: ClusterName,
        /// How many tasks are assigned to it.
        tasks: usize,
    },
    /// Another agent holds the link.
    #[error("cluster {0} already has a linked agent")]
    ClusterTaken(ClusterName),
    /// The key was used for something else.
    #[error("key {key} was used for another submission, task {task}")]
    KeyConflict {
        /// The key.
        key: Key,
        /// What it was used for.
        task: TaskId,
    },
    /// The key is so old that it can't be told whether it was used.
    #[error("key {key} is older than the records kept, {kept}")]
    KeyExpired {
        /// The key.
        key: Key,
        /// How long records are kept.
        kept: Span,
    },
    /// The queue is full.
    #[error("the queue holds {max} tasks, which is its limit")]
    QueueFull {
        /// The limit.
        max: usize,
    },
    /// No cluster could ever hold it.
    #[error("no cluster can ever run this")]
    Infeasible(Vec<(ClusterName, Verdict)>),
    /// A call on something that is not an actor.
    #[error("task {0} is not an actor")]
    NotAnActor(TaskId),
    /// A call on an actor that is over.
    #[error("actor {0} has ended")]
    ActorEnded(TaskId),
}

impl Rejection {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownTask(_) => "UNKNOWN_TASK",
            Self::UnknownCluster(_) => "UNKNOWN_CLUSTER",
            Self::ClusterExists(_) => "CLUSTER_EXISTS",
            Self::ClusterBusy { .. } => "CLUSTER_BUSY",
            Self::ClusterTaken(_) => "CLUSTER_TAKEN",
            Self::KeyConflict { .. } => "KEY_CONFLICT",
            Self::KeyExpired { .. } => "KEY_EXPIRED",
            Self::QueueFull { .. } => "QUEUE_FULL",
            Self::Infeasible(_) => "INFEASIBLE",
            Self::NotAnActor(_) => "NOT_AN_ACTOR",
            Self::ActorEnded(_) => "ACTOR_ENDED",
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::UnknownTask(_) => {
                "check the id with `schedulemesh ps --all`; ended tasks are kept for a limited time"
                    .into()
            }
            Self::UnknownCluster(_) => {
                "see `schedulemesh cluster ls`, or register it with `schedulemesh cluster add`"
                    .into()
            }
            Self::ClusterExists(name) => {
                format!(
                    "change it with `schedulemesh cluster add --replace {name}`, or pick another name"
                )
            }
            Self::ClusterBusy { name, .. } => {
                format!("drain it first (`schedulemesh cluster drain {name}`), or add --force")
            }
            Self::ClusterTaken(_) => {
                "stop the other agent first; if it died, its link ends within the heartbeat time"
                    .into()
            }
            Self::KeyConflict { .. } => {
                "use a new key, or submit exactly what was submitted before".into()
            }
            Self::KeyExpired { .. } => {
                "make a new key; look first whether the work was done".into()
            }
            Self::QueueFull { .. } => {
                "submit again later, or raise queue-max in the configuration".into()
            }
            Self::Infeasible(_) => {
                "ask for less, add a cluster that fits, or set wait_for_growth to queue it anyway"
                    .into()
            }
            Self::NotAnActor(_) => {
                "call methods on the id that an actor's submission returned".into()
            }
            Self::ActorEnded(_) => "start the actor again".into(),
        }
    }
}
