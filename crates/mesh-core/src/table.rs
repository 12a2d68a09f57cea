//! Tasks by number. Numbers are dense and only grow, so a page of neighbours costs one look-up in
//! a tree that is a hundred times smaller than one of single tasks.

use std::collections::BTreeMap;

use crate::model::id::TaskId;
use crate::model::task::Task;

/// Tasks in one page: a power of two.
const PAGE: u64 = 64;

/// Tasks by number.
#[derive(Debug, Default)]
pub(crate) struct TaskTable {
    pages: BTreeMap<u64, Page>,
    len: usize,
}

#[derive(Debug, Default)]
struct Page {
    slots: Vec<Option<Task>>,
    live: usize,
}

fn place(id: TaskId) -> (u64, usize) {
    (id.0 / PAGE, usize::try_from(id.0 % PAGE).unwrap_or_default())
}

impl TaskTable {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, id: TaskId) -> Option<&Task> {
        let (page, slot) = place(id);
        self.pages.get(&page)?.slots.get(slot)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: TaskId) -> Option<&mut Task> {
        let (page, slot) = place(id);
        self.pages.get_mut(&page)?.slots.get_mut(slot)?.as_mut()
    }

    pub(crate) fn insert(&mut self, task: Task) {
        let (number, slot) = place(task.id);
        let page = self.pages.entry(number).or_default();
        if page.slots.len() <= slot {
            page.slots.resize_with(slot + 1, || None);
        }
        if let Some(place) = page.slots.get_mut(slot)
            && place.replace(task).is_none()
        {
            page.live += 1;
            self.len += 1;
        }
    }

    pub(crate) fn remove(&mut self, id: TaskId) -> Option<Task> {
        let (number, slot) = place(id);
        let page = self.pages.get_mut(&number)?;
        let task = page.slots.get_mut(slot)?.take()?;
        page.live -= 1;
        self.len -= 1;
        if page.live == 0 {
            self.pages.remove(&number);
        }
        Some(task)
    }

    /// All tasks, oldest first.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Task> {
        self.pages.values().flat_map(|page| page.slots.iter().flatten())
    }

    /// Tasks with a number below `bound`, newest first.
    pub(crate) fn before(&self, bound: TaskId) -> impl Iterator<Item = &Task> {
        self.pages
            .range(..=bound.0 / PAGE)
            .rev()
            .flat_map(|(_, page)| page.slots.iter().flatten().rev())
            .filter(move |task| task.id < bound)
    }
}
