//! One cycle: everything that can start now is given room, in the order promised.
//!
//! A cycle touches what may start and nothing else. Calls go to their actors; grants that ran dry
//! are given the next tasks of their class or end; classes are placed while there is room; and
//! grants whose tasks are short are given more ahead of need, so that their workers never wait.

use std::collections::BTreeSet;

use super::place;
use super::queue::Rank;
use crate::event::Event;
use crate::mesh::Mesh;
use crate::model::amount::Resources;
use crate::model::id::{ClassId, ClusterId, LeaseId, NodeId, TaskId};
use crate::model::task::{Kind, Phase, Work};
use crate::model::time::{Span, Timestamp};

/// Most classes that a cycle looks at for grants to give more to: a bound on its length, not on
/// what runs, since a class beyond it is still placed one task for each grant.
const DEEPEN_CLASSES_MAX: usize = 16;

impl Mesh {
    /// Hands out the room that there is. The events have been applied already.
    pub fn schedule(&mut self, now: Timestamp) -> Vec<Event> {
        let mut events = Vec::new();
        self.wake(now); //                       1. moments that clusters waited for
        self.hand_calls(now, &mut events); //    2. calls whose actor is up
        self.reuse_idle(now, &mut events); //    3. grants that ran dry
        self.place(now, &mut events); //         4. classes with room, in the order of their ranks
        self.deepen(now, &mut events); //        5. more for grants whose tasks are short
        events
    }

    /// Gives back grants without a task, and hands out nothing: for a driver that can't take on more.
    pub fn give_back_idle(&mut self, now: Timestamp) -> Vec<Event> {
        let mut events = Vec::new();
        for lease in std::mem::take(&mut self.hints.idle) {
            self.happen(now, Event::Released(lease), &mut events);
        }
        events
    }

    fn happen(&mut self, now: Timestamp, event: Event, events: &mut Vec<Event>) {
        self.apply(now, &event);
        events.push(event);
    }

    fn wake(&mut self, now: Timestamp) {
        while let Some((at, cluster)) = self.hints.wakes.first().copied()
            && at <= now
        {
            self.hints.wakes.pop_first();
            self.hints.freed.insert(cluster);
        }
    }

    fn hand_calls(&mut self, now: Timestamp, events: &mut Vec<Event>) {
        for actor in std::mem::take(&mut self.hints.callable) {
            let Some(waiting) = self.calls.get(&actor) else { continue };
            let phase = self.tasks.get(actor).map(|task| &task.phase);
            let Some(Phase::Running { lease, .. }) = phase else { continue };
            let lease = *lease;
            let handed = self.leases.get(&lease).map_or(0, |lease| lease.tasks.len());
            let more = (self.limits.calls_ahead + 1).saturating_sub(handed);
            let calls: Vec<TaskId> = waiting.iter().take(more).copied().collect();
            if !calls.is_empty() {
                self.happen(now, Event::Assigned(lease, calls), events);
            }
        }
    }

    fn reuse_idle(&mut self, now: Timestamp, events: &mut Vec<Event>) {
        for lease in std::mem::take(&mut self.hints.idle) {
            let tasks = if self.may_reuse(now, lease) {
                self.next_for(lease, usize::MAX)
            } else {
                Vec::new()
            };
            if tasks.is_empty() {
                self.happen(now, Event::Released(lease), events);
            } else {
                self.happen(now, Event::Assigned(lease, tasks), events);
            }
        }
    }

    /// Whether a grant may go on to the next task of its class: nothing that ranks higher wants its
    /// room, and its cluster takes work.
    fn may_reuse(&self, now: Timestamp, id: LeaseId) -> bool {
        let Some(lease) = self.leases.get(&id) else { return false };
        let Some(class) = self.queue.get(lease.class) else { return false };
        let is_first = || {
            let mut ranked = self.queue.ranked().take(DEEPEN_CLASSES_MAX);
            let stop = ranked.find(|r| r.2 == lease.class || self.wants(r.2, lease.cluster));
            stop.is_some_and(|rank| rank.2 == lease.class)
        };
        class.shape.kind == Kind::Function
            && !class.pending.is_empty()
            && self.gives_more(now, lease.cluster, lease.node)
            && is_first()
    }

