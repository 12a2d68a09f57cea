//! What the world should be made to match. Read off the state, so that a restart finds it again;
//! doing it twice is harmless, because the attempt number goes along.

use std::sync::Arc;

use crate::model::id::{Attempt, ClusterId, LeaseId, NodeName, TaskId};
use crate::model::task::{Data, Stop, TaskSpec};

/// One thing that an agent should do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Run this attempt.
    Start {
        /// Where.
        cluster: ClusterId,
        /// The task.
        task: TaskId,
        /// Which assignment of it.
        attempt: Attempt,
        /// The grant that it uses: tasks that share one run one after the other.
        lease: LeaseId,
        /// The node that the room was granted on.
        node: NodeName,
        /// What it is.
        spec: Arc<TaskSpec>,
        /// Its arguments.
        payload: Data,
    },
    /// End this attempt, and say so.
    Stop {
        /// Where.
        cluster: ClusterId,
        /// The task.
        task: TaskId,
        /// Which assignment of it.
        attempt: Attempt,
        /// Why.
        why: Stop,
    },
}
