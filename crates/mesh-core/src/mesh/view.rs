//! What may be read of a mesh.

use std::sync::Arc;

use super::{ClusterState, Counts, Lease, Limits, Mesh};
use crate::command::Held;
use crate::effect::Effect;
use crate::model::id::{ClusterId, ClusterName, Digest, Key, LeaseId, SpecId, TaskId};
use crate::model::task::{Phase, Task, TaskSpec};
use crate::model::time::{Span, Timestamp};

impl Mesh {
    /// The time of the last event.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// The task of this number, if there is a record of it.
    pub fn task(&self, id: TaskId) -> Option<&Task> {
        self.tasks.get(id)
    }

    /// The task of this key, if there is a record of it.
    pub fn task_by_key(&self, key: &Key) -> Option<&Task> {
        self.keys.get(key).and_then(|id| self.tasks.get(*id))
    }

    /// Tasks with a number below `bound`, or all, newest first.
    pub fn tasks_before(&self, bound: Option<TaskId>) -> impl Iterator<Item = &Task> {
        self.tasks.before(bound.unwrap_or(self.next.task))
    }

    /// How many tasks there are records of.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether there is no record of any task.
    pub fn is_empty(&self) -> bool {
        self.tasks.len() == 0
    }

    /// A specification.
    pub fn spec(&self, id: SpecId) -> Option<&Arc<TaskSpec>> {
        self.specs.get(&id).map(|entry| &entry.spec)
    }

    /// Whether some task refers to this code.
    pub fn uses_code(&self, digest: &Digest) -> bool {
        self.code.contains_key(digest)
    }

    /// How long this code was seen to run, as a moving mean; `None` before its first run.
    pub fn mean_run(&self, digest: &Digest) -> Option<Span> {
        self.code.get(digest).filter(|code| code.rest.runs > 0).map(|code| code.rest.mean)
    }

    /// A cluster by name.
    pub fn cluster(&self, name: &ClusterName) -> Option<&ClusterState> {
        self.cluster_ids.get(name).and_then(|id| self.clusters.get(id))
    }

    /// A cluster by number.
    pub fn cluster_by_id(&self, id: ClusterId) -> Option<&ClusterState> {
        self.clusters.get(&id)
    }

    /// Every cluster, by number.
    pub fn clusters(&self) -> impl Iterator<Item = &ClusterState> {
        self.clusters.values()
    }

    /// A grant.
    pub fn lease(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id)
    }

    /// The cluster that a task is assigned to, or was last.
    pub fn cluster_of(&self, id: TaskId) -> Option<ClusterId> {
        let task = self.tasks.get(id)?;
        match &task.phase {
            Phase::Ended(end) => end.cluster,
            phase => phase.lease().and_then(|lease| self.leases.get(&lease)).map(|l| l.cluster),
        }
    }

    /// How many tasks are assigned to a cluster.
    pub fn tasks_on(&self, id: ClusterId) -> usize {
        self.clusters.get(&id).map_or(0, |cluster| {
            let leases = cluster.leases.iter().filter_map(|lease| self.leases.get(lease));
            leases.map(|lease| lease.tasks.len()).sum()
        })
    }

    /// How many tasks there are in each phase.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What a mesh may hold.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The next moment at which something must be decided: send [`crate::Command::Tick`] then.
    pub fn next_timer(&self) -> Option<Timestamp> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let wake = self.hints.wakes.first().map(|(at, _)| *at);
        let forget = self.ended.first().map(|(at, _)| at.after(self.limits.retention));
        let overfull = (self.ended.len() > self.limits.ended_max).then_some(self.at);
        [timer, wake, forget, overfull].into_iter().flatten().min()
    }

    /// Tasks whose phase changed since this was last asked, each once or more.
    pub fn take_changes(&mut self) -> Vec<TaskId> {
        std::mem::take(&mut self.hints.changes)
    }

    /// What the world should be made to match about one task.
    pub fn effect(&self, id: TaskId) -> Option<Effect> {
        let task = self.tasks.get(id)?;
        match &task.phase {
            Phase::Assigned { lease } => self.start(task, *lease),
            Phase::Stopping { lease, why } => Some(Effect::Stop {
                cluster: self.leases.get(lease)?.cluster,
                task: id,
                attempt: task.attempt,
                why: *why,
            }),
            Phase::Queued | Phase::Delayed { .. } | Phase::Running { .. } | Phase::Ended(_) => None,
        }
    }

    fn start(&self, task: &Task, lease_id: LeaseId) -> Option<Effect> {
        let lease = self.leases.get(&lease_id)?;
        let node = self.clusters.get(&lease.cluster)?.node(lease.node)?;
        Some(Effect::Start {
            cluster: lease.cluster,
            task: task.id,
            attempt: task.attempt,
            lease: lease_id,
            node: node.facts.name.clone(),
            spec: Arc::clone(self.spec(task.spec)?),
            payload: task.payload,
        })
    }

    /// All that is still to be done in one cluster, in the order in which its tasks go.
    pub fn effects(&self, cluster: ClusterId) -> Vec<Effect> {
        let Some(cluster) = self.clusters.get(&cluster) else { return Vec::new() };
        let leases = cluster.leases.iter().filter_map(|lease| self.leases.get(lease));
        leases.flat_map(|lease| lease.tasks.keys()).filter_map(|task| self.effect(*task)).collect()
    }

    /// Which of the attempts that an agent holds no longer count and must be ended.
    pub fn stale(&self, cluster: ClusterId, held: &[Held]) -> Vec<Held> {
        let counts = |held: &&Held| {
            self.tasks.get(held.task).is_some_and(|task| {
                task.attempt == held.attempt
                    && !task.phase.is_ended()
                    && self.cluster_of(held.task) == Some(cluster)
            })
        };
        held.iter().filter(|held| !counts(held)).copied().collect()
    }
}