    /// Whether grants on this node may be given more tasks.
    fn gives_more(&self, now: Timestamp, cluster: ClusterId, node: NodeId) -> bool {
        let Some(cluster) = self.clusters.get(&cluster) else { return false };
        let half_open = cluster.breaker == crate::model::cluster::Breaker::HalfOpen;
        let alive = cluster.node(node).is_some_and(|node| node.alive);
        alive && !half_open && place::passing_objection(now, cluster, Kind::Function).is_none()
    }

    /// Whether a class may use a cluster; yes when that has not been looked at since nodes changed.
    fn wants(&self, class: ClassId, cluster: ClusterId) -> bool {
        self.queue.get(class).is_some_and(|class| {
            class.sites_of != Some(self.hints.fleet)
                || class.sites.iter().any(|site| site.cluster == cluster)
        })
    }

    /// The next tasks of its class that a grant may be given, at most `most`: one at least, then as
    /// many as are expected to run within the look-ahead.
    fn next_for(&self, id: LeaseId, most: usize) -> Vec<TaskId> {
        let Some(lease) = self.leases.get(&id) else { return Vec::new() };
        let Some(class) = self.queue.get(lease.class) else { return Vec::new() };
        let most = most.min(self.limits.lookahead_tasks.saturating_sub(lease.tasks.len()));
        let mut expected = lease.expected;
        let mut bytes = lease.bytes;
        let mut tasks = Vec::new();
        for task in class.pending.iter().take(most) {
            let first = tasks.is_empty() && lease.tasks.is_empty();
            let longer = expected.plus(self.expected_run(*task));
            bytes += self.task(*task).map_or(0, |task| task.payload.size());
            if !first && (longer > self.limits.lookahead || bytes > self.limits.lookahead_bytes) {
                break;
            }
            expected = longer;
            tasks.push(*task);
        }
        tasks
    }

    fn expected_run(&self, id: TaskId) -> Span {
        let unknown = self.limits.lookahead;
        let Some(spec) = self.task(id).and_then(|task| self.spec(task.spec)) else {
            return unknown;
        };
        match &spec.work {
            Work::Function(digest) => self.mean_run(digest).unwrap_or(unknown),
            Work::Actor(_) | Work::Call { .. } | Work::Job => unknown,
        }
    }

    fn place(&mut self, now: Timestamp, events: &mut Vec<Event>) {
        let freed = std::mem::take(&mut self.hints.freed);
        let mut cursor = None;
        while let Some((rank, blocked)) = self.next_class(cursor, &freed) {
            if blocked {
                cursor = Some(rank);
            }
            let id = rank.2;
            self.refresh_sites(id);
            let room = self.queue.get(id).and_then(|class| self.find_room(now, class));
            match room {
                Some((cluster, node)) => self.grant(now, rank, (cluster, node), events),
                None if blocked => self.wait_for_pause(now, id),
                None => {
                    self.wait_for_pause(now, id);
                    self.queue.change(id, |class| class.blocked = true);
                }
            }
        }
    }

    /// The class that goes next: ready, or blocked where something was freed that may help it.
    fn next_class(
        &self,
        cursor: Option<Rank>,
        freed: &BTreeSet<ClusterId>,
    ) -> Option<(Rank, bool)> {
        let ready = self.queue.first_ready();
        if freed.is_empty() {
            return ready.map(|rank| (rank, false));
        }
        let may_fit = |ask: &Resources| self.may_fit(ask, freed);
        let blocked = self.queue.next_blocked(cursor, may_fit, |id| self.may_help(id, freed));
        match (ready, blocked) {
            (Some(ready), Some(blocked)) if ready < blocked => Some((ready, false)),
            (_, Some(blocked)) => Some((blocked, true)),
            (ready, None) => ready.map(|rank| (rank, false)),
        }
    }

