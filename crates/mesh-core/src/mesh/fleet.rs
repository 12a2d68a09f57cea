//! Clusters and nodes: the account of each node, and the index over them.

use std::collections::{BTreeMap, BTreeSet};

use super::{ClusterState, Group, GroupKey, NodeState};
use crate::bug::{self, Bug};
use crate::model::amount::Resources;
use crate::model::cluster::{Breaker, ClusterSpec, Link, NodeFacts};
use crate::model::id::{ClusterId, ClusterName, NodeId, TaskId};
use crate::model::time::Timestamp;
use crate::schedule::room::Room;

impl ClusterState {
    pub(super) fn new(
        id: ClusterId,
        name: ClusterName,
        spec: ClusterSpec,
        since: Timestamp,
    ) -> Self {
        Self {
            id,
            name,
            spec,
            link: Link::Awaited { since },
            agent: None,
            draining: false,
            breaker: Breaker::Closed,
            nodes: Vec::new(),
            last_job: None,
            leases: BTreeSet::new(),
            groups: Vec::new(),
            group_ids: BTreeMap::new(),
            total: Resources::NONE,
            free: Resources::NONE,
        }
    }

    /// Takes note of a node. Returns whether that changes which tasks could ever run here.
    pub(super) fn see_node(&mut self, id: NodeId, alive: bool, facts: &NodeFacts) -> bool {
        let Some(node) = self.node_mut(id) else {
            self.nodes.push(NodeState {
                facts: facts.clone(),
                alive,
                leased: Resources::NONE,
                leases: 0,
                free: Resources::NONE,
                slot: (usize::MAX, 0),
            });
            self.join_group(id);
            self.recount();
            return true;
        };
        let moved = node.facts.labels != facts.labels
            || !node.facts.total.custom.keys().eq(facts.total.custom.keys());
        let structural = moved || node.alive != alive || node.facts.total != facts.total;
        node.facts = facts.clone();
        node.alive = alive;
        if moved {
            self.leave_group(id);
            self.join_group(id);
        }
        self.refresh(id);
        if structural {
            self.resize(id);
            self.recount();
        }
        structural
    }

    /// Groups all nodes anew, after the cluster's own labels changed.
    pub(super) fn regroup(&mut self) {
        self.groups.clear();
        self.group_ids.clear();
        for (_, number) in (0..self.nodes.len()).zip(0_u32..) {
            self.join_group(NodeId(number));
        }
    }

    fn group_key(&self, node: &NodeState) -> GroupKey {
        let mut labels = self.spec.labels.clone();
        labels.extend(node.facts.labels.clone());
        (labels, node.facts.total.custom.keys().cloned().collect())
    }

    fn join_group(&mut self, id: NodeId) {
        let Some(node) = self.node(id) else { return };
        let key = self.group_key(node);
        let next = self.groups.len();
        let index = *self.group_ids.entry(key.clone()).or_insert(next);
        if index == next {
            let (room, size) = (Room::default(), Room::default());
            self.groups.push(Group { labels: key.0, room, size });
        }
        if let Some(group) = self.groups.get_mut(index) {
            let slot = group.room.push(id);
            group.size.push(id);
            if let Some(node) = self.node_mut(id) {
                node.slot = (index, slot);
            }
        }
        self.resize(id);
        self.refresh(id);
    }

    fn leave_group(&mut self, id: NodeId) {
        let Some((index, slot)) = self.node(id).map(|node| node.slot) else { return };
        if let Some(group) = self.groups.get_mut(index) {
            group.room.set(slot, &Resources::NONE);
            group.size.set(slot, &Resources::NONE);
        }
    }

    fn recount(&mut self) {
        let mut total = Resources::NONE;
        for node in self.nodes.iter().filter(|node| node.alive) {
            total.put(&node.facts.total);
        }
        self.total = total;
    }

    /// Brings what is kept about the size of a node in line with what its agent says.
    fn resize(&mut self, id: NodeId) {
        let Some(node) = self.node(id) else { return };
        let total = if node.alive { node.facts.total.clone() } else { Resources::NONE };
        let (group, slot) = node.slot;
        if let Some(group) = self.groups.get_mut(group) {
            group.size.set(slot, &total);
        }
    }

    /// Brings what is kept about free room in line with the account of a node.
    fn refresh(&mut self, id: NodeId) {
        let Some(node) = self.node_mut(id) else { return };
        let free = node.free_by_account();
        let before = std::mem::replace(&mut node.free, free.clone());
        let (group, slot) = node.slot;
        if let Some(group) = self.groups.get_mut(group) {
            group.room.set(slot, &free);
        }
        self.free = self.free.minus_or_zero(&before);
        self.free.put(&free);
    }

    /// Enters a grant into the account of a node.
    pub(super) fn grant(&mut self, id: NodeId, ask: &Resources) {
        if let Some(node) = self.node_mut(id) {
            node.leased.put(ask);
            node.leases += 1;
        }
        self.refresh(id);
    }

    /// Takes a grant out of the account of a node.
    pub(super) fn give_back(&mut self, id: NodeId, ask: &Resources) {
        if let Some(node) = self.node_mut(id) {
            let taken = node.leased.take(ask);
            debug_assert!(
                taken.is_ok() || bug::is(Bug::ReleaseTwice),
                "a grant was given back that was not in the account"
            );
            node.leases = node.leases.saturating_sub(1);
        }
        self.refresh(id);
    }

    /// A task started here: what failed before does not count any more.
    pub(super) fn start_succeeded(&mut self, task: TaskId) {
        match &self.breaker {
            Breaker::Counting { .. } => self.breaker = Breaker::Closed,
            Breaker::Probing { task: probe } if *probe == task => self.breaker = Breaker::Closed,
            Breaker::Closed
            | Breaker::Probing { .. }
            | Breaker::Open { .. }
            | Breaker::HalfOpen => {}
        }
    }

    /// A task failed to start here.
    pub(super) fn start_failed(&mut self) {
        match &self.breaker {
            Breaker::Closed => self.breaker = Breaker::Counting { failures: 1 },
            Breaker::Counting { failures } => {
                self.breaker = Breaker::Counting { failures: failures + 1 };
            }
            Breaker::Probing { .. } | Breaker::Open { .. } | Breaker::HalfOpen => {}
        }
    }

    /// A task left without having shown whether work can start here.
    pub(super) fn probe_left(&mut self, task: TaskId) {
        if self.breaker == (Breaker::Probing { task }) {
            self.breaker = Breaker::HalfOpen;
        }
    }
}
