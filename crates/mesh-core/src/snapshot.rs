//! A mesh at rest: all that [`crate::Mesh`] knows and nothing that can be derived. Two meshes are
//! equal when their snapshots are.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::cluster::{AgentFacts, Breaker, ClusterSpec, Link, NodeFacts};
use crate::model::id::{ClusterId, ClusterName, Digest, LeaseId, NodeId, SpecId, TaskId};
use crate::model::task::{Task, TaskSpec};
use crate::model::time::{Span, Timestamp};

/// A mesh at rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The time of the last event.
    pub at: Timestamp,
    /// Every task of which there is a record, by number.
    pub tasks: Vec<Task>,
    /// Every specification that one of them refers to.
    pub specs: Vec<(SpecId, Arc<TaskSpec>)>,
    /// Every cluster.
    pub clusters: Vec<ClusterRest>,
    /// Every grant.
    pub leases: Vec<LeaseRest>,
    /// What is known of code: how long it runs.
    pub code: BTreeMap<Digest, CodeRest>,
    /// The numbers that come next.
    pub next: NextIds,
    /// How many tasks were forgotten.
    pub forgotten: u64,
    /// When the newest of them was submitted: a key that was made before then may have been used.
    pub forgotten_until: Timestamp,
}

/// The numbers that come next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextIds {
    /// Of tasks.
    pub task: TaskId,
    /// Of leases.
    pub lease: LeaseId,
    /// Of clusters.
    pub cluster: ClusterId,
    /// Of specifications.
    pub spec: SpecId,
}

/// A cluster at rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRest {
    /// Its number.
    pub id: ClusterId,
    /// Its name.
    pub name: ClusterName,
    /// What its owner says.
    pub spec: ClusterSpec,
    /// Whether it can be talked to.
    pub link: Link,
    /// What its agent last said of itself.
    pub agent: Option<AgentFacts>,
    /// Whether it gets no new work.
    pub draining: bool,
    /// Whether it failed too often.
    pub breaker: Breaker,
    /// When it last was given a job.
    pub last_job: Option<Timestamp>,
    /// Its nodes, and whether each is there.
    pub nodes: Vec<(NodeId, bool, NodeFacts)>,
}

/// A grant at rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRest {
    /// Its number.
    pub id: LeaseId,
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// A specification of the class that holds it.
    pub spec: SpecId,
    /// The tasks that use it.
    pub tasks: Vec<TaskId>,
}

/// What is known of a piece of code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeRest {
    /// How long it ran, as a moving mean; meaningless before the first run.
    pub mean: Span,
    /// How often its end was reported, counted up to a few.
    pub runs: u32,
}
