//! Making an event true. Never fails and never asks: what was decided has happened. Replay of the
//! journal goes through here and through nothing else.

use std::sync::Arc;

use super::{ClusterState, Lease, Mesh, SpecEntry, Timer};
use crate::bug::{self, Bug};
use crate::event::Event;
use crate::model::cluster::{Breaker, ClusterSpec, Link, NodeFacts};
use crate::model::id::{Attempt, ClassId, ClusterId, ClusterName, LeaseId, NodeId, SpecId, TaskId};
use crate::model::task::{Cause, End, Failure, Kind, Outcome, Phase, Stop, Task, TaskSpec, Work};
use crate::model::time::{Span, Timestamp};

/// The weight of the newest run in the moving mean of a piece of code is one in this many.
const MEAN_WEIGHT: u64 = 4;

impl Mesh {
    /// Makes an event true that happened at `at`.
    pub fn apply(&mut self, at: Timestamp, event: &Event) {
        self.at = self.at.max(at);
        match event {
            Event::ClusterAdded(id, name, spec) => self.add(*id, name, spec),
            Event::ClusterChanged(id, spec) => self.change(*id, spec),
            Event::ClusterDrained(id, on) => {
                self.with_health(*id, |cluster| cluster.draining = *on);
            }
            Event::ClusterRemoved(id) => self.remove_cluster_state(*id),
            Event::ClusterLinked(id, agent) => {
                self.forget_loss(*id);
                self.hints.fleet += 1;
                self.with_health(*id, |cluster| {
                    cluster.link = Link::Up { since: at };
                    cluster.agent = Some((**agent).clone());
                });
            }
            Event::ClusterSuspected(id) => self.suspect(*id, at),
            Event::ClusterLost(id) => {
                self.forget_loss(*id);
                self.with_health(*id, |cluster| cluster.link = Link::Lost { since: at });
            }
            Event::NodesSeen(id, nodes) => self.see(*id, nodes),
            Event::BreakerOpened(id, until) => self.open_breaker(*id, *until),
            Event::BreakerHalfOpened(id) => self.half_open_breaker(*id),
            Event::SpecDefined(id, spec) => self.define(*id, spec),
            Event::Submitted { task, spec, key, body, name, payload } => {
                self.accept(Task {
                    id: *task,
                    key: key.clone(),
                    body: *body,
                    name: name.clone(),
                    spec: *spec,
                    payload: *payload,
                    submitted: at,
                    attempt: Attempt(0),
                    lost: 0,
                    raised: 0,
                    avoid: None,
                    phase: Phase::Queued,
                });
            }
            Event::Leased { lease, cluster, node, spec } => {
                self.lease_out(*lease, *cluster, *node, *spec);
            }
            Event::Assigned(lease, tasks) => self.assign(*lease, tasks),
            Event::Released(lease) => self.release(*lease),
            Event::Started(task) => self.start_task(*task, at),
            Event::Returned(task) => {
                self.slow_down(*task);
                self.requeue(*task);
            }
            Event::Requeued(task) => self.requeue(*task),
            Event::StopAsked(task, why) => self.ask_stop(*task, *why),
            Event::Retried { task, failure, until } => self.delay(*task, failure, *until),
            Event::Ended { task, outcome, result, ran } => {
                let end = End {
                    outcome: outcome.clone(),
                    at,
                    started: None,
                    ran: *ran,
                    cluster: None,
                    result: *result,
                };
                self.end_task(*task, end);
            }
            Event::LateReport(..) | Event::CodeForgotten(_) => {}
            Event::Forgotten(tasks) => tasks.iter().for_each(|task| self.forget_task(*task)),
            Event::ClockSkipped(span) => self.put_off(*span),
        }
    }

    fn with_cluster(&mut self, id: ClusterId, change: impl FnOnce(&mut ClusterState)) {
        if let Some(cluster) = self.clusters.get_mut(&id) {
            change(cluster);
            if !bug::is(Bug::LostWakeup) {
                self.hints.freed.insert(id);
            }
        }
    }

    /// Changes whether a cluster takes work. That may help tasks elsewhere too: those that preferred
    /// it, and those whose last choice is another while they can hope for this one.
    fn with_health(&mut self, id: ClusterId, change: impl FnOnce(&mut ClusterState)) {
        self.with_cluster(id, change);
        self.hints.freed.extend(self.clusters.keys());
    }

