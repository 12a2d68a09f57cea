//! Clients of the HTTP API: they submit with keys, submit again with the same keys after every
//! failure, cancel, wait, read, and write down all that they were told.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use mesh_api::convert::digest_of;
use mesh_api::problem::Problem;
use mesh_api::v1::{SpecBody, SubmitBody, SubmitTaskBody, TaskView, WorkBody};
use tokio::time::{sleep, timeout};

use super::board::{Board, Fact};
use super::stuff::Recipe;
use crate::history::{Law, Told, Violation};

/// The code that all functions have.
pub(crate) const CODE: &[u8] = b"def f(x): ...";
/// How long a request may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(3);
/// Most tasks in one submission.
const BATCH_MAX: u64 = 12;

/// Who talks to the server over HTTP.
#[derive(Debug)]
pub(crate) struct Client {
    board: Arc<Board>,
    random: fastrand::Rng,
}

/// A key that sorts by time, as the SDK makes them, from a random number of ours.
pub(crate) fn key(random: &mut fastrand::Rng) -> String {
    let time = uuid::Uuid::now_v7().get_timestamp().map_or((0, 0), |time| time.to_unix());
    let millis = time.0 * 1_000 + u64::from(time.1 / 1_000_000);
    let mut bytes = [0; 10];
    random.fill(&mut bytes);
    uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid().to_string()
}

/// What all tasks share.
pub(crate) fn spec() -> SpecBody {
    SpecBody {
        title: None,
        work: WorkBody::Function { code: digest_of(CODE).to_string() },
        resources: None,
        priority: None,
        affinity: mesh_api::v1::AffinityBody::default(),
        retries: mesh_api::v1::RetriesBody {
            lost: Some(1_000), // agents die often here
            backoff_ms: Some(5),
            backoff_max_ms: Some(50),
            ..Default::default()
        },
        timeout_ms: None,
        on_lost: None,
        wait_for_growth: true,
        python: None,
        runtime_env: None,
    }
}

/// Whether an answer only says that it is no time for this.
pub(crate) fn is_passing(problem: &Problem) -> bool {
    matches!(
        problem.code.as_str(),
        "UNAVAILABLE" | "TIMED_OUT" | "OVERLOADED" | "QUEUE_FULL" | "STORE_FULL" | "STORE_FAILED"
    )
}

/// Writes down an answer that nobody may be given who was told of a task, or of a blob, before.
pub(crate) fn object(board: &Board, what: &str, problem: &Problem) {
    if !is_passing(problem) {
        let law = if problem.code.starts_with("UNKNOWN") {
            Law::AcknowledgedIsDurable
        } else {
            Law::StepByStep
        };
        board.note(Fact::Wrong(Violation::new(law, format!("{what}: {problem}"))));
    }
}

impl Client {
    pub(crate) fn new(board: Arc<Board>, seed: u64) -> Self {
        Self { board, random: fastrand::Rng::with_seed(seed) }
    }

    /// Submits until nothing new is to be submitted.
    pub(crate) async fn run(mut self) {
        while !self.board.is_draining() && !self.board.is_over() {
            if self.board.is_full() {
                sleep(Duration::from_millis(10)).await;
                continue;
            }
            let count = if self.random.bool() { 1 } else { self.random.u64(2..=BATCH_MAX) };
            let tasks = self.submit(count).await;
            self.follow_up(tasks).await;
            sleep(Duration::from_micros(self.random.u64(0..25_000))).await;
        }
    }

    /// Submits under new keys until each is accepted; the numbers of the tasks.
    async fn submit(&mut self, count: u64) -> Vec<u64> {
        let keys: Vec<String> = (0..count).map(|_| key(&mut self.random)).collect();
        let mut bodies = Vec::new();
        for key in &keys {
            bodies.push(self.body(key).await);
        }
        let body = SubmitBody { specs: vec![spec()], tasks: bodies };
        self.board.open.fetch_add(count, Ordering::AcqRel);
        let mut again = self.random.u8(..10) == 0;
        loop {
            if let Some(tasks) = self.submit_once(&body, &keys).await {
                if !std::mem::take(&mut again) {
                    return tasks;
                }
            } else if self.board.is_over() {
                return Vec::new();
            } else {
                sleep(Duration::from_millis(self.random.u64(5..40))).await;
            }
        }
    }

    /// The body of one task, whose arguments may have to be uploaded first.
    async fn body(&mut self, key: &str) -> SubmitTaskBody {
        let recipe = Recipe::of_key(key);
        let payload = recipe.payload();
        let mut body = SubmitTaskBody {
            spec: 0,
            key: Some(key.to_owned()),
            name: None,
            payload: None,
            blob: None,
            job: None,
        };
        if recipe.has_blob() {
            body.blob = self.upload(payload).await;
        } else {
            body.payload = Some(base64::engine::general_purpose::STANDARD.encode(&payload));
        }
        body
    }