    /// Whether a request could fit where something was freed: never wrongly no.
    fn may_fit(&self, ask: &Resources, freed: &BTreeSet<ClusterId>) -> bool {
        freed.iter().any(|id| {
            self.clusters
                .get(id)
                .is_some_and(|cluster| cluster.groups.iter().any(|group| group.room.may_fit(ask)))
        })
    }

    /// Whether what was freed is where a class may go: never wrongly no.
    fn may_help(&self, id: ClassId, freed: &BTreeSet<ClusterId>) -> bool {
        self.queue.get(id).is_some_and(|class| {
            class.sites_of != Some(self.hints.fleet)
                || class.sites.iter().any(|site| freed.contains(&site.cluster))
        })
    }

    fn refresh_sites(&mut self, id: ClassId) {
        let fleet = self.hints.fleet;
        let Some(class) = self.queue.get(id).filter(|class| class.sites_of != Some(fleet)) else {
            return;
        };
        let sites = self.sites(&class.shape);
        self.queue.change(id, |class| {
            class.sites = sites;
            class.sites_of = Some(fleet);
        });
    }

    /// Gives the first task of a class its room.
    fn grant(
        &mut self,
        now: Timestamp,
        (_, task, _): Rank,
        (cluster, node): (ClusterId, NodeId),
        events: &mut Vec<Event>,
    ) {
        let Some(spec) = self.tasks.get(task).map(|task| task.spec) else { return };
        let lease = self.next.lease;
        self.happen(now, Event::Leased { lease, cluster, node, spec }, events);
        self.happen(now, Event::Assigned(lease, vec![task]), events);
    }

    /// A job that a cluster wants to pause before is looked at again when the pause is over.
    fn wait_for_pause(&mut self, now: Timestamp, id: ClassId) {
        let Some(class) = self.queue.get(id).filter(|class| class.shape.kind == Kind::Job) else {
            return;
        };
        let clusters = class.sites.iter().filter_map(|site| self.clusters.get(&site.cluster));
        let pauses = clusters.filter_map(|cluster| Some((place::job_pause(cluster)?, cluster.id)));
        let pauses: Vec<_> = pauses.filter(|(until, _)| *until > now).collect();
        self.hints.wakes.extend(pauses);
    }

    fn deepen(&mut self, now: Timestamp, events: &mut Vec<Event>) {
        if !std::mem::take(&mut self.hints.shallow) || !self.queue.any_shallow() {
            return;
        }
        let ranked: Vec<ClassId> =
            self.queue.ranked().take(DEEPEN_CLASSES_MAX).map(|rank| rank.2).collect();
        let mut claimed = BTreeSet::new();
        for id in ranked {
            self.deepen_class(now, id, &claimed, events);
            if let Some(class) = self.queue.get(id) {
                claimed.extend(class.sites.iter().map(|site| site.cluster));
            }
        }
    }

    /// Gives more to those grants of a class that will soon run dry, where nothing that ranks higher
    /// waits for their room.
    fn deepen_class(
        &mut self,
        now: Timestamp,
        id: ClassId,
        claimed: &BTreeSet<ClusterId>,
        events: &mut Vec<Event>,
    ) {
        let Some(class) = self.queue.get(id).filter(|c| c.shape.kind == Kind::Function) else {
            return;
        };
        let shallow: Vec<LeaseId> = class
            .shallow
            .iter()
            .map(|(_, lease)| *lease)
            .filter(|lease| {
                self.leases.get(lease).is_some_and(|lease| {
                    !claimed.contains(&lease.cluster)
                        && self.gives_more(now, lease.cluster, lease.node)
                })
            })
            .collect();
        let share = class.pending.len().div_ceil(shallow.len().max(1));
        for lease in shallow {
            let tasks = self.next_for(lease, share);
            if !tasks.is_empty() {
                self.happen(now, Event::Assigned(lease, tasks), events);
            }
        }
    }
}
