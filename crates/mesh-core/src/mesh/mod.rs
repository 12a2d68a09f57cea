//! The state, and what may be read of it. [`decide`] judges commands, [`apply`] makes events true,
//! the cycle in [`crate::schedule`] hands out room.

mod apply;
mod at_rest;
mod decide;
mod fleet;
mod observe;
mod tick;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::amount::Resources;
use crate::model::cluster::{AgentFacts, Breaker, ClusterSpec, Link, NodeFacts};
use crate::model::id::{
    Attempt, ClassId, ClusterId, ClusterName, Digest, Key, LeaseId, NodeId, ResourceName, SpecId,
    TaskId,
};
use crate::model::label::Labels;
use crate::model::task::{Outcome, Phase, TaskSpec};
use crate::model::time::{Span, Timestamp};
use crate::schedule::queue::Queue;
use crate::schedule::room::Room;
use crate::snapshot::{CodeRest, NextIds};
use crate::table::TaskTable;

/// What a mesh may hold, and how far ahead it hands out work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most tasks that wait; further submissions are refused.
    pub queue_max: usize,
    /// How long the record of an ended task is kept.
    pub retention: Span,
    /// Most records of ended tasks; above that the oldest go first.
    pub ended_max: usize,
    /// How much expected run time is handed to one grant ahead of need, so that its worker never
    /// waits for the next task. Only tasks whose code is known to be short travel like this.
    pub lookahead: Span,
    /// Most tasks handed to one grant at a time.
    pub lookahead_tasks: usize,
    /// Most bytes of arguments handed to one grant ahead of need.
    pub lookahead_bytes: u64,
    /// Most calls handed to one actor at a time.
    pub calls_ahead: usize,
    /// Most grants on one node, so that work which asks for nothing still has a bound.
    pub leases_per_node: usize,
}

impl Limits {
    /// A grant that is expected to run no longer than this will soon run dry.
    pub(crate) fn soon_dry(&self) -> Span {
        Span::from_micros(self.lookahead.micros() / 2)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_max: 2_000_000,
            retention: Span::from_secs(24 * 3_600),
            ended_max: 1_000_000,
            lookahead: Span::from_millis(50),
            lookahead_tasks: 1_000,
            lookahead_bytes: 8 << 20,
            calls_ahead: 1_000,
            leases_per_node: 1_000,
        }
    }
}

/// How many tasks are in each phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Wait in the queue, or for their actor.
    pub queued: usize,
    /// Wait for the time of their next attempt.
    pub delayed: usize,
    /// Were given room.
    pub assigned: usize,
    /// Run.
    pub running: usize,
    /// Were told to stop.
    pub stopping: usize,
    /// Ended well, as far as there are records.
    pub succeeded: usize,
    /// Failed, as far as there are records.
    pub failed: usize,
    /// Were cancelled, as far as there are records.
    pub cancelled: usize,
}

impl Counts {
    fn slot(&mut self, phase: &Phase) -> &mut usize {
        match phase {
            Phase::Queued => &mut self.queued,
            Phase::Delayed { .. } => &mut self.delayed,
            Phase::Assigned { .. } => &mut self.assigned,
            Phase::Running { .. } => &mut self.running,
            Phase::Stopping { .. } => &mut self.stopping,
            Phase::Ended(end) => match end.outcome {
                Outcome::Succeeded => &mut self.succeeded,
                Outcome::Failed(_) => &mut self.failed,
                Outcome::Cancelled => &mut self.cancelled,
            },
        }
    }

    pub(crate) fn add(&mut self, phase: &Phase) {
        *self.slot(phase) += 1;
    }

    pub(crate) fn remove(&mut self, phase: &Phase) {
        let slot = self.slot(phase);
        *slot = slot.saturating_sub(1);
    }

    /// Each phase by its name, in the order of a task's life.
    pub fn named(&self) -> [(&'static str, usize); 8] {
        [
            ("queued", self.queued),
            ("delayed", self.delayed),
            ("assigned", self.assigned),
            ("running", self.running),
            ("stopping", self.stopping),
            ("succeeded", self.succeeded),
            ("failed", self.failed),
            ("cancelled", self.cancelled),
        ]
    }

    /// Tasks that wait for room or for time.
    pub fn waiting(&self) -> usize {
        self.queued + self.delayed
    }
}

/// The whole state of a control plane, and the only place where it is decided what happens next.
#[derive(Debug)]
pub struct Mesh {
    pub(crate) limits: Limits,
    /// The time of the last event.
    pub(crate) at: Timestamp,
    pub(crate) tasks: TaskTable,
    pub(crate) keys: BTreeMap<Key, TaskId>,
    pub(crate) specs: BTreeMap<SpecId, SpecEntry>,
    pub(crate) spec_ids: BTreeMap<Arc<TaskSpec>, SpecId>,
    pub(crate) code: BTreeMap<Digest, CodeEntry>,
    pub(crate) clusters: BTreeMap<ClusterId, ClusterState>,
    pub(crate) cluster_ids: BTreeMap<ClusterName, ClusterId>,
    pub(crate) leases: BTreeMap<LeaseId, Lease>,
    pub(crate) queue: Queue,
    /// Calls that wait for their actor, by actor.
    pub(crate) calls: BTreeMap<TaskId, BTreeSet<TaskId>>,
    pub(crate) timers: BTreeSet<(Timestamp, Timer)>,
    /// Ended tasks, in the order in which their records will be given up.
    pub(crate) ended: BTreeSet<(Timestamp, TaskId)>,
    pub(crate) next: NextIds,
    pub(crate) forgotten: u64,
    /// When the newest forgotten task was submitted.
    pub(crate) forgotten_until: Timestamp,
    pub(crate) counts: Counts,
    pub(crate) hints: Hints,
}

/// What the next cycle should look at. Derived: losing it costs a look, never a decision.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    /// Grants without a task.
    pub(crate) idle: BTreeSet<LeaseId>,
    /// Actors that may have calls to be handed.
    pub(crate) callable: BTreeSet<TaskId>,
    /// Clusters where something became free, or possible.
    pub(crate) freed: BTreeSet<ClusterId>,
    /// Moments at which a cluster may take work again.
    pub(crate) wakes: BTreeSet<(Timestamp, ClusterId)>,
    /// Classes whose grants may be given more.
    pub(crate) shallow: bool,
    /// Tasks whose phase changed since the driver last asked.
    pub(crate) changes: Vec<TaskId>,
    /// Changes whenever nodes, tags or labels do.
    pub(crate) fleet: u64,
}

