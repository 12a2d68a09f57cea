//! Free room on the nodes of one cluster, indexed so that a node that fits is found without
//! looking at all of them.
//!
//! Nodes are grouped by what never changes about them (labels, kinds of custom resource). A group
//! is a segment tree whose inner nodes hold the component-wise maximum of what is free below them:
//! a subtree that can't hold the request is skipped whole. The first fit from the left packs.

use crate::model::amount::{Amount, Resources};
use crate::model::id::NodeId;

/// CPU, GPU and memory: what the tree prunes by. Custom resources are looked at in the leaves.
type Peak = [Amount; 3];

fn peak(resources: &Resources) -> Peak {
    [resources.cpu, resources.gpu, resources.memory]
}

fn covers(peak: &Peak, ask: &Peak) -> bool {
    peak.iter().zip(ask).all(|(have, want)| have >= want)
}

/// A group of nodes with equal labels.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// A complete binary tree, root at 1; the leaves are the second half.
    tree: Vec<Peak>,
    nodes: Vec<NodeId>,
}

impl Room {
    /// Adds a node with nothing free, and returns its place.
    pub(crate) fn push(&mut self, node: NodeId) -> usize {
        let slot = self.nodes.len();
        self.nodes.push(node);
        if self.nodes.len() > self.width() {
            self.grow();
        }
        slot
    }

    /// Leaves that the tree has room for.
    fn width(&self) -> usize {
        self.tree.len() / 2
    }

    fn grow(&mut self) {
        let old = self.width();
        let width = (old * 2).max(1);
        let mut tree = vec![Peak::default(); width * 2];
        let leaves = self.tree.iter().skip(old).take(old);
        for (to, from) in tree.iter_mut().skip(width).zip(leaves) {
            *to = *from;
        }
        self.tree = tree;
        for at in (1..width).rev() {
            self.pull(at);
        }
    }

    fn at(&self, index: usize) -> Peak {
        self.tree.get(index).copied().unwrap_or_default()
    }

    fn pull(&mut self, at: usize) {
        let (left, right) = (self.at(at * 2), self.at(at * 2 + 1));
        let mut both = left;
        for (have, other) in both.iter_mut().zip(right) {
            *have = (*have).max(other);
        }
        if let Some(place) = self.tree.get_mut(at) {
            *place = both;
        }
    }

    /// Says what is free on the node at `slot` now.
    pub(crate) fn set(&mut self, slot: usize, free: &Resources) {
        let mut at = self.width() + slot;
        if let Some(leaf) = self.tree.get_mut(at) {
            *leaf = peak(free);
        }
        while at > 1 {
            at /= 2;
            self.pull(at);
        }
    }

    /// Whether some node may have room: never wrongly no.
    pub(crate) fn may_fit(&self, ask: &Resources) -> bool {
        covers(&self.at(1), &peak(ask))
    }

    /// The leftmost node that has room for `ask`; `exact` judges what the tree does not know.
    pub(crate) fn find(
        &self,
        ask: &Resources,
        exact: &mut dyn FnMut(NodeId) -> bool,
    ) -> Option<NodeId> {
        self.find_below(1, &peak(ask), exact)
    }

    fn find_below(
        &self,
        at: usize,
        ask: &Peak,
        exact: &mut dyn FnMut(NodeId) -> bool,
    ) -> Option<NodeId> {
        if at == 0 || at >= self.tree.len() || !covers(&self.at(at), ask) {
            return None;
        }
        let width = self.width();
        if at >= width {
            return self.nodes.get(at - width).copied().filter(|node| exact(*node));
        }
        self.find_below(at * 2, ask, exact).or_else(|| self.find_below(at * 2 + 1, ask, exact))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resources(cpu: u32, gpu: u32) -> Resources {
        Resources { gpu: Amount::whole(gpu), ..Resources::cpus(Amount::whole(cpu)) }
    }

    proptest! {
        #[test]
        fn the_tree_finds_what_a_scan_finds(
            free in prop::collection::vec((0_u32..8, 0_u32..4), 0..40),
            asks in prop::collection::vec((0_u32..8, 0_u32..4), 1..20),
        ) {
            let mut room = Room::default();
            for (index, (cpu, gpu)) in free.iter().enumerate() {
                let slot = room.push(NodeId(u32::try_from(index).unwrap()));
                room.set(slot, &resources(*cpu, *gpu));
            }
            for (cpu, gpu) in asks {
                let ask = resources(cpu, gpu);
                let scan = free.iter().position(|(c, g)| resources(*c, *g).covers(&ask));
                let found = room.find(&ask, &mut |_| true).map(|node| usize::try_from(node.0).unwrap());
                prop_assert_eq!(found, scan);
                prop_assert!(scan.is_none() || room.may_fit(&ask));
            }
        }
    }
}
