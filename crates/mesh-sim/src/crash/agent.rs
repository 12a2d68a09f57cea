//! An agent that plays Ray over the real link: it runs what it is sent, keeps its reports until they
//! are confirmed, and links again for as long as it lives. Now and then it dies, and another takes
//! its place.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mesh_api::LINK_PROTOCOL;
use mesh_api::agent::{
    BLOB_PART_MAX, BlobFrame, DataFrame, FromAgent, Happened, Heartbeat, HeldTask, Hello, Node,
    PullFrame, PushFrame, RemoteError, ReportFrame, ReportItem, StartTask, ToAgent,
};
use tokio::time::{Instant, sleep, sleep_until};

use super::board::{Board, Fact};
use super::link::Link;
use super::stuff::{Fate, Recipe};
use crate::history::{Law, Violation};

/// How many cores each of its nodes has.
const CPUS: f64 = 12.0;
/// How often it says that it is there.
const BEAT: Duration = Duration::from_millis(200);
/// How long a confirmed agent lives, on average, in frames of work.
const LIFE_FRAMES: u64 = 600;

/// (task, attempt): the token of an attempt.
type Token = (u64, u32);

/// One life of an agent.
#[derive(Debug)]
struct Agent {
    board: Arc<Board>,
    cluster: String,
    incarnation: String,
    running: BTreeMap<Token, Running>,
    /// Reports that are not confirmed, with their numbers.
    kept: VecDeque<(u64, ReportItem)>,
    next: u64,
    /// Results that are to be uploaded before their report, by the number of the upload.
    uploads: BTreeMap<u64, Upload>,
    uploaded: u64,
    /// Frames that came while something else was waited for.
    later: VecDeque<ToAgent>,
}

#[derive(Debug)]
struct Running {
    ends: Instant,
    recipe: Recipe,
    stopped: bool,
}

#[derive(Debug)]
struct Upload {
    token: Token,
    bytes: Bytes,
}

/// Serves a cluster until everything is over.
pub(crate) async fn serve(board: Arc<Board>, cluster: String, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    while !board.is_over() {
        let id = uuid::Builder::from_random_bytes(random.u128(..).to_le_bytes()).into_uuid();
        let mut agent = Agent {
            board: Arc::clone(&board),
            cluster: cluster.clone(),
            incarnation: id.to_string(),
            running: BTreeMap::new(),
            kept: VecDeque::new(),
            next: 1,
            uploads: BTreeMap::new(),
            uploaded: 0,
            later: VecDeque::new(),
        };
        let mut frames = random.u64(LIFE_FRAMES / 2..LIFE_FRAMES * 2);
        while frames > 0 && !board.is_over() {
            // Broken links are what this is about.
            let _broken: Option<()> = agent.link(&mut frames).await;
            sleep(Duration::from_millis(random.u64(5..40))).await;
        }
    }
}

impl Agent {
    /// Links, and works until the link breaks or its life is over.
    #[expect(clippy::cognitive_complexity, reason = "one select, and each `?` counts")]
    async fn link(&mut self, frames: &mut u64) -> Option<()> {
        self.later.clear(); // all of it is sent again on a new link
        let mut link = Link::dial(&self.board, "/v1/link/agent").await?;
        link.send(&FromAgent::Hello(self.hello())).await?;
        match link.receive::<ToAgent>().await? {
            ToAgent::Welcome(welcome) => self.confirmed(welcome.acked),
            _refused => return None,
        }
        self.resend(&mut link).await?;
        let mut beat = Instant::now();
        while !self.board.is_over() {
            let due = self.running.values().map(|run| run.ends).min().unwrap_or(beat).min(beat);
            tokio::select! {
                frame = link.receive::<ToAgent>() => self.hear(&mut link, frame?, frames).await?,
                () = sleep_until(due) => {}
            }
            while let Some(frame) = self.later.pop_front() {
                self.hear(&mut link, frame, frames).await?;
            }
            self.end_due(&mut link).await?;
            if Instant::now() >= beat {
                link.send(&FromAgent::Heartbeat(Heartbeat::default())).await?;
                beat = Instant::now() + BEAT;
            }
            if *frames == 0 {
                return None;
            }
        }
        Some(())
    }