    /// Uploads until it is stored.
    async fn upload(&mut self, bytes: Bytes) -> Option<String> {
        while !self.board.is_over() {
            let half = bytes.len() / 2;
            let pieces = vec![Ok::<_, Problem>(bytes.slice(..half)), Ok(bytes.slice(half..))];
            let put = self.board.http().put_blob(stream::iter(pieces));
            match timeout(PATIENCE, put).await {
                Ok(Ok(blob)) => {
                    self.board.stored(blob.id.clone(), &bytes);
                    return Some(blob.id);
                }
                Ok(Err(problem)) => object(&self.board, "an upload", &problem),
                Err(_elapsed) => {}
            }
            sleep(Duration::from_millis(self.random.u64(5..40))).await;
        }
        None
    }

    /// Submits once; nothing when not all of it is known to be accepted.
    async fn submit_once(&mut self, body: &SubmitBody, keys: &[String]) -> Option<Vec<u64>> {
        let answer = match timeout(PATIENCE, self.board.http().submit(body)).await.ok()? {
            Ok(answer) => answer,
            Err(problem) => {
                object(&self.board, "a submission", &problem);
                return None;
            }
        };
        let mut tasks = Vec::new();
        for (result, key) in answer.results.iter().zip(keys) {
            match (&result.id, &result.error) {
                (Some(id), _) => {
                    let task = number(id)?;
                    self.board.note(Fact::Told(Told::Submitted { key: key.clone(), task }));
                    tasks.push(task);
                }
                (None, Some(problem)) if problem.code == "UNKNOWN_CODE" => {
                    self.put_code().await;
                    return None;
                }
                (None, problem) => {
                    if let Some(problem) = problem {
                        object(&self.board, "a submission", problem);
                    }
                    return None;
                }
            }
        }
        self.board.accepted.fetch_add(u64::try_from(keys.len()).unwrap_or(0), Ordering::AcqRel);
        Some(tasks)
    }

    /// Uploads the code: at first, and never again, because tasks refer to it.
    async fn put_code(&self) {
        // Told again what is missing, it is tried again.
        drop(timeout(PATIENCE, self.board.http().put_code(Bytes::from_static(CODE))).await);
    }

    /// Cancels some, and waits for the others.
    async fn follow_up(&mut self, tasks: Vec<u64>) {
        for task in tasks {
            if self.random.u8(..100) < 8 {
                self.cancel(task).await;
            }
            if self.random.u8(..100) < 40 {
                self.wait(task).await;
            } else {
                // Somebody waits in the end, so that the open ones are counted down.
                let (board, seed) = (Arc::clone(&self.board), self.random.u64(..));
                let mut waiter = Self::new(board, seed);
                tokio::spawn(async move { waiter.wait(task).await });
            }
        }
    }

    async fn cancel(&mut self, task: u64) {
        while !self.board.is_over() {
            let id = format!("t{task}");
            let cancel = self.board.http().cancel(&id);
            match timeout(PATIENCE, cancel).await {
                Ok(Ok(view)) => {
                    self.board.note(Fact::Told(Told::Cancelled { task }));
                    self.heard(task, &view);
                    return;
                }
                Ok(Err(problem)) => object(&self.board, &id, &problem),
                Err(_elapsed) => {}
            }
            sleep(Duration::from_millis(self.random.u64(5..40))).await;
        }
    }

    /// Waits until a task has ended, and reads its result.
    async fn wait(&mut self, task: u64) {
        let id = format!("t{task}");
        while !self.board.is_over() {
            let wait = self.board.http().wait(&id, Duration::from_secs(2));
            match timeout(PATIENCE, wait).await {
                Ok(Ok(view)) => {
                    if self.heard(task, &view) {
                        self.board.closed();
                        if self.random.u8(..100) < 30 {
                            self.read(task).await;
                        }
                        return;
                    }
                }
                Ok(Err(problem)) => object(&self.board, &id, &problem),
                Err(_elapsed) => {}
            }
            sleep(Duration::from_millis(self.random.u64(5..40))).await;
        }
    }

    /// Writes down how a task is said to have ended, if it is.
    fn heard(&self, task: u64, view: &TaskView) -> bool {
        let has_ended = matches!(view.phase.as_str(), "succeeded" | "failed" | "cancelled");
        if has_ended {
            self.board.note(Fact::Told(Told::Ended { task, outcome: view.phase.clone() }));
        }
        has_ended
    }