    fn add(&mut self, id: ClusterId, name: &ClusterName, spec: &ClusterSpec) {
        let cluster = ClusterState::new(id, name.clone(), spec.clone(), self.at);
        self.clusters.insert(id, cluster);
        self.cluster_ids.insert(name.clone(), id);
        self.next.cluster = id.next();
        self.hints.fleet += 1;
        self.hints.freed.insert(id);
    }

    fn change(&mut self, id: ClusterId, spec: &ClusterSpec) {
        self.hints.fleet += 1;
        self.with_cluster(id, |cluster| {
            let regroup = cluster.spec.labels != spec.labels;
            cluster.spec = spec.clone();
            if regroup {
                cluster.regroup();
            }
        });
    }

    fn remove_cluster_state(&mut self, id: ClusterId) {
        self.forget_loss(id);
        self.timers.retain(|(_, timer)| *timer != Timer::Breaker(id));
        self.hints.wakes.retain(|(_, cluster)| *cluster != id);
        let leases: Vec<LeaseId> =
            self.clusters.get(&id).into_iter().flat_map(|c| &c.leases).copied().collect();
        for lease in leases {
            self.release(lease);
        }
        if let Some(cluster) = self.clusters.remove(&id) {
            self.cluster_ids.remove(&cluster.name);
        }
        self.hints.freed.extend(self.clusters.keys());
        self.hints.fleet += 1;
    }

    fn suspect(&mut self, id: ClusterId, at: Timestamp) {
        self.forget_loss(id);
        self.with_health(id, |cluster| cluster.link = Link::Suspect { since: at });
        if let Some(cluster) = self.clusters.get(&id) {
            let due = at.after(cluster.spec.lost_after);
            self.timers.insert((due, Timer::Lost(id)));
        }
    }

    /// Takes away the timer that would declare a cluster lost.
    fn forget_loss(&mut self, id: ClusterId) {
        self.timers.retain(|(_, timer)| *timer != Timer::Lost(id));
    }

    fn see(&mut self, id: ClusterId, nodes: &[(NodeId, bool, NodeFacts)]) {
        let mut structural = false;
        self.with_cluster(id, |cluster| {
            for (node, alive, facts) in nodes {
                structural |= cluster.see_node(*node, *alive, facts);
            }
        });
        self.hints.fleet += u64::from(structural);
    }

    fn open_breaker(&mut self, id: ClusterId, until: Timestamp) {
        self.timers.retain(|(_, timer)| *timer != Timer::Breaker(id));
        self.timers.insert((until, Timer::Breaker(id)));
        self.with_health(id, |cluster| cluster.breaker = Breaker::Open { until });
    }

    fn half_open_breaker(&mut self, id: ClusterId) {
        self.timers.retain(|(_, timer)| *timer != Timer::Breaker(id));
        self.with_health(id, |cluster| cluster.breaker = Breaker::HalfOpen);
    }

    pub(super) fn define(&mut self, id: SpecId, spec: &Arc<TaskSpec>) {
        let is_call = matches!(spec.work, Work::Call { .. });
        let class = (!is_call).then(|| {
            let class = self.queue.class_for(&spec.shape, None);
            self.queue.change(class, |class| class.specs += 1);
            class
        });
        if let Some(digest) = spec.work.code() {
            self.code.entry(digest).or_default().specs += 1;
        }
        self.specs.insert(id, SpecEntry { spec: Arc::clone(spec), class, tasks: 0 });
        self.spec_ids.insert(Arc::clone(spec), id);
        self.next.spec = self.next.spec.max(id.next());
    }

    /// Takes a task into the books, in whichever phase it is.
    pub(super) fn accept(&mut self, task: Task) {
        let id = task.id;
        self.next.task = self.next.task.max(id.next());
        self.keys.insert(task.key.clone(), id);
        if let Some(entry) = self.specs.get_mut(&task.spec) {
            entry.tasks += 1;
        }
        self.counts.add(&task.phase);
        let queued = task.phase == Phase::Queued;
        self.tasks.insert(task);
        if queued {
            self.enqueue(id);
        }
    }

    fn spec_of(&self, id: TaskId) -> Option<&Arc<TaskSpec>> {
        self.tasks.get(id).and_then(|task| self.spec(task.spec))
    }

    /// The class that a task waits in; `None` for a call.
    pub(super) fn class_of(&mut self, id: TaskId) -> Option<ClassId> {
        let task = self.tasks.get(id)?;
        let entry = self.specs.get(&task.spec)?;
        let class = entry.class?;
        match task.avoid {
            None => Some(class),
            avoid => Some(self.queue.class_for(&entry.spec.shape, avoid)),
        }
    }

