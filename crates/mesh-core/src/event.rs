//! What may have happened: the vocabulary of the journal. Adding a variant, or a field with a
//! default at the end of one, keeps old journals readable; anything else is a new format version.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::cluster::{AgentFacts, ClusterSpec, NodeFacts};
use crate::model::id::{
    Attempt, ClusterId, ClusterName, Digest, Key, LeaseId, NodeId, SpecId, TaskId,
};
use crate::model::task::{Data, Failure, Outcome, Stop, TaskSpec};
use crate::model::time::{Span, Timestamp};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A cluster was registered.
    ClusterAdded(ClusterId, ClusterName, Box<ClusterSpec>),
    /// Its settings changed.
    ClusterChanged(ClusterId, Box<ClusterSpec>),
    /// It gets no new work, or gets work again.
    ClusterDrained(ClusterId, bool),
    /// It was forgotten.
    ClusterRemoved(ClusterId),
    /// Its agent linked.
    ClusterLinked(ClusterId, Box<AgentFacts>),
    /// Its agent fell silent.
    ClusterSuspected(ClusterId),
    /// Its agent was silent too long.
    ClusterLost(ClusterId),
    /// Nodes came, changed or went (`true`: it is there).
    NodesSeen(ClusterId, Vec<(NodeId, bool, NodeFacts)>),
    /// So many starts failed there that it gets no work until then.
    BreakerOpened(ClusterId, Timestamp),
    /// One task may go there to see whether it works again.
    BreakerHalfOpened(ClusterId),
    /// A specification that tasks share was seen for the first time.
    SpecDefined(SpecId, Arc<TaskSpec>),
    /// A task was accepted.
    Submitted {
        /// Its number.
        task: TaskId,
        /// What it is.
        spec: SpecId,
        /// What its submitter calls it.
        key: Key,
        /// The digest of all that was submitted.
        body: u64,
        /// A name for people.
        name: Option<Box<str>>,
        /// Its arguments.
        payload: Data,
    },
    /// Room was granted on a node, to the class of this specification.
    Leased {
        /// The grant.
        lease: LeaseId,
        /// The cluster.
        cluster: ClusterId,
        /// The node.
        node: NodeId,
        /// A specification of the class that it is granted to.
        spec: SpecId,
    },
    /// Tasks were given to a grant, in this order; each begins its next attempt.
    Assigned(LeaseId, Vec<TaskId>),
    /// A grant ended; its room is free.
    Released(LeaseId),
    /// A task runs.
    Started(TaskId),
    /// A task was handed back before it ran, and is queued again.
    Returned(TaskId),
    /// A task was told to stop.
    StopAsked(TaskId, Stop),
    /// An attempt failed, and the task is tried again after a wait.
    Retried {
        /// The task.
        task: TaskId,
        /// Why the attempt failed.
        failure: Failure,
        /// When it is queued again.
        until: Timestamp,
    },
    /// A task's wait before its next attempt is over.
    Requeued(TaskId),
    /// A task is over.
    Ended {
        /// The task.
        task: TaskId,
        /// How.
        outcome: Outcome,
        /// What it returned, or the details of its failure.
        result: Data,
        /// How long its last attempt ran.
        ran: Span,
    },
    /// An attempt that no longer counts reported its end; it changed nothing.
    LateReport(TaskId, Attempt),
    /// The records of ended tasks were given up.
    Forgotten(Vec<TaskId>),
    /// Code that no task refers to any more was given up.
    CodeForgotten(Vec<Digest>),
    /// The clock went on by so much while no such time passed: what is due is due later by as much.
    ClockSkipped(Span),
}