    /// Reads the result of a task that has ended, whole.
    async fn read(&mut self, task: u64) {
        while !self.board.is_over() {
            let read = async {
                let result = self.board.http().result(&format!("t{task}")).await?;
                let (outcome, size) = (result.outcome.clone(), result.size);
                let bytes = result.bytes().await?;
                Ok::<_, Problem>((outcome, size, bytes))
            };
            match timeout(PATIENCE, read).await {
                Ok(Ok((outcome, size, bytes))) => {
                    let whole = size.is_none_or(|size| u64::try_from(bytes.len()) == Ok(size));
                    if outcome == "succeeded" && whole {
                        self.board.note(Fact::Read { task, digest: digest_of(&bytes) });
                    }
                    return;
                }
                Ok(Err(problem)) => {
                    object(&self.board, &format!("the result of t{task}"), &problem);
                }
                Err(_elapsed) => {}
            }
            sleep(Duration::from_millis(self.random.u64(5..40))).await;
        }
    }
}

/// Uploads blobs, packages and code that nothing refers to, and reads back at once what was
/// acknowledged last.
pub(crate) async fn keep_blobs(board: Arc<Board>, seed: u64) {
    let mut client = Client::new(Arc::clone(&board), seed);
    while !board.is_draining() && !board.is_over() {
        let size = client.random.usize(1..40_000);
        let mut bytes = vec![0; size];
        client.random.fill(&mut bytes);
        let bytes = Bytes::from(bytes);
        match client.random.u8(..4) {
            0 => {
                let put = board.http().put_code(bytes.slice(..size.min(2_000)));
                drop(timeout(PATIENCE, put).await); // code that no task names may go at any time
            }
            1 => {
                let id = mesh_api::package::id_of(&blake3::hash(&bytes));
                let id = mesh_api::convert::blob_text(id);
                let pieces = stream::iter(vec![Ok::<_, Problem>(bytes.clone())]);
                let put = board.http().put_package(&id, pieces);
                if let Ok(Ok(package)) = timeout(PATIENCE, put).await {
                    board.stored(package.id, &bytes);
                }
            }
            _ => drop(client.upload(bytes).await),
        }
        if let Some((id, digest)) = board.last_stored() {
            read_back(&board, &id, digest).await;
        }
        sleep(Duration::from_millis(client.random.u64(5..60))).await;
    }
}

async fn read_back(board: &Board, id: &str, digest: mesh_core::model::id::Digest) {
    let read = async {
        let pieces = board.http().blob(id).await?;
        let mut pieces = std::pin::pin!(pieces);
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.next().await {
            bytes.extend_from_slice(&piece?);
        }
        Ok::<_, Problem>(bytes)
    };
    match timeout(PATIENCE, read).await {
        Ok(Ok(bytes)) if digest_of(&bytes) != digest => {
            let what = format!("blob {id} is not what was uploaded");
            board.note(Fact::Wrong(Violation::new(Law::ResultAsStored, what)));
        }
        Ok(Err(problem)) => object(board, &format!("blob {id}, just stored"), &problem),
        Ok(Ok(_)) | Err(_) => {}
    }
}

/// Follows the events from the first one on, and takes up again where it was after every break.
pub(crate) async fn follow(board: Arc<Board>) {
    let mut last = 0;
    while !board.is_over() {
        // Whatever broke, it goes on behind the last event that it has seen.
        if let Err(problem) = follow_on(&board, &mut last).await {
            object(&board, &format!("following after event {last}"), &problem);
        }
        sleep(Duration::from_millis(15)).await;
    }
}

async fn follow_on(board: &Board, last: &mut u64) -> Result<(), Problem> {
    let opened = timeout(PATIENCE, board.http().events(Some(*last))).await;
    let Ok(opened) = opened else { return Ok(()) };
    let mut events = opened?;
    while !board.is_over() {
        let Ok(event) = timeout(PATIENCE, events.next()).await else { return Ok(()) };
        let Some(event) = event? else { return Ok(()) };
        if event.seq != *last + 1 {
            let what = format!("a follower saw event {} after {last}", event.seq);
            board.note(Fact::Wrong(Violation::new(Law::GapFree, what)));
        }
        *last = event.seq;
        let task = event.tasks.first().cloned();
        board.note(Fact::Followed { seq: event.seq, kind: event.kind, task });
    }
    Ok(())
}

/// `t42` as a number.
pub(crate) fn number(id: &str) -> Option<u64> {
    id.strip_prefix('t')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_keys_of_their_own() {
        let mut random = fastrand::Rng::with_seed(1);
        let (one, two) = (key(&mut random), key(&mut random));
        assert_ne!(one, two);
        let key: mesh_core::model::id::Key = one.parse().unwrap();
        assert!(key.made_at_micros().is_some(), "it tells when it was made");
    }

    #[test]
    fn a_task_has_a_number() {
        assert_eq!(number("t42"), Some(42));
        assert_eq!(number("42"), None);
    }
}