    fn enqueue(&mut self, id: TaskId) {
        self.hints.shallow = true;
        if let Some(class) = self.class_of(id) {
            return self.queue.change(class, |class| {
                class.pending.insert(id);
            });
        }
        if let Some(Work::Call { actor, .. }) = self.spec_of(id).map(|spec| &spec.work) {
            let actor = *actor;
            self.calls.entry(actor).or_default().insert(id);
            self.hints.callable.insert(actor);
        }
    }

    fn dequeue(&mut self, id: TaskId) {
        if let Some(class) = self.class_of(id) {
            self.queue.change(class, |class| {
                class.pending.remove(&id);
            });
            return self.queue.drop_unused(class);
        }
        if let Some(Work::Call { actor, .. }) = self.spec_of(id).map(|spec| &spec.work) {
            let actor = *actor;
            if let Some(waiting) = self.calls.get_mut(&actor) {
                waiting.remove(&id);
                if waiting.is_empty() {
                    self.calls.remove(&actor);
                }
            }
        }
    }

    /// Moves a task to a phase, and takes it out of wherever its old phase kept it.
    fn set_phase(&mut self, id: TaskId, phase: Phase) {
        self.leave_phase(id);
        if let Some(task) = self.tasks.get_mut(id) {
            self.counts.remove(&task.phase);
            self.counts.add(&phase);
            task.phase = phase;
            self.hints.changes.push(id);
        }
    }

    fn leave_phase(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get(id) else { return };
        match &task.phase {
            Phase::Queued => self.dequeue(id),
            Phase::Delayed { until, .. } => {
                self.timers.remove(&(*until, Timer::Retry(id)));
            }
            Phase::Running { since, .. } => {
                let timer = Timer::Timeout(id, task.attempt);
                if let Some(timeout) = self.spec(task.spec).and_then(|spec| spec.timeout) {
                    self.timers.remove(&(since.after(timeout), timer));
                }
            }
            Phase::Assigned { .. } | Phase::Stopping { .. } | Phase::Ended(_) => {}
        }
    }

    /// Puts off everything that waits for a time of its own. The silence of clusters is counted anew
    /// by whoever skips time.
    fn put_off(&mut self, span: Span) {
        for (at, timer) in std::mem::take(&mut self.timers) {
            let due = match timer {
                Timer::Lost(_) => at,
                Timer::Breaker(id) => {
                    if let Some(cluster) = self.clusters.get_mut(&id) {
                        cluster.breaker.put_off(span);
                    }
                    at.after(span)
                }
                Timer::Retry(id) | Timer::Timeout(id, _) => {
                    if let Some(task) = self.tasks.get_mut(id) {
                        task.phase.put_off(span);
                    }
                    at.after(span)
                }
            };
            self.timers.insert((due, timer));
        }
        for cluster in self.clusters.values_mut() {
            cluster.last_job = cluster.last_job.map(|at| at.after(span));
        }
    }

    fn lease_out(&mut self, id: LeaseId, cluster: ClusterId, node: NodeId, spec: SpecId) {
        let Some(entry) = self.specs.get(&spec) else { return };
        let (Some(class), shape) = (entry.class, entry.spec.shape.clone()) else { return };
        let ask = shape.resources;
        let at = self.at;
        if let Some(cluster) = self.clusters.get_mut(&cluster) {
            cluster.grant(node, &ask);
            cluster.leases.insert(id);
            if shape.kind == Kind::Job {
                cluster.last_job = Some(at);
            }
        }
        self.queue.change(class, |class| {
            class.grants += 1;
            class.shallow.insert((Span::ZERO, id));
        });
        let lease = Lease {
            cluster,
            node,
            spec,
            tasks: std::collections::BTreeMap::new(),
            class,
            ask,
            expected: Span::ZERO,
            bytes: 0,
        };
        self.leases.insert(id, lease);
        self.next.lease = self.next.lease.max(id.next());
        self.hints.idle.insert(id);
    }

    fn assign(&mut self, lease: LeaseId, tasks: &[TaskId]) {
        for id in tasks {
            self.set_phase(*id, Phase::Assigned { lease });
            if let Some(task) = self.tasks.get_mut(*id) {
                task.attempt = task.attempt.next();
            }
            self.attach(lease, *id);
        }
    }

