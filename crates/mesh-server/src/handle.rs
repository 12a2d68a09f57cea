//! What every door, be it HTTP, a link or the embedding process, may ask of the driver. Whatever is
//! answered is durable, and whatever is read was durable when it was read.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mesh_api::agent::Question;
use mesh_api::problem::Problem;
use mesh_core::command::Seen;
use mesh_core::model::id::{ClusterName, Digest, TaskId};
use mesh_core::model::task::{Cause, Data, Failure};
use mesh_core::model::time::Timestamp;
use mesh_core::{Answer, Command, Mesh};
use mesh_store::{Seq, Side};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::agents::AgentLinks;
use crate::blobs::Blobs;
use crate::clock::Clock;
use crate::driver::ask::{Ask, Queued};
use crate::metrics::Metrics;
use crate::tail::{EventStream, Tail};

use mesh_api::convert::Reported;
pub use mesh_api::convert::{Accept, Payload};

/// Most bytes of arguments and results that wait for the driver at a time.
pub(crate) const WAITING_BYTES_MAX: usize = 256 << 20;
/// Most questions that wait for the driver at a time.
pub(crate) const WAITING_ASKS_MAX: usize = 16_384;
/// What one permit of the byte budget stands for.
const PERMIT_BYTES: usize = 1 << 10;
/// How long somebody who was turned away should wait.
const RETRY_AFTER_MS: u64 = 250;

/// A task that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// Its number.
    pub task: TaskId,
    /// Whether it had been accepted before, under the same key.
    pub replayed: bool,
}

/// How the control plane is.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The number of the last durable event.
    pub seq: Seq,
    /// Why nothing can be changed at the moment; nothing when everything can.
    pub trouble: Option<Problem>,
}

/// The door to the driver. Clones lead to the same one.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

/// What all handles, links and the driver share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) asks: mpsc::Sender<Queued>,
    pub(crate) room: Arc<Semaphore>,
    pub(crate) tail: Arc<Tail>,
    pub(crate) blobs: Blobs,
    pub(crate) agents: Arc<AgentLinks>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) heartbeat: Duration,
}

/// What the driver answers to something that may be refused as a whole.
pub type Reply<T> = oneshot::Sender<Result<T, Problem>>;

impl Handle {
    /// Accepts tasks: one answer each, in order, after all that was accepted is durable.
    pub async fn submit(
        &self,
        tasks: Vec<Accept>,
    ) -> Result<Vec<Result<Submitted, Problem>>, Problem> {
        let mut tasks: Vec<_> = tasks.into_iter().map(Ok).collect();
        claim_blobs(self, &mut tasks).await;
        let bytes = tasks.iter().flatten().map(accept_bytes).sum();
        self.ask_or_refuse(bytes, |reply| Ask::Submit { tasks, reply }).await
    }

    /// Gives a command and waits until what follows from it is durable.
    pub async fn command(&self, command: Command) -> Result<Answer, Problem> {
        let mut answers = self.commands(vec![command]).await?;
        answers.pop().unwrap_or(Ok(Answer::Done))
    }

    /// Gives commands, in order: one answer each, after all that follows from them is durable.
    pub async fn commands(
        &self,
        commands: Vec<Command>,
    ) -> Result<Vec<Result<Answer, Problem>>, Problem> {
        self.ask_or_refuse(0, |reply| Ask::Commands { commands, reply }).await
    }

