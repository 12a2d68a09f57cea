//! What everybody around the server shares: where it is, what they were told, and when to stop.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh_api::http_client::HttpClient;
use mesh_api::problem::Problem;
use mesh_core::model::id::Digest;

use crate::history::Told;

/// Something that somebody was told, or has seen, and that must follow from the journal.
#[derive(Clone, Debug)]
pub(crate) enum Fact {
    /// A client was told.
    Told(Told),
    /// An agent was told to start an attempt.
    Dispatched {
        /// The task.
        task: u64,
        /// Which assignment of it.
        attempt: u32,
    },
    /// An agent was told that the report of the end of an attempt is durable.
    Acknowledged {
        /// The task.
        task: u64,
        /// Which assignment of it.
        attempt: u32,
    },
    /// A client read the result of a task that succeeded.
    Read {
        /// The task.
        task: u64,
        /// The digest of what was read.
        digest: Digest,
    },
    /// A follower saw an event of a task.
    Followed {
        /// Its number.
        seq: u64,
        /// What it was.
        kind: String,
        /// The task, when it was about one.
        task: Option<String>,
    },
    /// Something was said or done that never may be.
    Wrong(crate::history::Violation),
}

/// The digests of results, by task and attempt.
type Reported = HashMap<(u64, u32), Digest>;

/// What everybody shares.
#[derive(Debug)]
pub(crate) struct Board {
    facts: Mutex<Vec<Fact>>,
    /// What agents reported.
    reported: Mutex<Reported>,
    /// Blobs that were acknowledged, with the digests of their bytes.
    blobs: Mutex<Vec<(String, Digest)>>,
    http: HttpClient,
    pub(crate) url: String,
    pub(crate) token: String,
    /// No new work is submitted any more.
    draining: AtomicBool,
    /// Everybody goes home.
    over: AtomicBool,
    /// How many tasks clients have submitted of which they were not told the end.
    pub(crate) open: AtomicU64,
    /// How many tasks clients were told are accepted.
    pub(crate) accepted: AtomicU64,
}

/// More open tasks than this, and nobody submits more for a while.
const OPEN_MAX: u64 = 400;

impl Board {
    pub(crate) fn new(url: String, token: String) -> Result<Arc<Self>, Problem> {
        let http = HttpClient::new(&url, Some(&token))?;
        Ok(Arc::new(Self {
            facts: Mutex::default(),
            reported: Mutex::default(),
            blobs: Mutex::default(),
            http,
            url,
            token,
            draining: AtomicBool::new(false),
            over: AtomicBool::new(false),
            open: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
        }))
    }

    /// A client of the HTTP API.
    pub(crate) fn http(&self) -> &HttpClient {
        &self.http
    }

    /// Writes down what somebody was told.
    pub(crate) fn note(&self, fact: Fact) {
        lock(&self.facts).push(fact);
    }

    /// What was written down since the last time.
    pub(crate) fn take(&self) -> Vec<Fact> {
        std::mem::take(&mut *lock(&self.facts))
    }

    /// Writes down what an agent is about to report of an attempt.
    pub(crate) fn report(&self, task: u64, attempt: u32, result: &[u8]) {
        let digest = mesh_api::convert::digest_of(result);
        lock(&self.reported).insert((task, attempt), digest);
    }

    /// What was reported of an attempt.
    pub(crate) fn reported(&self, task: u64, attempt: u32) -> Option<Digest> {
        lock(&self.reported).get(&(task, attempt)).copied()
    }

    /// Writes down that a blob was acknowledged.
    pub(crate) fn stored(&self, id: String, bytes: &[u8]) {
        lock(&self.blobs).push((id, mesh_api::convert::digest_of(bytes)));
    }

    /// The blob that was acknowledged last.
    pub(crate) fn last_stored(&self) -> Option<(String, Digest)> {
        lock(&self.blobs).last().cloned()
    }

    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Release);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Whether so much is under way that more would only queue up.
    pub(crate) fn is_full(&self) -> bool {
        self.open.load(Ordering::Acquire) > OPEN_MAX
    }

    /// A task that somebody waited for is over.
    pub(crate) fn closed(&self) {
        // Saturating: the end may be told more than once.
        let less = |open: u64| Some(open.saturating_sub(1));
        let _before = self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
