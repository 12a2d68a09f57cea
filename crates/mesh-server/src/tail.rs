//! The end of the journal, kept in memory for those who follow it, and the way to join it: old
//! events from the store first, then those that come, without a gap.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh_api::problem::Problem;
use mesh_core::bug::{self, Bug};
use mesh_store::{Entry, Seq};
use tokio::sync::watch;

use crate::driver::ask::Ask;
use crate::handle::{Handle, stopped};

/// Most events that are kept in memory.
const EVENTS_MAX: usize = 20_000;

/// The newest entries of the journal.
#[derive(Debug)]
pub struct Tail {
    kept: Mutex<Kept>,
    last: watch::Sender<Seq>,
    folded: AtomicU64,
}

#[derive(Debug, Default)]
struct Kept {
    entries: VecDeque<Arc<Entry>>,
    events: usize,
    trouble: Option<Problem>,
}

impl Tail {
    /// A tail whose last durable event is the one, and the last event in the snapshot the other.
    pub(crate) fn new(last: Seq, folded: Seq) -> Self {
        let folded = AtomicU64::new(folded);
        Self { kept: Mutex::default(), last: watch::Sender::new(last), folded }
    }

    /// Shows an entry that is durable.
    pub(crate) fn push(&self, entry: Entry) {
        let last = entry.last();
        let mut kept = self.lock();
        kept.events += entry.events.len();
        kept.entries.push_back(Arc::new(entry));
        while kept.events > EVENTS_MAX {
            let Some(oldest) = kept.entries.pop_front() else { break };
            kept.events -= oldest.events.len();
        }
        drop(kept);
        self.last.send_replace(last);
    }

    /// The number of the last durable event.
    pub fn last(&self) -> Seq {
        *self.last.borrow()
    }

    /// The number of the last event that the snapshot includes.
    pub(crate) fn folded(&self) -> Seq {
        self.folded.load(Ordering::Relaxed)
    }

    /// Takes note of a new snapshot.
    pub(crate) fn set_folded(&self, folded: Seq) {
        self.folded.store(folded, Ordering::Relaxed);
    }

    /// Why nothing can be changed at the moment.
    pub fn trouble(&self) -> Option<Problem> {
        self.lock().trouble.clone()
    }

    /// Says why nothing can be changed at the moment.
    pub(crate) fn set_trouble(&self, trouble: Option<Problem>) {
        self.lock().trouble = trouble;
    }

    /// The entry that holds the event after `after`; `None` when it is too old to be here.
    fn entry_after(&self, after: Seq) -> Option<Arc<Entry>> {
        let kept = self.lock();
        let index = kept.entries.partition_point(|entry| entry.last() <= after);
        kept.entries.get(index).filter(|entry| entry.first <= after + 1).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far somebody has followed the journal, and what was read for him from the store.
#[derive(Debug)]
pub struct Cursor {
    after: Seq,
    old: VecDeque<Entry>,
}

/// What a cursor comes to next.
#[derive(Debug)]
pub enum Next {
    /// Events that were committed together.
    Entry(Arc<Entry>),
    /// What comes next is no longer in memory: [`Cursor::after`] is to be read from the store.
    Old,
    /// Nothing yet.
    End,
}

impl Cursor {
    /// A cursor at the event `after`.
    pub fn new(after: Seq) -> Self {
        Self { after, old: VecDeque::new() }
    }

    /// The last event that it passed.
    pub fn after(&self) -> Seq {
        self.after
    }

    /// Takes in what was read from the store after [`Cursor::after`].
    pub fn feed(&mut self, entries: Vec<Entry>) {
        self.old.extend(entries);
        if bug::is(Bug::SkipCursor) {
            self.after += 1;
        }
    }

    /// Goes on to the next entry, when there is one.
    pub fn advance(&mut self, tail: &Tail) -> Next {
        if let Some(entry) = self.old.pop_front() {
            return Next::Entry(self.pass(Arc::new(entry)));
        }
        if self.after >= tail.last() {
            return Next::End;
        }
        tail.entry_after(self.after).map_or(Next::Old, |entry| Next::Entry(self.pass(entry)))
    }

    /// What of an entry is new.
    fn pass(&mut self, entry: Arc<Entry>) -> Arc<Entry> {
        let seen = usize::try_from((self.after + 1).saturating_sub(entry.first)).unwrap_or(0);
        let first = entry.first.max(self.after + 1);
        self.after = entry.last();
        if seen == 0 {
            return entry;
        }
        let events = entry.events.iter().skip(seen).cloned().collect();
        Arc::new(Entry { first, at: entry.at, events })
    }
}

/// The events after a number, for as long as one likes.
#[derive(Debug)]
pub struct EventStream {
    handle: Handle,
    last: watch::Receiver<Seq>,
    cursor: Cursor,
}

impl EventStream {
    /// Follows the journal from the event after `after`.
    pub(crate) async fn open(handle: Handle, after: Seq) -> Result<Self, Problem> {
        let last = handle.shared.tail.last.subscribe();
        let mut stream = Self { handle, last, cursor: Cursor::new(after) };
        let tail = &stream.handle.shared.tail;
        if after != tail.last() && tail.entry_after(after).is_none() {
            stream.load().await?; // so that a cursor that can't be followed is refused at once
        }
        Ok(stream)
    }

    /// The next events, as they were committed together; waits for them. Cancelling loses nothing.
    pub async fn next(&mut self) -> Result<Arc<Entry>, Problem> {
        loop {
            self.last.mark_unchanged();
            match self.cursor.advance(&self.handle.shared.tail) {
                Next::Entry(entry) => return Ok(entry),
                Next::Old => self.load().await?,
                Next::End => self.last.changed().await.map_err(|_closed| stopped())?,
            }
        }
    }

    async fn load(&mut self) -> Result<(), Problem> {
        let after = self.cursor.after();
        let entries = self.handle.ask(0, |reply| Ask::Replay { after, reply }).await?;
        self.cursor.feed(entries);
        Ok(())
    }
}
