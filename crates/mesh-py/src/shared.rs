//! The desk behind a lock: Python threads put submissions in and take news out, the link does the
//! opposite. Nobody waits for the network here, only for room, for news, or for the link to be up.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mesh_api::problem::Problem;
use tokio::sync::Notify;

use crate::desk::{Desk, Event, Submission};

/// Most submissions that are not accepted yet; a submitter waits while there are as many.
const UNACCEPTED_MAX: usize = 32_768;

/// Most bytes of them.
const UNACCEPTED_BYTES_MAX: usize = 64 << 20;

/// The link stops reading while more bytes of news than this wait for Python.
const EVENTS_BYTES_MAX: usize = 64 << 20;

/// How the link is.
#[derive(Clone, Debug)]
pub(crate) enum LinkState {
    /// Not up yet, or not any more; why, when a try has failed.
    Down(Option<Problem>),
    /// Up.
    Up {
        /// More bytes than this travel as a blob.
        inline_max: usize,
    },
    /// The server wants nothing to do with us.
    Refused(Problem),
    /// Closed by the user.
    Closed,
}

/// What the lock guards.
#[derive(Debug)]
pub(crate) struct Guarded {
    pub(crate) desk: Desk,
    pub(crate) link: LinkState,
    /// No submission before this instant: the server asked for a pause.
    pub(crate) paused_until: Option<Instant>,
}

/// The desk, its lock, and the bells.
#[derive(Debug)]
pub(crate) struct Shared {
    guarded: Mutex<Guarded>,
    /// Rings when something changed for a thread that waits: room, news, acceptance, the link.
    changed: Condvar,
    /// Rings when the link has something to send.
    pub(crate) outgoing: Notify,
    /// Rings when Python has taken the news.
    pub(crate) taken: Notify,
    /// Rings when it makes sense to dial at once.
    pub(crate) redial: Notify,
}

/// What came of an attempt to submit.
pub(crate) enum Offer {
    /// Taken in.
    Taken,
    /// No room within the time; here it is back.
    Full(Box<Submission>),
    /// The client is closed or was refused.
    Never(Problem),
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self {
            guarded: Mutex::new(Guarded {
                desk: Desk::default(),
                link: LinkState::Down(None),
                paused_until: None,
            }),
            changed: Condvar::new(),
            outgoing: Notify::new(),
            taken: Notify::new(),
            redial: Notify::new(),
        }
    }

    /// The state, locked. Whoever panicked while holding it left it consistent enough to end: every
    /// method of the desk completes one step.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Guarded> {
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes all threads that wait for something to change.
    pub(crate) fn announce(&self) {
        self.changed.notify_all();
    }

    /// Waits until `test` answers or the time is over.
    pub(crate) fn wait_for<T>(
        &self,
        timeout: Duration,
        mut test: impl FnMut(&mut Guarded) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + timeout;
        let mut guarded = self.lock();
        loop {
            if let Some(found) = test(&mut guarded) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let waited = self.changed.wait_timeout(guarded, left);
            guarded = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes a submission in if there is room now.
    pub(crate) fn offer(&self, submission: Submission) -> Offer {
        let mut guarded = self.lock();
        if let Some(problem) = guarded.over() {
            return Offer::Never(problem);
        }
        if !guarded.has_room() {
            return Offer::Full(Box::new(submission));
        }
        guarded.desk.submit(submission);
        drop(guarded);
        self.outgoing.notify_one();
        Offer::Taken
    }

    /// Waits for room; `true` when there may be some.
    pub(crate) fn wait_for_room(&self, timeout: Duration) -> bool {
        let room =
            |guarded: &mut Guarded| (guarded.over().is_some() || guarded.has_room()).then_some(());
        self.wait_for(timeout, room).is_some()
    }

    /// The news, as soon as there are some; empty when the time is over, `None` when there will be
    /// no more.
    pub(crate) fn next_events(&self, timeout: Duration) -> Option<Vec<Event>> {
        let news = |guarded: &mut Guarded| {
            if guarded.desk.has_events() {
                return Some(Some(guarded.desk.take_events()));
            }
            matches!(guarded.link, LinkState::Closed).then_some(None)
        };
        let events = self.wait_for(timeout, news).unwrap_or_else(|| Some(Vec::new()));
        if events.as_ref().is_some_and(|events| !events.is_empty()) {
            self.taken.notify_one();
        }
        events
    }

    /// Changes how the link is, unless that is final.
    pub(crate) fn set_link(&self, link: LinkState) {
        let mut guarded = self.lock();
        if !matches!(guarded.link, LinkState::Refused(_) | LinkState::Closed) {
            guarded.link = link;
        }
        drop(guarded);
        self.announce();
    }

    /// The server refused us for good: nothing that is under way will be heard of.
    pub(crate) fn refuse(&self, problem: Problem) {
        let mut guarded = self.lock();
        guarded.desk.refuse_all(&problem);
        guarded.link = LinkState::Refused(problem);
        drop(guarded);
        self.announce();
    }

    /// Ends everything.
    pub(crate) fn close(&self) {
        let mut guarded = self.lock();
        guarded.desk.refuse_all(&closed());
        guarded.link = LinkState::Closed;
        drop(guarded);
        self.announce();
        self.outgoing.notify_one();
        self.taken.notify_one();
        self.redial.notify_one();
    }

    /// Whether the user closed the client.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.lock().link, LinkState::Closed)
    }

    /// Waits while Python lags behind.
    pub(crate) async fn wait_for_reader(&self) {
        loop {
            {
                let guarded = self.lock();
                let lags = guarded.desk.events_bytes() > EVENTS_BYTES_MAX;
                if !lags || matches!(guarded.link, LinkState::Closed) {
                    return;
                }
            }
            self.taken.notified().await;
        }
    }
}

impl Guarded {
    /// Why nothing can be submitted any more.
    pub(crate) fn over(&self) -> Option<Problem> {
        match &self.link {
            LinkState::Closed => Some(closed()),
            LinkState::Refused(problem) => Some(problem.clone()),
            LinkState::Down(_) | LinkState::Up { .. } => None,
        }
    }

    fn has_room(&self) -> bool {
        let (count, bytes) = self.desk.unaccepted();
        count < UNACCEPTED_MAX && bytes < UNACCEPTED_BYTES_MAX
    }
}

fn closed() -> Problem {
    Problem::new(
        "CLIENT_CLOSED",
        "this client is closed; what it had submitted goes on",
        "connect again, and ask for the task by its id or key",
    )
}