    /// Reads the state, in the order of asking: what was answered before is seen. The reader runs on
    /// the driver's thread, so it must be short: page through what is large.
    pub async fn read<T: Send + 'static>(
        &self,
        reader: impl FnOnce(&Mesh, Timestamp) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let (reply, answer) = oneshot::channel();
        let read = move |mesh: &Mesh, now: Timestamp| {
            // Whoever hung up has lost his answer, nothing else.
            drop(reply.send(reader(mesh, now)));
        };
        self.send(0, Ask::Read(Box::new(read))).await?;
        answer.await.map_err(|_gone| stopped())
    }

    /// The arguments of a task that has not ended, or the result of one that has, when they are kept
    /// beside the journal.
    pub async fn data(&self, task: TaskId, side: Side) -> Result<Option<Bytes>, Problem> {
        self.ask(0, |reply| Ask::Data { task, side, reply }).await
    }

    /// Keeps code, which the caller has checked to have this digest.
    pub async fn put_code(&self, code: Vec<(Digest, Bytes)>) -> Result<(), Problem> {
        let bytes = code.iter().map(|(_, bytes)| bytes.len()).sum();
        self.ask_or_refuse(bytes, |reply| Ask::PutCode { code, reply }).await
    }

    /// Whether code is kept.
    pub async fn has_code(&self, digest: Digest) -> Result<bool, Problem> {
        self.ask(0, |reply| Ask::HasCode { digest, reply }).await
    }

    /// Waits until a task has ended, but no longer than `timeout`; whether it has. A task without a
    /// record has ended.
    pub async fn wait_ended(&self, task: TaskId, timeout: Duration) -> Result<bool, Problem> {
        let ended = self.ask(0, |reply| Ask::WaitEnded { task, reply });
        match tokio::time::timeout(timeout, ended).await {
            Ok(ended) => ended.map(|()| true),
            Err(_elapsed) => Ok(false),
        }
    }

    /// What happens from now on, and what happened since the event of number `after`, without a gap.
    /// Refused when events after that one were already given up.
    pub async fn events(&self, after: Seq) -> Result<EventStream, Problem> {
        EventStream::open(self.clone(), after).await
    }

    /// Asks the agent of a cluster something that is not journaled.
    pub async fn ask_agent(
        &self,
        cluster: ClusterName,
        what: Question,
        timeout: Duration,
    ) -> Result<String, Problem> {
        self.shared.agents.ask(&cluster, what, timeout).await
    }

    /// Whether a cluster has a linked agent.
    pub fn has_agent(&self, cluster: &ClusterName) -> bool {
        self.shared.agents.is_up(cluster)
    }

    /// What was last run into when a cluster was to be reached.
    pub fn trouble(&self, cluster: &ClusterName) -> Option<String> {
        self.shared.agents.trouble(cluster)
    }

    /// Takes note of what was run into when a cluster was to be reached, or that it was reached.
    pub fn set_trouble(&self, cluster: &ClusterName, trouble: Option<String>) {
        self.shared.agents.set_trouble(cluster, trouble);
    }

    /// How often both sides of a link say something.
    pub fn heartbeat(&self) -> Duration {
        self.shared.heartbeat
    }

    /// How the control plane is.
    pub fn status(&self) -> Status {
        Status { seq: self.shared.tail.last(), trouble: self.shared.tail.trouble() }
    }

    /// The files that hold what is too large for the journal.
    pub fn blobs(&self) -> &Blobs {
        &self.shared.blobs
    }

    /// The time, as events are stamped with it.
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// The metrics, in the text format of Prometheus.
    pub async fn metrics(&self) -> Result<String, Problem> {
        crate::metrics::render(self).await
    }

    /// Ends the driver: what was asked before is done, what is asked later is refused. Returns when
    /// everything is durable and the store is closed.
    pub async fn shutdown(self) {
        self.end(true).await;
    }

    /// Ends the driver without a last snapshot: the next start reads the journal instead.
    pub async fn kill(self) {
        self.end(false).await;
    }

    async fn end(&self, snapshot: bool) {
        let (reply, done) = oneshot::channel();
        if self.send(0, Ask::Shutdown { snapshot, reply }).await.is_ok() {
            drop(done.await); // an error means that the driver had ended already
        }
    }

    /// Asks, and waits for room in the queue.
    pub(crate) async fn ask<T>(
        &self,
        bytes: usize,
        ask: impl FnOnce(Reply<T>) -> Ask,
    ) -> Result<T, Problem> {
        let (reply, answer) = oneshot::channel();
        self.send(bytes, ask(reply)).await?;
        answer.await.unwrap_or_else(|_gone| Err(stopped()))
    }

    /// Asks, or is refused when the queue is full: for those who can come back later.
    async fn ask_or_refuse<T>(
        &self,
        bytes: usize,
        ask: impl FnOnce(Reply<T>) -> Ask,
    ) -> Result<T, Problem> {
        let (reply, answer) = oneshot::channel();
        let permits = permits(bytes);
        let room = Arc::clone(&self.shared.room).try_acquire_many_owned(permits);
        let room = room.map_err(|_none| overloaded())?;
        let queued = Queued { ask: ask(reply), room };
        self.shared.asks.try_send(queued).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => overloaded(),
            mpsc::error::TrySendError::Closed(_) => stopped(),
        })?;
        answer.await.unwrap_or_else(|_gone| Err(stopped()))
    }

    /// Puts something into the driver's queue, when there is room.
    pub(crate) async fn send(&self, bytes: usize, ask: Ask) -> Result<(), Problem> {
        let room = self.room(bytes).await?;
        self.shared.asks.send(Queued { ask, room }).await.map_err(|_closed| stopped())
    }

    async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let room = Arc::clone(&self.shared.room);
        room.acquire_many_owned(permits(bytes)).await.map_err(|_closed| stopped())
    }
}

