//! Agent links: one for each cluster, the same whichever side dials. A link task reads, parses and
//! answers; the driver decides, and sends what is to be done through a queue.

mod blobs;
mod dial;
pub mod protocol;
mod session;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_api::agent::{Ask as AskFrame, AskAnswer, Question, ToAgent};
use mesh_api::problem::Problem;
use mesh_core::model::id::ClusterName;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::driver::ask::LinkId;
use crate::outbox::Outbox;

pub(crate) use dial::dial_listening_agents;
pub use session::serve;

/// Most bytes of frames that wait for one agent.
pub const FRAME_BYTES_MAX: usize = 512 << 20;
/// Most questions to one agent that wait for their answer.
const QUESTIONS_MAX: usize = 256;

/// Who waits for an answer.
type Asker = oneshot::Sender<Result<String, String>>;

/// The links that are up, for questions that the driver need not know of.
#[derive(Debug, Default)]
pub(crate) struct AgentLinks {
    up: Mutex<BTreeMap<ClusterName, Arc<AgentLink>>>,
    trouble: Mutex<HashMap<ClusterName, String>>,
}

/// A link that is up.
#[derive(Debug)]
pub(crate) struct AgentLink {
    id: LinkId,
    outbox: Outbox<ToAgent>,
    questions: Mutex<HashMap<u64, Asker>>,
}

impl AgentLinks {
    /// Takes note of a link that came up; the one before it is closed.
    pub(crate) fn insert(&self, cluster: &ClusterName, id: LinkId, outbox: Outbox<ToAgent>) {
        let link = AgentLink { id, outbox, questions: Mutex::default() };
        let before = lock(&self.up).insert(cluster.clone(), Arc::new(link));
        if let Some(before) = before {
            before.outbox.close();
        }
    }

    /// Takes note that a link is gone.
    pub(crate) fn remove(&self, cluster: &ClusterName, id: LinkId) {
        let mut up = lock(&self.up);
        if up.get(cluster).is_some_and(|link| link.id == id) {
            up.remove(cluster);
        }
    }

    /// What was last run into when a cluster was to be reached.
    pub(crate) fn trouble(&self, cluster: &ClusterName) -> Option<String> {
        lock(&self.trouble).get(cluster).cloned()
    }

    /// Takes note of what was run into when a cluster was to be reached, or that it was reached.
    pub(crate) fn set_trouble(&self, cluster: &ClusterName, trouble: Option<String>) {
        let mut known = lock(&self.trouble);
        match trouble {
            Some(trouble) => known.insert(cluster.clone(), trouble),
            None => known.remove(cluster),
        };
    }

    /// Closes every link.
    pub(crate) fn close_all(&self) {
        let links = std::mem::take(&mut *lock(&self.up));
        for link in links.into_values() {
            link.outbox.close();
        }
    }

    /// Whether a cluster has a link.
    pub(crate) fn is_up(&self, cluster: &ClusterName) -> bool {
        lock(&self.up).contains_key(cluster)
    }

    /// Asks an agent, and waits for its answer.
    pub(crate) async fn ask(
        &self,
        cluster: &ClusterName,
        what: Question,
        within: Duration,
    ) -> Result<String, Problem> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let link = lock(&self.up).get(cluster).cloned().ok_or_else(|| unreachable(cluster))?;
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let answer = link.expect(id).ok_or_else(|| too_many(cluster))?;
        link.outbox.push(ToAgent::Ask(AskFrame { id, what }), 64);
        let answered = timeout(within, answer).await;
        lock(&link.questions).remove(&id);
        match answered {
            Ok(Ok(Ok(text))) => Ok(text),
            Ok(Ok(Err(why))) => Err(Problem::new(
                "AGENT_UNREACHABLE",
                format!("the agent of cluster {cluster} has no answer: {why}"),
                "see the agent's own log",
            )),
            Ok(Err(_gone)) => Err(unreachable(cluster)),
            Err(_elapsed) => Err(Problem::new(
                "TIMED_OUT",
                format!("the agent of cluster {cluster} did not answer within {within:?}"),
                "try again; if it goes on, see the agent's own log",
            )),
        }
    }

    /// Passes on the answer of an agent.
    pub(crate) fn answer(&self, cluster: &ClusterName, answer: AskAnswer) {
        let link = lock(&self.up).get(cluster).cloned();
        let asker = link.and_then(|link| lock(&link.questions).remove(&answer.id));
        if let Some(asker) = asker {
            drop(asker.send(answer.result)); // whoever hung up wants no answer
        }
    }
}

impl AgentLink {
    fn expect(&self, id: u64) -> Option<oneshot::Receiver<Result<String, String>>> {
        let mut questions = lock(&self.questions);
        if questions.len() >= QUESTIONS_MAX {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        questions.insert(id, sender);
        Some(receiver)
    }
}

fn unreachable(cluster: &ClusterName) -> Problem {
    Problem::new(
        "AGENT_UNREACHABLE",
        format!("cluster {cluster} has no linked agent at the moment"),
        format!("see `schedulemesh cluster test {cluster}`"),
    )
}

fn too_many(cluster: &ClusterName) -> Problem {
    Problem {
        retry_after_ms: Some(1_000),
        ..Problem::new(
            "OVERLOADED",
            format!("{QUESTIONS_MAX} questions wait for the agent of cluster {cluster}"),
            "wait and ask again",
        )
    }
}

/// A number for a new connection.
fn next_id() -> LinkId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