    /// Enters a task into the books of a grant.
    pub(super) fn attach(&mut self, lease: LeaseId, id: TaskId) {
        let expected = self.estimate(id);
        let bytes = self.tasks.get(id).map_or(0, |task| task.payload.size());
        self.change_lease(lease, |lease| {
            lease.tasks.insert(id, expected);
            lease.bytes += bytes;
            lease.expected = lease.expected.plus(expected);
        });
        self.hints.idle.remove(&lease);
        let cluster = self.leases.get(&lease).map(|lease| lease.cluster);
        if let Some(cluster) = cluster.and_then(|cluster| self.clusters.get_mut(&cluster))
            && cluster.breaker == Breaker::HalfOpen
        {
            cluster.breaker = Breaker::Probing { task: id };
        }
    }

    /// How long a task is expected to run: what its code is known for, or else so long that nothing
    /// is handed out behind it. A call takes no room in its actor's grant.
    fn estimate(&self, id: TaskId) -> Span {
        match self.spec_of(id).map(|spec| &spec.work) {
            Some(Work::Function(digest)) => self.mean_run(digest).unwrap_or(self.limits.lookahead),
            Some(Work::Call { .. }) => Span::ZERO,
            Some(Work::Actor(_) | Work::Job) | None => self.limits.lookahead,
        }
    }