    fn hello(&self) -> Hello {
        let resources = BTreeMap::from([("CPU".to_owned(), CPUS), ("memory".to_owned(), 1e9)]);
        let running = self.running.keys().copied();
        let uploading = self.uploads.values().map(|upload| upload.token);
        let reported = self.kept.iter().filter(|(_, item)| is_end(&item.what));
        let reported = reported.map(|(_, item)| (item.task, item.attempt));
        let held = running.chain(uploading).chain(reported);
        Hello {
            protocol: LINK_PROTOCOL,
            cluster: self.cluster.clone(),
            incarnation: self.incarnation.clone(),
            version: "0.1.0".into(),
            python: "3.11.7".into(),
            ray: "2.60.0".into(),
            platform: "linux x86_64".into(),
            held: held.map(|(task, attempt)| HeldTask { task, attempt }).collect(),
            nodes: vec![Node {
                id: format!("{}-node", self.cluster),
                address: "127.0.0.1".into(),
                labels: BTreeMap::new(),
                total: resources,
                foreign: BTreeMap::new(),
            }],
        }
    }

    async fn hear(&mut self, link: &mut Link, frame: ToAgent, frames: &mut u64) -> Option<()> {
        match frame {
            ToAgent::Start(frame) => {
                *frames = frames.saturating_sub(1);
                for task in frame.tasks {
                    self.start(link, task).await?;
                }
            }
            ToAgent::Stop(stops) => {
                for stop in stops {
                    if let Some(run) = self.running.get_mut(&(stop.task, stop.attempt)) {
                        run.stopped = true;
                        run.ends = Instant::now();
                    }
                }
            }
            ToAgent::Ack { seq } => self.confirmed(seq),
            ToAgent::Pushed(pushed) => {
                let Some(upload) = self.uploads.get(&pushed.upload) else { return Some(()) };
                if let Some(blob) = pushed.blob {
                    let (token, bytes) = (upload.token, upload.bytes.clone());
                    self.uploads.remove(&pushed.upload);
                    self.board.stored(blob.id.clone(), &bytes);
                    let run_us = 1_000;
                    let result = DataFrame::Blob(blob);
                    self.report(link, token, Happened::Finished { run_us, result }).await?;
                } else if pushed.problem.is_some() {
                    sleep(Duration::from_millis(50)).await; // a full disk; again from the start
                    self.push(link, pushed.upload).await?;
                }
            }
            ToAgent::Refused(_) => return None,
            ToAgent::Welcome(_) | ToAgent::Ask(_) | ToAgent::Piece(_) | ToAgent::Heartbeat(_) => {}
        }
        Some(())
    }

    async fn start(&mut self, link: &mut Link, task: StartTask) -> Option<()> {
        let token = (task.task, task.attempt);
        self.board.note(Fact::Dispatched { task: task.task, attempt: task.attempt });
        let uploading = self.uploads.values().any(|upload| upload.token == token);
        let ended = |(_, item): &(u64, ReportItem)| {
            (item.task, item.attempt) == token && is_end(&item.what)
        };
        if self.running.contains_key(&token) || uploading || self.kept.iter().any(ended) {
            return Some(());
        }
        let payload = match &task.payload {
            DataFrame::Inline(bytes) => bytes.clone(),
            DataFrame::Blob(blob) => self.pull(link, blob).await?,
            DataFrame::None => Bytes::new(),
        };
        let Some(recipe) = Recipe::of_payload(&payload) else {
            let what = format!(
                "t{} was sent {} bytes that are not its arguments",
                task.task,
                payload.len()
            );
            self.board.note(Fact::Wrong(Violation::new(Law::ResultAsStored, what)));
            return None;
        };
        let ends = Instant::now() + Duration::from_millis(recipe.runs_ms());
        self.running.insert(token, Running { ends, recipe, stopped: false });
        if recipe.runs_ms() > 5 {
            self.report(link, token, Happened::Started).await?;
        }
        Some(())
    }

