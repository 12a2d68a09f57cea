//! A mesh written down, and a mesh read back.

use std::sync::Arc;

use super::{ClusterState, CodeEntry, Lease, Limits, Mesh, Timer};
use crate::bug::{self, Bug};
use crate::model::cluster::{Breaker, Link};
use crate::model::id::TaskId;
use crate::model::task::{Phase, Task};
use crate::model::time::{Span, Timestamp};
use crate::snapshot::{ClusterRest, LeaseRest, Snapshot};

impl Mesh {
    /// All that the mesh knows and nothing that can be derived.
    pub fn snapshot(&self) -> Snapshot {
        let cluster = |cluster: &ClusterState| ClusterRest {
            id: cluster.id,
            name: cluster.name.clone(),
            spec: cluster.spec.clone(),
            link: cluster.link.clone(),
            agent: cluster.agent.clone(),
            draining: cluster.draining,
            breaker: cluster.breaker.clone(),
            last_job: cluster.last_job,
            nodes: (0_u32..)
                .zip(&cluster.nodes)
                .map(|(id, n)| (crate::model::id::NodeId(id), n.alive, n.facts.clone()))
                .collect(),
        };
        let lease = |(id, lease): (_, &Lease)| LeaseRest {
            id,
            cluster: lease.cluster,
            node: lease.node,
            spec: self.spec_of_lease(lease),
            tasks: lease.tasks.keys().copied().collect(),
        };
        let left_out = usize::from(bug::is(Bug::SnapshotWithoutLease));
        let leases = self.leases.len().saturating_sub(left_out);
        Snapshot {
            at: self.at,
            tasks: self.tasks.iter().cloned().collect(),
            specs: self.specs.iter().map(|(id, e)| (*id, Arc::clone(&e.spec))).collect(),
            clusters: self.clusters.values().map(cluster).collect(),
            leases: self.leases.iter().take(leases).map(|(id, l)| lease((*id, l))).collect(),
            code: self.code.iter().map(|(digest, code)| (*digest, code.rest)).collect(),
            next: self.next,
            forgotten: self.forgotten,
            forgotten_until: self.forgotten_until,
        }
    }

    /// The specification of the task that a grant was made for: that of its first task, because the
    /// one that it was made for may have been forgotten since.
    fn spec_of_lease(&self, lease: &Lease) -> crate::model::id::SpecId {
        let first = lease.tasks.keys().next().and_then(|task| self.tasks.get(*task));
        first.map_or(lease.spec, |task| task.spec)
    }

    /// The mesh that was written down.
    pub fn restore(snapshot: Snapshot, limits: Limits) -> Self {
        let mut mesh = Self::new(limits);
        mesh.at = snapshot.at;
        for (id, spec) in &snapshot.specs {
            mesh.define(*id, spec);
        }
        for (digest, rest) in snapshot.code {
            let specs = mesh.code.get(&digest).map_or(0, |code| code.specs);
            mesh.code.insert(digest, CodeEntry { rest, specs });
        }
        for cluster in snapshot.clusters {
            mesh.restore_cluster(cluster);
        }
        for task in snapshot.tasks {
            mesh.restore_task(task);
        }
        for lease in snapshot.leases {
            mesh.restore_lease(lease);
        }
        mesh.next = snapshot.next;
        mesh.forgotten = snapshot.forgotten;
        mesh.forgotten_until = snapshot.forgotten_until;
        mesh.hints.changes.clear();
        mesh
    }

    fn restore_cluster(&mut self, rest: ClusterRest) {
        let mut cluster = ClusterState::new(rest.id, rest.name, rest.spec, Timestamp::default());
        cluster.link = rest.link;
        cluster.agent = rest.agent;
        cluster.draining = rest.draining;
        cluster.breaker = rest.breaker;
        cluster.last_job = rest.last_job;
        for (id, alive, facts) in rest.nodes {
            cluster.see_node(id, alive, &facts);
        }
        if let Link::Suspect { since } = &cluster.link {
            let due = since.after(cluster.spec.lost_after);
            self.timers.insert((due, Timer::Lost(rest.id)));
        }
        if let Breaker::Open { until } = &cluster.breaker {
            self.timers.insert((*until, Timer::Breaker(rest.id)));
        }
        self.cluster_ids.insert(cluster.name.clone(), rest.id);
        self.clusters.insert(rest.id, cluster);
        self.hints.freed.insert(rest.id);
        self.hints.fleet += 1;
    }

    fn restore_task(&mut self, task: Task) {
        let id = task.id;
        match &task.phase {
            Phase::Delayed { until, .. } => {
                self.timers.insert((*until, Timer::Retry(id)));
            }
            Phase::Running { since, .. } => {
                if let Some(timeout) = self.spec(task.spec).and_then(|spec| spec.timeout) {
                    self.timers.insert((since.after(timeout), Timer::Timeout(id, task.attempt)));
                }
                self.hints.callable.insert(id);
            }
            Phase::Ended(end) => {
                self.ended.insert((end.at, id));
            }
            Phase::Queued | Phase::Assigned { .. } | Phase::Stopping { .. } => {}
        }
        self.accept(task);
    }

    fn restore_lease(&mut self, rest: LeaseRest) {
        let Some(shape) = self.spec(rest.spec).map(|spec| spec.shape.clone()) else { return };
        let class = self.queue.class_for(&shape, None);
        let ask = shape.resources;
        if let Some(cluster) = self.clusters.get_mut(&rest.cluster) {
            cluster.leases.insert(rest.id);
            cluster.grant(rest.node, &ask);
        }
        let lease = Lease {
            cluster: rest.cluster,
            node: rest.node,
            spec: rest.spec,
            tasks: std::collections::BTreeMap::new(),
            class,
            ask,
            expected: Span::ZERO,
            bytes: 0,
        };
        self.leases.insert(rest.id, lease);
        self.queue.change(class, |class| {
            class.grants += 1;
            class.shallow.insert((Span::ZERO, rest.id));
        });
        self.hints.idle.insert(rest.id);
        for task in rest.tasks {
            self.attach_at_rest(rest.id, task);
        }
    }

    /// Enters a task into a grant without the side effects of a new assignment.
    fn attach_at_rest(&mut self, lease: crate::model::id::LeaseId, task: TaskId) {
        let cluster = self.leases.get(&lease).map(|lease| lease.cluster);
        let breaker = |mesh: &Self| {
            cluster.and_then(|id| mesh.clusters.get(&id)).map(|cluster| cluster.breaker.clone())
        };
        let before = breaker(self);
        self.attach(lease, task);
        if let (Some(id), Some(before)) = (cluster, before)
            && let Some(cluster) = self.clusters.get_mut(&id)
        {
            cluster.breaker = before;
        }
    }
}