/// A moment at which something must be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A delayed task may be queued again.
    Retry(TaskId),
    /// An attempt has run as long as it may.
    Timeout(TaskId, Attempt),
    /// A silent agent counts as lost.
    Lost(ClusterId),
    /// An open breaker may be tried.
    Breaker(ClusterId),
}

/// A specification and how many tasks have it.
#[derive(Debug)]
pub(crate) struct SpecEntry {
    pub(crate) spec: Arc<TaskSpec>,
    /// `None` for a call: it goes where its actor is.
    pub(crate) class: Option<ClassId>,
    pub(crate) tasks: usize,
}

/// What is known of code, and how many specifications refer to it.
#[derive(Debug, Default)]
pub(crate) struct CodeEntry {
    pub(crate) rest: CodeRest,
    pub(crate) specs: usize,
}

/// A grant of resources on one node: one worker, which runs its tasks one after the other. The
/// lease of an actor holds the actor and the calls that it was handed.
#[derive(Debug)]
pub struct Lease {
    /// Where.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// A specification of the class that holds it.
    pub spec: SpecId,
    /// The tasks that use it, and how long each was expected to run when it was given.
    pub tasks: BTreeMap<TaskId, Span>,
    pub(crate) class: ClassId,
    pub(crate) ask: Resources,
    /// The sum over its tasks.
    pub(crate) expected: Span,
    /// The bytes of their arguments.
    pub(crate) bytes: u64,
}

/// A cluster as the mesh knows it.
#[derive(Debug)]
pub struct ClusterState {
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
    /// Its nodes, by number.
    pub nodes: Vec<NodeState>,
    pub(crate) last_job: Option<Timestamp>,
    pub(crate) leases: BTreeSet<LeaseId>,
    pub(crate) groups: Vec<Group>,
    pub(crate) group_ids: BTreeMap<GroupKey, usize>,
    pub(crate) total: Resources,
    pub(crate) free: Resources,
}

/// What never changes about a node: its labels, its cluster's included, and its kinds of custom resource.
pub(crate) type GroupKey = (Labels, BTreeSet<ResourceName>);

/// Nodes with equal labels.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) labels: Labels,
    /// What is free.
    pub(crate) room: Room,
    /// What there is in all.
    pub(crate) size: Room,
}

/// A node as the mesh knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState {
    /// What its agent says.
    pub facts: NodeFacts,
    /// Whether it is there.
    pub alive: bool,
    /// What is granted on it.
    pub leased: Resources,
    /// How many grants there are on it.
    pub leases: usize,
    /// What can be granted on it now: kept beside what it follows from.
    pub(crate) free: Resources,
    /// Its group, and its place in that.
    pub(crate) slot: (usize, usize),
}

impl NodeState {
    /// What can be granted on it now.
    pub fn free(&self) -> &Resources {
        &self.free
    }

    pub(crate) fn free_by_account(&self) -> Resources {
        if self.alive {
            self.facts.total.minus_or_zero(&self.leased).minus_or_zero(&self.facts.foreign)
        } else {
            Resources::NONE
        }
    }
}

impl ClusterState {
    /// What it has in all.
    pub fn total(&self) -> &Resources {
        &self.total
    }

    /// What can be granted now.
    pub fn free(&self) -> &Resources {
        &self.free
    }

    /// How many grants there are.
    pub fn leases(&self) -> usize {
        self.leases.len()
    }

    /// A node by number.
    pub fn node(&self, id: NodeId) -> Option<&NodeState> {
        self.nodes.get(usize::try_from(id.0).ok()?)
    }

    pub(crate) fn node_mut(&mut self, id: NodeId) -> Option<&mut NodeState> {
        self.nodes.get_mut(usize::try_from(id.0).ok()?)
    }

    /// Whether its agent is linked.
    pub fn is_up(&self) -> bool {
        matches!(self.link, Link::Up { .. })
    }
}

impl Mesh {
    /// A mesh in which nothing has happened yet.
    pub fn new(limits: Limits) -> Self {
        let next =
            NextIds { task: TaskId(1), lease: LeaseId(1), cluster: ClusterId(1), spec: SpecId(1) };
        Self {
            limits,
            at: Timestamp::default(),
            tasks: TaskTable::default(),
            keys: BTreeMap::new(),
            specs: BTreeMap::new(),
            spec_ids: BTreeMap::new(),
            code: BTreeMap::new(),
            clusters: BTreeMap::new(),
            cluster_ids: BTreeMap::new(),
            leases: BTreeMap::new(),
            queue: Queue::default(),
            calls: BTreeMap::new(),
            timers: BTreeSet::new(),
            ended: BTreeSet::new(),
            next,
            forgotten: 0,
            forgotten_until: Timestamp::default(),
            counts: Counts::default(),
            hints: Hints::default(),
        }
    }
}