/// Makes sure that the blobs of tasks are there, and stay until the tasks are accepted. A task that
/// was accepted before needs its blob no more: it may have ended since.
pub(crate) async fn claim_blobs(handle: &Handle, tasks: &mut [Result<Accept, Problem>]) {
    for task in tasks {
        let Ok(Accept { key, payload: Payload::Blob(id, size), .. }) = task else { continue };
        match handle.blobs().claim(*id).await {
            Ok(actual) => *size = actual,
            Err(problem) => {
                let key = key.clone();
                let known = handle.read(move |mesh, _now| mesh.task_by_key(&key).is_some()).await;
                if !known.unwrap_or(false) {
                    *task = Err(problem);
                }
            }
        }
    }
}

/// Makes sure that the blobs of results are there, and stay until the reports are taken in. One that
/// was given up while its report could not be delivered is a result that was lost.
pub(crate) async fn claim_results(blobs: &Blobs, items: &mut [Reported]) {
    for Reported { report, .. } in items {
        let Seen::Finished { ran, result: Data::Blob(id, size) } = &mut report.what else {
            continue;
        };
        match blobs.claim(*id).await {
            Ok(actual) => *size = actual,
            Err(problem) if problem.code == "UNKNOWN_BLOB" => {
                let message = "its result was given up before its report arrived";
                let failure = Failure::new(Cause::ClusterLost, message);
                report.what = Seen::Failed { ran: *ran, failure, details: Data::None };
            }
            // It is there, or the next one who reads it says what is wrong with the disk.
            Err(problem) => tracing::warn!(%problem, "blob of a result not claimed"),
        }
    }
}

/// The bytes that a task keeps in the queue.
pub(crate) fn accept_bytes(accept: &Accept) -> usize {
    const RECORD: usize = 256;
    match &accept.payload {
        Payload::Inline(bytes) => bytes.len() + RECORD,
        Payload::None | Payload::Blob(..) => RECORD,
    }
}

/// All permits there are.
pub(crate) fn all_permits() -> usize {
    WAITING_BYTES_MAX / PERMIT_BYTES
}

/// The permits for so many bytes; never more than there are, so that everything gets through.
fn permits(bytes: usize) -> u32 {
    u32::try_from((bytes / PERMIT_BYTES).min(all_permits())).unwrap_or(u32::MAX)
}

/// The driver has ended.
pub(crate) fn stopped() -> Problem {
    Problem::new(
        "UNAVAILABLE",
        "the control plane is shutting down",
        "start it again with `schedulemesh serve`; what was accepted is kept",
    )
}

fn overloaded() -> Problem {
    Problem {
        retry_after_ms: Some(RETRY_AFTER_MS),
        ..Problem::new(
            "OVERLOADED",
            "more is being asked of the control plane than it can write down",
            "wait and ask again; larger batches cost less",
        )
    }
}