    fn change_lease(&mut self, id: LeaseId, change: impl FnOnce(&mut Lease)) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        let before = lease.expected;
        change(lease);
        let (class, after) = (lease.class, lease.expected);
        let soon_dry = self.limits.soon_dry();
        if before != after && before.min(after) <= soon_dry {
            self.queue.change(class, |class| {
                class.shallow.remove(&(before, id));
                if after <= soon_dry {
                    class.shallow.insert((after, id));
                }
            });
        }
    }

    /// Takes a task out of the books of its grant, and says where that was.
    fn detach(&mut self, id: TaskId) -> Option<ClusterId> {
        let task = self.tasks.get(id)?;
        let (lease_id, bytes) = (task.phase.lease()?, task.payload.size());
        self.change_lease(lease_id, |lease| {
            lease.bytes = lease.bytes.saturating_sub(bytes);
            let expected = lease.tasks.remove(&id).unwrap_or(Span::ZERO);
            lease.expected = lease.expected.minus_or_zero(expected);
        });
        let lease = self.leases.get(&lease_id)?;
        if lease.tasks.is_empty() {
            self.hints.idle.insert(lease_id);
        } else if let Some(actor) = lease.tasks.keys().next() {
            self.hints.callable.insert(*actor);
        }
        self.hints.shallow = true;
        Some(lease.cluster)
    }

    fn release(&mut self, id: LeaseId) {
        self.hints.idle.remove(&id);
        let Some(lease) = self.leases.remove(&id) else { return };
        self.with_cluster(lease.cluster, |cluster| {
            cluster.leases.remove(&id);
            cluster.give_back(lease.node, &lease.ask);
            if bug::is(Bug::ReleaseTwice) {
                cluster.give_back(lease.node, &lease.ask);
            }
        });
        self.queue.change(lease.class, |class| {
            class.grants = class.grants.saturating_sub(1);
            class.shallow.remove(&(lease.expected, id));
        });
        self.queue.drop_unused(lease.class);
    }

    fn start_task(&mut self, id: TaskId, at: Timestamp) {
        let Some(lease) = self.tasks.get(id).and_then(|task| task.phase.lease()) else { return };
        self.set_phase(id, Phase::Running { lease, since: at });
        if let (Some(task), Some(timeout)) =
            (self.tasks.get(id), self.spec_of(id).and_then(|spec| spec.timeout))
        {
            self.timers.insert((at.after(timeout), Timer::Timeout(id, task.attempt)));
        }
        self.hints.callable.insert(id);
        self.start_showed(id, lease, true);
    }

    /// Lets the breaker of a cluster know how a start went.
    fn start_showed(&mut self, id: TaskId, lease: LeaseId, well: bool) {
        let cluster = self.leases.get(&lease).map(|lease| lease.cluster);
        if let Some(cluster) = cluster.and_then(|id| self.clusters.get_mut(&id)) {
            let before = cluster.breaker.clone();
            if well {
                cluster.start_succeeded(id);
            } else {
                cluster.start_failed();
            }
            if before != cluster.breaker {
                self.hints.freed.insert(cluster.id);
            }
        }
    }

    /// A task was handed back, so the one at the front of its grant takes longer than expected:
    /// nothing is handed out behind that until it ends.
    fn slow_down(&mut self, id: TaskId) {
        let lookahead = self.limits.lookahead;
        let Some(lease) = self.tasks.get(id).and_then(|task| task.phase.lease()) else { return };
        self.change_lease(lease, |lease| {
            if let Some((_, front)) = lease.tasks.iter_mut().find(|(task, _)| **task != id) {
                let others = lease.expected.minus_or_zero(*front);
                *front = lookahead.max(*front);
                lease.expected = others.plus(*front);
            }
        });
    }

    fn requeue(&mut self, id: TaskId) {
        let cluster = self.detach(id);
        if let Some(cluster) = cluster {
            self.with_cluster(cluster, |cluster| cluster.probe_left(id));
        }
        self.set_phase(id, Phase::Queued);
        self.enqueue(id);
    }

    fn ask_stop(&mut self, id: TaskId, why: Stop) {
        if let Some(lease) = self.tasks.get(id).and_then(|task| task.phase.lease()) {
            self.set_phase(id, Phase::Stopping { lease, why });
        }
    }

    fn delay(&mut self, id: TaskId, failure: &Failure, until: Timestamp) {
        let loss = failure.cause.is_loss();
        let lease = self.tasks.get(id).and_then(|task| task.phase.lease());
        if let Some(lease) = lease {
            self.start_showed(id, lease, failure.cause != Cause::NotStarted);
        }
        let cluster = self.detach(id);
        if let Some(task) = self.tasks.get_mut(id) {
            if loss {
                task.lost = task.lost.saturating_add(1);
                task.avoid = cluster.or(task.avoid);
            } else {
                task.raised = task.raised.saturating_add(1);
            }
        }
        self.set_phase(id, Phase::Delayed { until, last: failure.clone() });
        self.timers.insert((until, Timer::Retry(id)));
    }

    fn end_task(&mut self, id: TaskId, mut end: End) {
        let Some(task) = self.tasks.get(id) else { return };
        let lease = task.phase.lease();
        // Of what ends at once nobody says that it started.
        end.started = match &task.phase {
            Phase::Running { since, .. } => Some(*since),
            _ if end.ran > Span::ZERO => Some(end.at.before(end.ran)),
            _ => None,
        };
        if let Some(lease) = lease {
            let not_started =
                matches!(&end.outcome, Outcome::Failed(f) if f.cause == Cause::NotStarted);
            match &end.outcome {
                Outcome::Cancelled => {
                    let cluster = self.leases.get(&lease).map(|lease| lease.cluster);
                    if let Some(cluster) = cluster {
                        self.with_cluster(cluster, |cluster| cluster.probe_left(id));
                    }
                }
                Outcome::Succeeded | Outcome::Failed(_) => {
                    self.start_showed(id, lease, !not_started);
                }
            }
        }
        self.learn(id, &end);
        end.cluster = self.detach(id);
        let at = end.at;
        self.set_phase(id, Phase::Ended(Box::new(end)));
        self.ended.insert((at, id));
        self.calls.remove(&id);
        self.hints.callable.remove(&id);
    }

    /// Learns how long a piece of code runs.
    fn learn(&mut self, id: TaskId, end: &End) {
        let Some(Work::Function(digest)) = self.spec_of(id).map(|spec| spec.work.clone()) else {
            return;
        };
        if end.outcome != Outcome::Succeeded {
            return;
        }
        if let Some(code) = self.code.get_mut(&digest) {
            let rest = &mut code.rest;
            let weighed = rest.mean.times(MEAN_WEIGHT - 1).plus(end.ran).micros() / MEAN_WEIGHT;
            rest.mean = if rest.runs == 0 { end.ran } else { Span::from_micros(weighed) };
            rest.runs = rest.runs.saturating_add(1);
        }
    }

    fn forget_task(&mut self, id: TaskId) {
        let Some(task) = self.tasks.remove(id) else { return };
        self.counts.remove(&task.phase);
        self.forgotten += 1;
        self.forgotten_until = self.forgotten_until.max(task.submitted);
        if let Phase::Ended(end) = &task.phase {
            self.ended.remove(&(end.at, id));
        }
        self.keys.remove(&task.key);
        let Some(entry) = self.specs.get_mut(&task.spec) else { return };
        entry.tasks = entry.tasks.saturating_sub(1);
        if entry.tasks == 0 {
            self.forget_spec(task.spec);
        }
    }

    fn forget_spec(&mut self, id: SpecId) {
        let Some(entry) = self.specs.remove(&id) else { return };
        self.spec_ids.remove(&entry.spec);
        if let Some(class) = entry.class {
            self.queue.change(class, |class| class.specs = class.specs.saturating_sub(1));
            self.queue.drop_unused(class);
        }
        if let Some(digest) = entry.spec.work.code()
            && let Some(code) = self.code.get_mut(&digest)
        {
            code.specs = code.specs.saturating_sub(1);
            if code.specs == 0 {
                self.code.remove(&digest);
            }
        }
    }
}