    /// Fetches arguments that are too many for a frame.
    async fn pull(&mut self, link: &mut Link, blob: &BlobFrame) -> Option<Bytes> {
        let mut whole = Vec::new();
        let len = u64::try_from(BLOB_PART_MAX).unwrap_or(u64::MAX);
        while u64::try_from(whole.len()).unwrap_or(u64::MAX) < blob.size {
            let offset = u64::try_from(whole.len()).unwrap_or(u64::MAX);
            link.send(&FromAgent::Pull(PullFrame { id: blob.id.clone(), offset, len })).await?;
            loop {
                match link.receive::<ToAgent>().await? {
                    ToAgent::Piece(piece) if piece.problem.is_none() => {
                        whole.extend_from_slice(&piece.bytes);
                        break;
                    }
                    ToAgent::Piece(piece) => {
                        let what = format!("blob {}: {:?}", blob.id, piece.problem);
                        let lost = piece.problem.is_some_and(|p| p.code == "UNKNOWN_BLOB");
                        if lost {
                            let broken = Violation::new(Law::AcknowledgedIsDurable, what);
                            self.board.note(Fact::Wrong(broken));
                        }
                        return None;
                    }
                    ToAgent::Ack { seq } => self.confirmed(seq),
                    ToAgent::Refused(_) => return None,
                    frame @ (ToAgent::Start(_) | ToAgent::Stop(_) | ToAgent::Pushed(_)) => {
                        self.later.push_back(frame);
                    }
                    ToAgent::Welcome(_) | ToAgent::Ask(_) | ToAgent::Heartbeat(_) => {}
                }
            }
        }
        Some(whole.into())
    }

    /// Reports what has ended by now.
    async fn end_due(&mut self, link: &mut Link) -> Option<()> {
        let now = Instant::now();
        let due = self.running.iter().filter(|(_, run)| run.ends <= now);
        let due: Vec<Token> = due.map(|(token, _)| *token).collect();
        for token in due {
            let Some(run) = self.running.remove(&token) else { continue };
            if run.stopped {
                self.report(link, token, Happened::Stopped { run_us: 1_000 }).await?;
                continue;
            }
            let bytes = run.recipe.result(token.1);
            self.board.report(token.0, token.1, &bytes);
            if run.recipe.fate() == Fate::Raises && bytes.len() <= mesh_api::INLINE_MAX {
                let error = RemoteError {
                    cause: "raised".into(),
                    exception: "ValueError".into(),
                    message: "it was meant to".into(),
                    traceback: String::new(),
                };
                let details = DataFrame::Inline(bytes);
                self.report(link, token, Happened::Failed { run_us: 1_000, error, details })
                    .await?;
            } else if bytes.len() > mesh_api::INLINE_MAX {
                self.uploaded += 1;
                self.uploads.insert(self.uploaded, Upload { token, bytes });
                self.push(link, self.uploaded).await?;
            } else {
                let result = DataFrame::Inline(bytes);
                self.report(link, token, Happened::Finished { run_us: 1_000, result }).await?;
            }
        }
        Some(())
    }

    /// Uploads a result, in two parts.
    async fn push(&mut self, link: &mut Link, upload: u64) -> Option<()> {
        let bytes = self.uploads.get(&upload)?.bytes.clone();
        let half = bytes.len() / 2;
        for (offset, done) in [(0, false), (half, true)] {
            let part = if done { bytes.slice(half..) } else { bytes.slice(..half) };
            let offset = u64::try_from(offset).unwrap_or(u64::MAX);
            let frame = FromAgent::Push(PushFrame { upload, offset, bytes: part, done });
            link.send(&frame).await?;
        }
        Some(())
    }

    async fn report(&mut self, link: &mut Link, token: Token, what: Happened) -> Option<()> {
        let item = ReportItem { task: token.0, attempt: token.1, what };
        let seq = self.next;
        self.next += 1;
        self.kept.push_back((seq, item.clone()));
        link.send(&FromAgent::Report(ReportFrame { seq, items: vec![item] })).await
    }

    /// Says again, on a new link, what was not confirmed.
    async fn resend(&mut self, link: &mut Link) -> Option<()> {
        if let Some((seq, _)) = self.kept.front() {
            let items = self.kept.iter().map(|(_, item)| item.clone()).collect();
            link.send(&FromAgent::Report(ReportFrame { seq: *seq, items })).await?;
        }
        let uploads: Vec<u64> = self.uploads.keys().copied().collect();
        for upload in uploads {
            self.push(link, upload).await?;
        }
        Some(())
    }

    /// Reports up to this number are durable.
    fn confirmed(&mut self, seq: u64) {
        while let Some((number, item)) = self.kept.front() {
            if *number > seq {
                break;
            }
            if is_end(&item.what) {
                let (task, attempt) = (item.task, item.attempt);
                self.board.note(Fact::Acknowledged { task, attempt });
            }
            self.kept.pop_front();
        }
    }
}

fn is_end(what: &Happened) -> bool {
    !matches!(what, Happened::Started | Happened::Returned)
}
