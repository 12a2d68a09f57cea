//! The queue: tasks that wait for room, by class, and classes by rank.
//!
//! All tasks of a class have equal needs, so if the first has no room none has, and ten thousand
//! of them cost one look. A class is *ready* until a look finds no room, then *blocked* until
//! something happens that could help it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::model::amount::Resources;
use crate::model::id::{ClassId, ClusterId, LeaseId, TaskId};
use crate::model::priority::Priority;
use crate::model::task::Shape;
use crate::model::time::Span;

/// The order of classes: priority first, then the first task that was submitted.
pub(crate) type Rank = (Reverse<Priority>, TaskId, ClassId);

/// What makes tasks equal: their shape, and the cluster that is their last choice after it lost them.
pub(crate) type ClassKey = (Shape, Option<ClusterId>);

/// Tasks with equal needs.
#[derive(Debug)]
pub(crate) struct Class {
    pub(crate) shape: Shape,
    pub(crate) avoid: Option<ClusterId>,
    /// How many specifications have this shape.
    pub(crate) specs: usize,
    /// The tasks that wait, in the order in which they go.
    pub(crate) pending: BTreeSet<TaskId>,
    /// How many grants it has.
    pub(crate) grants: usize,
    /// Those of its grants that will soon run dry, by how long what they were given is expected to run.
    pub(crate) shallow: BTreeSet<(Span, LeaseId)>,
    /// Whether a look found no room, and nothing has happened since that could help.
    pub(crate) blocked: bool,
    /// Where it may go, and the version of the fleet of which that is true.
    pub(crate) sites: Vec<Site>,
    pub(crate) sites_of: Option<u64>,
}

/// A cluster that a class may use, and the groups of its nodes that satisfy its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    pub(crate) cluster: ClusterId,
    pub(crate) groups: Vec<usize>,
}

impl Class {
    fn rank(&self, id: ClassId) -> Option<Rank> {
        self.pending.first().map(|head| (Reverse(self.shape.priority), *head, id))
    }
}

/// Every class, and the order in which they go.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    classes: BTreeMap<ClassId, Class>,
    by_key: BTreeMap<ClassKey, ClassId>,
    ready: BTreeSet<Rank>,
    /// Blocked classes by what they ask for: distinct requests are few, however many classes there
    /// are, so what was freed is compared with requests and not with classes.
    blocked: BTreeMap<Resources, BTreeSet<Rank>>,
    /// Classes that wait and have a grant that will soon run dry.
    shallow: BTreeSet<ClassId>,
    next: ClassId,
}

impl Queue {
    /// The class of this key, made when it is new.
    pub(crate) fn class_for(&mut self, shape: &Shape, avoid: Option<ClusterId>) -> ClassId {
        let key = (shape.clone(), avoid);
        if let Some(id) = self.by_key.get(&key) {
            return *id;
        }
        let id = self.next;
        self.next = id.next();
        let class = Class {
            shape: shape.clone(),
            avoid,
            specs: 0,
            pending: BTreeSet::new(),
            grants: 0,
            shallow: BTreeSet::new(),
            blocked: false,
            sites: Vec::new(),
            sites_of: None,
        };
        self.classes.insert(id, class);
        self.by_key.insert(key, id);
        id
    }

    pub(crate) fn get(&self, id: ClassId) -> Option<&Class> {
        self.classes.get(&id)
    }

    pub(crate) fn find(&self, shape: &Shape, avoid: Option<ClusterId>) -> Option<ClassId> {
        self.by_key.get(&(shape.clone(), avoid)).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ClassId, &Class)> {
        self.classes.iter().map(|(id, class)| (*id, class))
    }

    /// Changes a class, and moves it to where it ranks after the change.
    pub(crate) fn change(&mut self, id: ClassId, change: impl FnOnce(&mut Class)) {
        let Some(class) = self.classes.get_mut(&id) else { return };
        let (rank, blocked) = (class.rank(id), class.blocked);
        change(class);
        // What is found of an empty class says nothing of the tasks that will come.
        class.blocked &= !class.pending.is_empty();
        let (new_rank, new_blocked) = (class.rank(id), class.blocked);
        if class.shallow.is_empty() || class.pending.is_empty() {
            self.shallow.remove(&id);
        } else {
            self.shallow.insert(id);
        }
        if rank == new_rank && blocked == new_blocked {
            return;
        }
        let ask = &class.shape.resources;
        if let Some(rank) = rank {
            match (blocked, self.blocked.get_mut(ask)) {
                (false, _) => drop(self.ready.remove(&rank)),
                (true, Some(ranks)) if ranks.len() > 1 => drop(ranks.remove(&rank)),
                (true, _) => drop(self.blocked.remove(ask)),
            }
        }
        if let Some(rank) = new_rank {
            if new_blocked {
                self.blocked.entry(ask.clone()).or_default().insert(rank);
            } else {
                self.ready.insert(rank);
            }
        }
    }

    /// Drops a class that nothing refers to any more.
    pub(crate) fn drop_unused(&mut self, id: ClassId) {
        let unused =
            |class: &Class| class.specs == 0 && class.pending.is_empty() && class.grants == 0;
        if let Some(class) = self.classes.get(&id)
            && unused(class)
        {
            self.by_key.remove(&(class.shape.clone(), class.avoid));
            self.classes.remove(&id);
        }
    }

    /// The first class that has not been found to have no room.
    pub(crate) fn first_ready(&self) -> Option<Rank> {
        self.ready.first().copied()
    }

    /// The first blocked class after `cursor` whose request may fit and that may be helped.
    pub(crate) fn next_blocked(
        &self,
        cursor: Option<Rank>,
        may_fit: impl Fn(&Resources) -> bool,
        may_help: impl Fn(ClassId) -> bool,
    ) -> Option<Rank> {
        let from = cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let fitting = self.blocked.iter().filter(|(ask, _)| may_fit(ask));
        let first = |ranks: &BTreeSet<Rank>| {
            ranks.range((from, Bound::Unbounded)).find(|rank| may_help(rank.2)).copied()
        };
        fitting.filter_map(|(_, ranks)| first(ranks)).min()
    }

    /// Whether some class waits and has a grant that will soon run dry.
    pub(crate) fn any_shallow(&self) -> bool {
        !self.shallow.is_empty()
    }

    /// All classes with waiting tasks, in rank order.
    pub(crate) fn ranked(&self) -> impl Iterator<Item = Rank> {
        let mut heads: BTreeSet<(Rank, Option<&Resources>)> = BTreeSet::new();
        heads.extend(self.ready.first().map(|rank| (*rank, None)));
        let blocked = self.blocked.iter();
        heads.extend(blocked.filter_map(|(ask, ranks)| Some((*ranks.first()?, Some(ask)))));
        std::iter::from_fn(move || {
            let (rank, ask) = heads.pop_first()?;
            let ranks = ask.map_or(Some(&self.ready), |ask| self.blocked.get(ask));
            let after = (Bound::Excluded(rank), Bound::Unbounded);
            let next = ranks.and_then(|ranks| ranks.range(after).next());
            heads.extend(next.map(|next| (*next, ask)));
            Some(rank)
        })
    }
}
