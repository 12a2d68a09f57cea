//! A client of the client link, as the SDK is one: it submits batches, submits again what was not
//! accepted when the link broke, and watches what has not ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use mesh_api::LINK_PROTOCOL;
use mesh_api::agent::{CodeFrame, DataFrame, Heartbeat};
use mesh_api::client_link::{Accepted, EndedTask, FromClient, SubmitFrame, SubmitTask, ToClient};
use mesh_api::convert::digest_of;
use tokio::time::{Instant, sleep, sleep_until};

use super::board::{Board, Fact};
use super::clients::{CODE, is_passing, key, object, spec};
use super::link::Link;
use super::stuff::Recipe;
use crate::history::{Law, Told, Violation};

/// How often it has something to say.
const BEAT: Duration = Duration::from_millis(100);
/// Most tasks in one submission.
const BATCH_MAX: u64 = 12;

#[derive(Debug)]
struct Sdk {
    board: Arc<Board>,
    random: fastrand::Rng,
    next: u64,
    /// What was not answered, by the number of its frame.
    asked: BTreeMap<u64, Vec<String>>,
    /// Cancellations that were not answered.
    cancelling: BTreeMap<u64, Vec<u64>>,
    /// What has not ended.
    watched: BTreeSet<u64>,
}

/// Lives until everything is over.
pub(crate) async fn run(board: Arc<Board>, seed: u64) {
    let mut sdk = Sdk {
        board: Arc::clone(&board),
        random: fastrand::Rng::with_seed(seed),
        next: 1,
        asked: BTreeMap::new(),
        cancelling: BTreeMap::new(),
        watched: BTreeSet::new(),
    };
    while !board.is_over() {
        // Broken links are what this is about.
        let _broken: Option<()> = sdk.link().await;
        sleep(Duration::from_millis(sdk.random.u64(5..40))).await;
    }
}

impl Sdk {
    #[expect(clippy::cognitive_complexity, reason = "one select, and each `?` counts")]
    async fn link(&mut self) -> Option<()> {
        let mut link = Link::dial(&self.board, "/v1/link/client").await?;
        let hello = FromClient::Hello { protocol: LINK_PROTOCOL, version: "0.1.0".into() };
        link.send(&hello).await?;
        let ToClient::Welcome { .. } = link.receive().await? else { return None };
        let tasks: Vec<u64> = self.watched.iter().copied().collect();
        link.send(&FromClient::Watch { tasks }).await?;
        let mut code = true;
        for (id, keys) in self.asked.clone() {
            self.submit(&mut link, id, keys, &mut code).await?;
        }
        for (id, tasks) in self.cancelling.clone() {
            link.send(&FromClient::Cancel { id, tasks }).await?;
        }
        let mut beat = Instant::now();
        while !self.board.is_over() {
            tokio::select! {
                frame = link.receive::<ToClient>() => self.hear(frame?)?,
                () = sleep_until(beat) => {
                    link.send(&FromClient::Heartbeat(Heartbeat::default())).await?;
                    self.work(&mut link, &mut code).await?;
                    beat = Instant::now() + BEAT / 4 + BEAT.mul_f64(self.random.f64());
                }
            }
        }
        Some(())
    }

    /// Submits a batch, or stops some tasks.
    async fn work(&mut self, link: &mut Link, code: &mut bool) -> Option<()> {
        if self.random.u8(..5) == 0 {
            let some = self.watched.iter().copied().filter(|_| self.random.u8(..20) == 0);
            let tasks: Vec<u64> = some.take(3).collect();
            if !tasks.is_empty() {
                let id = self.number();
                self.cancelling.insert(id, tasks.clone());
                link.send(&FromClient::Cancel { id, tasks }).await?;
            }
        }
        if self.board.is_draining() || self.board.is_full() || self.asked.len() > 4 {
            return Some(());
        }
        let count = self.random.u64(1..=BATCH_MAX);
        // What needs an upload first is left to those who speak HTTP.
        let keys = std::iter::repeat_with(|| key(&mut self.random));
        let inline = keys.filter(|key| !Recipe::of_key(key).has_blob());
        let keys: Vec<String> = inline.take(usize::try_from(count).unwrap_or(1)).collect();
        self.board.open.fetch_add(count, Ordering::AcqRel);
        let id = self.number();
        self.asked.insert(id, keys.clone());
        self.submit(link, id, keys, code).await
    }

    async fn submit(
        &mut self,
        link: &mut Link,
        id: u64,
        keys: Vec<String>,
        code: &mut bool,
    ) -> Option<()> {
        let task = |key: String| SubmitTask {
            spec: 0,
            payload: DataFrame::Inline(Recipe::of_key(&key).payload()),
            key,
            name: None,
        };
        let mut frame = SubmitFrame {
            id,
            specs: vec![spec()],
            code: Vec::new(),
            tasks: keys.into_iter().map(task).collect(),
        };
        if std::mem::take(code) {
            let digest = digest_of(CODE).to_string();
            frame.code.push(CodeFrame { digest, bytes: Bytes::from_static(CODE) });
        }
        link.send(&FromClient::Submit(frame)).await
    }

    /// Nothing when it is time to link again.
    fn hear(&mut self, frame: ToClient) -> Option<()> {
        match frame {
            ToClient::Accepted { id, results } => self.accepted(id, &results)?,
            ToClient::Cancelled { id, errors } => {
                let tasks = self.cancelling.remove(&id).unwrap_or_default();
                let mut passing = false;
                for (task, error) in tasks.into_iter().zip(errors) {
                    match error {
                        None => self.board.note(Fact::Told(Told::Cancelled { task })),
                        Some(problem) => {
                            passing |= is_passing(&problem);
                            object(&self.board, &format!("t{task}"), &problem);
                        }
                    }
                }
                if passing {
                    return None;
                }
            }
            ToClient::Ended { tasks } => tasks.into_iter().for_each(|task| self.ended(task)),
            ToClient::Refused(_) => return None,
            ToClient::Started { .. } | ToClient::Welcome { .. } | ToClient::Heartbeat(_) => {}
        }
        Some(())
    }

    fn accepted(&mut self, id: u64, results: &[Accepted]) -> Option<()> {
        let keys = self.asked.get(&id)?.clone();
        let mut refused = false;
        for (result, key) in results.iter().zip(&keys) {
            match result {
                Accepted::Task { task, .. } => {
                    self.board.note(Fact::Told(Told::Submitted { key: key.clone(), task: *task }));
                    self.watched.insert(*task);
                }
                Accepted::Error(problem) => {
                    refused = true;
                    // Code that came in the frame of a refused turn is sent again on the next link.
                    if problem.code != "UNKNOWN_CODE" {
                        object(&self.board, "a submission", problem);
                    }
                }
            }
        }
        if refused {
            return None;
        }
        self.asked.remove(&id);
        let count = u64::try_from(keys.len()).unwrap_or(0);
        self.board.accepted.fetch_add(count, Ordering::AcqRel);
        Some(())
    }

    fn ended(&mut self, ended: EndedTask) {
        let EndedTask { task, outcome, result, .. } = ended;
        if outcome == "unknown" {
            let what = format!("t{task} was accepted, and is said to be unknown");
            self.board.note(Fact::Wrong(Violation::new(Law::AcknowledgedIsDurable, what)));
            return;
        }
        self.board.note(Fact::Told(Told::Ended { task, outcome: outcome.clone() }));
        if let (DataFrame::Inline(bytes), "succeeded") = (&result, outcome.as_str()) {
            self.board.note(Fact::Read { task, digest: digest_of(bytes) });
        }
        if self.watched.remove(&task) {
            self.board.closed();
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}
