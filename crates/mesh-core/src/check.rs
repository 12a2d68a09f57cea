//! The invariants of a whole mesh. Run by every test, by the simulator, and at recovery.

use std::collections::BTreeMap;

use crate::mesh::{Counts, Mesh};
use crate::model::amount::Resources;
use crate::model::id::{ClusterId, NodeId, TaskId};
use crate::model::task::{Phase, Work};
use crate::model::time::Span;

impl Mesh {
    /// Looks at everything and says what is wrong, in sentences; `Ok` when nothing is.
    pub fn check(&self) -> Result<(), Vec<String>> {
        let mut wrong = Vec::new();
        self.check_ledger(&mut wrong);
        self.check_leases(&mut wrong);
        self.check_tasks(&mut wrong);
        self.check_queue(&mut wrong);
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// Every account is the sum of its grants, and the index over free room is true.
    fn check_ledger(&self, wrong: &mut Vec<String>) {
        let mut sums: BTreeMap<(ClusterId, NodeId), Resources> = BTreeMap::new();
        for lease in self.leases.values() {
            sums.entry((lease.cluster, lease.node)).or_default().put(&lease.ask);
        }
        for cluster in self.clusters.values() {
            let mut free = Resources::NONE;
            for (node, number) in cluster.nodes.iter().zip(0..) {
                let id = NodeId(number);
                let sum = sums.remove(&(cluster.id, id)).unwrap_or_default();
                if sum != node.leased {
                    wrong.push(format!(
                        "{} {id}: leased {}, grants {sum}",
                        cluster.name, node.leased
                    ));
                }
                if node.free != node.free_by_account() {
                    wrong.push(format!("{} {id}: free is not what the account says", cluster.name));
                }
                free.put(&node.free);
                self.check_index(cluster.id, id, wrong);
            }
            if free != cluster.free {
                wrong.push(format!("{}: free {}, nodes {free}", cluster.name, cluster.free));
            }
        }
        wrong.extend(
            sums.keys().map(|(cluster, node)| format!("a grant on no node: {cluster} {node}")),
        );
    }

    fn check_index(&self, cluster: ClusterId, id: NodeId, wrong: &mut Vec<String>) {
        let Some(cluster) = self.clusters.get(&cluster) else { return };
        let Some(node) = cluster.node(id) else { return };
        let Some(group) = cluster.groups.get(node.slot.0) else {
            return wrong.push(format!("{} {id} is in no group", cluster.name));
        };
        let found = group.room.find(&node.free, &mut |other| other == id);
        if found != Some(id) {
            wrong.push(format!("{} {id}: the index does not find its free room", cluster.name));
        }
    }

    fn check_leases(&self, wrong: &mut Vec<String>) {
        for (id, lease) in &self.leases {
            let expected =
                lease.tasks.values().fold(Span::ZERO, |sum, expected| sum.plus(*expected));
            if expected != lease.expected {
                wrong.push(format!("{id}: expects {}, its tasks {expected}", lease.expected));
            }
            let bytes = lease.tasks.keys().filter_map(|task| self.task(*task));
            let bytes: u64 = bytes.map(|task| task.payload.size()).sum();
            if bytes != lease.bytes {
                wrong.push(format!("{id}: counts {} bytes, its tasks {bytes}", lease.bytes));
            }
            if lease.tasks.is_empty() && !self.hints.idle.contains(id) {
                wrong.push(format!("{id} has no task and is not known to be idle"));
            }
            let cluster = self.clusters.get(&lease.cluster);
            if !cluster.is_some_and(|cluster| cluster.leases.contains(id)) {
                wrong.push(format!("{id} is not known to its cluster"));
            }
            let class = self.queue.get(lease.class);
            let shallow = class.is_some_and(|class| class.shallow.contains(&(lease.expected, *id)));
            if class.is_none() || shallow != (lease.expected <= self.limits.soon_dry()) {
                wrong.push(format!("{id} is not known to its class as it is"));
            }
            for task in lease.tasks.keys() {
                let spec = self.task(*task).and_then(|task| self.spec(task.spec));
                if let Some(Work::Call { actor, .. }) = spec.map(|spec| &spec.work)
                    && !lease.tasks.contains_key(actor)
                {
                    wrong.push(format!("{id} has {task}, and not {actor}, which that calls"));
                }
                let holder = self.task(*task).and_then(|task| task.phase.lease());
                if holder != Some(*id) {
                    wrong.push(format!("{id} has {task}, which has {holder:?}"));
                }
            }
        }
        for cluster in self.clusters.values() {
            for id in cluster.leases.iter().filter(|id| !self.leases.contains_key(id)) {
                wrong.push(format!("{}: {id} is no grant", cluster.name));
            }
        }
    }

    fn check_tasks(&self, wrong: &mut Vec<String>) {
        let mut counts = Counts::default();
        for task in self.tasks.iter() {
            counts.add(&task.phase);
            if self.keys.get(&task.key) != Some(&task.id) {
                wrong.push(format!("{} is not found by its key", task.id));
            }
            if !self.specs.contains_key(&task.spec) {
                wrong.push(format!("{} has no specification", task.id));
            }
            if let Some(lease) = task.phase.lease()
                && !self.leases.get(&lease).is_some_and(|lease| lease.tasks.contains_key(&task.id))
            {
                wrong.push(format!("{} is not known to its {lease}", task.id));
            }
            if let Phase::Ended(end) = &task.phase
                && !self.ended.contains(&(end.at, task.id))
            {
                wrong.push(format!("{} ended and would never be forgotten", task.id));
            }
        }
        if counts != self.counts {
            wrong.push(format!("counts {:?}, tasks {counts:?}", self.counts));
        }
        if self.keys.len() != self.tasks.len() {
            wrong.push(format!("{} keys for {} tasks", self.keys.len(), self.tasks.len()));
        }
    }

    /// A task waits in its class exactly when it is queued.
    fn check_queue(&self, wrong: &mut Vec<String>) {
        let mut waiting: BTreeMap<TaskId, usize> = BTreeMap::new();
        let classes = self.queue.iter().flat_map(|(_, class)| &class.pending);
        for task in classes.chain(self.calls.values().flatten()) {
            *waiting.entry(*task).or_default() += 1;
        }
        for task in self.tasks.iter() {
            let times = waiting.remove(&task.id).unwrap_or_default();
            let expected = usize::from(task.phase == Phase::Queued);
            if times != expected {
                wrong.push(format!("{} waits {times} times, should {expected}", task.id));
            }
        }
        wrong.extend(waiting.keys().map(|task| format!("{task} waits and is no task")));
        for (id, class) in self.queue.iter() {
            let grants = self.leases.values().filter(|lease| lease.class == id).count();
            if grants != class.grants || class.shallow.len() > grants {
                wrong.push(format!("{id} counts {} grants, has {grants}", class.grants));
            }
        }
        for (id, class) in self.queue.iter().filter(|(_, class)| !class.pending.is_empty()) {
            let times = self.queue.ranked().filter(|rank| rank.2 == id).count();
            if times != 1 {
                wrong.push(format!("{id} is ranked {times} times, blocked {}", class.blocked));
            }
        }
    }
}
