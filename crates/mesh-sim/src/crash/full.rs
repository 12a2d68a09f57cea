//! A small disk that fills up: it is said, reads and cancellations go on, and work does when there is
//! room again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use mesh_api::http_client::TaskQuery;
use mesh_api::problem::Problem;
use mesh_api::v1::{SubmitBody, SubmitTaskBody};
use mesh_store::Space;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::board::{Board, Fact};
use super::judge::Judge;
use super::process::{Server, Setup};
use super::{
    END_WITHIN, Options, READY_WITHIN, agent, clients, introduce, last_lines, process, sdk,
};
use crate::history::{Law, Told, Verdict, Violation, law};
use crate::report::Crashed;

/// How large the disk is.
const DISK: &str = "size=32m";
/// What is left of it when the filling is left to the journal.
const LEFT: u64 = 7 << 20;
/// Bytes of arguments of each task that fills it.
const FILL_BYTES: usize = 48 << 10;
/// How many of these are submitted at a time.
const FILL_TASKS: u64 = 4;
/// How often the server is killed while the disk is full.
const KILLS: u64 = 4;

/// A disk of its own, until it is dropped.
struct Disk {
    path: PathBuf,
}

impl Disk {
    fn mount(path: PathBuf) -> std::io::Result<Self> {
        std::fs::create_dir_all(&path)?;
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "none"]).arg(&path).output()?;
        if !mount.status.success() {
            return Err(std::io::Error::other(String::from_utf8_lossy(&mount.stderr).into_owned()));
        }
        Ok(Self { path })
    }

    /// Takes room until so much is left.
    fn fill(&self, left: u64) -> std::io::Result<()> {
        let free = Space::of(&self.path)?.free;
        let size = usize::try_from(free.saturating_sub(left)).unwrap_or(0);
        std::fs::write(self.filler(), vec![1; size])
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whoever still has a file open on it must not keep it.
        drop(Command::new("umount").arg("-l").arg(&self.path).status());
    }
}

/// Fills a disk, kills on it, and makes room again.
pub(super) async fn run(
    options: &Options,
    dir: &Path,
    report: &mut Crashed,
    progress: &dyn Fn(&str),
) -> Verdict {
    let failed = |error: std::io::Error| Violation::new(Law::NoPanic, error.to_string());
    let disk = match Disk::mount(dir.join("small")) {
        Ok(disk) => disk,
        Err(error) => {
            progress(&format!("no small disk can be made: {error}"));
            return Ok(());
        }
    };
    let setup = Setup {
        program: options.server.clone(),
        state_dir: disk.path.join("state"),
        port: process::free_port().map_err(failed)?,
        counts: dir.join("failpoints"),
        log: dir.join("full.log"),
        bug: options.bug.clone(),
    };
    let mut server = setup.start("").map_err(failed)?;
    let board =
        introduce(&setup, &mut server, &["small"]).await.map_err(|problem| wrong(&problem))?;
    let mut crowd = JoinSet::new();
    crowd.spawn(agent::serve(Arc::clone(&board), "small".into(), options.seed));
    crowd.spawn(clients::Client::new(Arc::clone(&board), options.seed + 1).run());
    crowd.spawn(sdk::run(Arc::clone(&board), options.seed + 2));
    crowd.spawn(clients::follow(Arc::clone(&board)));
    let judge = Judge::new(&setup.state_dir, Arc::clone(&board));
    let mut story = Story {
        setup,
        disk,
        board,
        judge,
        server,
        report,
        random: fastrand::Rng::with_seed(options.seed),
    };
    let verdict = story.go(progress).await;
    story.board.end();
    let verdict = verdict.map_err(|broken| {
        let (what, said) = (&broken.what, last_lines(&story.server.said()));
        Violation::new(broken.law, format!("on a full disk: {what}\n{said}"))
    });
    report_of(&mut story);
    verdict
}

fn report_of(story: &mut Story<'_>) {
    let journal = story.judge.journal();
    story.report.tasks += u64::try_from(journal.tasks().count()).unwrap_or(0);
    story.report.events += journal.judged();
    story.report.acknowledged += story.judge.acknowledged();
}

fn wrong(problem: &Problem) -> Violation {
    Violation::new(Law::StepByStep, problem.to_string())
}

struct Story<'a> {
    setup: Setup,
    disk: Disk,
    board: Arc<Board>,
    judge: Judge,
    server: Server,
    report: &'a mut Crashed,
    random: fastrand::Rng,
}

impl Story<'_> {
    async fn go(&mut self, progress: &dyn Fn(&str)) -> Verdict {
        sleep(Duration::from_millis(500)).await;
        let failed = |error: std::io::Error| Violation::new(Law::NoPanic, error.to_string());
        self.disk.fill(LEFT).map_err(failed)?;
        let mut waiting = self.until_full().await?;
        progress(&format!("the small disk is full after {} tasks", waiting.len()));
        self.cancel(&mut waiting, 10).await?;
        for _kill in 0..KILLS {
            self.server.kill();
            self.judge.look()?;
            self.server = self.setup.start("").map_err(failed)?;
            self.report.full_disk_kills += 1;
            self.until_up().await?;
            self.still_reads(&waiting).await?;
            self.cancel(&mut waiting, 3).await?;
        }
        std::fs::remove_file(self.disk.filler()).map_err(failed)?;
        let ready = self.server.wait_ready(self.board.http(), READY_WITHIN * 10).await;
        law(Law::EverythingEnds, ready.is_some(), || "there is room, and no work is taken".into())?;
        progress("there is room again, and work goes on");
        let all = waiting.len();
        self.cancel(&mut waiting, all).await?;
        self.let_end().await
    }

    /// Submits tasks that wait for ever, with large arguments, until it is said that there is no
    /// room; their numbers.
    async fn until_full(&mut self) -> Result<Vec<u64>, Violation> {
        let deadline = Instant::now() + Duration::from_mins(1);
        let mut waiting = Vec::new();
        while Instant::now() < deadline {
            let (body, keys) = self.filling();
            let answer = match self.board.http().submit(&body).await {
                Ok(answer) => answer,
                Err(problem) if problem.code == "STORE_FULL" => return Ok(waiting),
                Err(problem) => return Err(wrong(&problem)),
            };
            let mut is_full = false;
            for (result, key) in answer.results.into_iter().zip(keys) {
                match (result.id.as_deref().and_then(clients::number), result.error) {
                    (Some(task), _) => {
                        self.board.note(Fact::Told(Told::Submitted { key, task }));
                        waiting.push(task);
                    }
                    (None, Some(problem)) if problem.code == "STORE_FULL" => is_full = true,
                    (None, problem) => {
                        let what = format!("refused for {problem:?}");
                        return Err(Violation::new(Law::StepByStep, what));
                    }
                }
            }
            if is_full {
                return Ok(waiting);
            }
        }
        Err(Violation::new(Law::EverythingEnds, "nobody says that the disk is full"))
    }

    fn filling(&mut self) -> (SubmitBody, Vec<String>) {
        let keys: Vec<String> = (0..FILL_TASKS).map(|_| clients::key(&mut self.random)).collect();
        let mut spec = clients::spec();
        spec.resources = Some(std::iter::once(("nowhere".to_owned(), 1.0)).collect());
        let mut task = |key: &String| {
            let mut bytes = vec![0; FILL_BYTES];
            self.random.fill(&mut bytes);
            SubmitTaskBody {
                spec: 0,
                key: Some(key.clone()),
                name: None,
                payload: Some(base64::engine::general_purpose::STANDARD.encode(bytes)),
                blob: None,
                job: None,
            }
        };
        let tasks = keys.iter().map(&mut task).collect();
        (SubmitBody { specs: vec![spec], tasks }, keys)
    }

    /// Cancels some of those that wait: a full disk lets that through.
    async fn cancel(&mut self, waiting: &mut Vec<u64>, count: usize) -> Verdict {
        for task in waiting.drain(waiting.len().saturating_sub(count)..) {
            self.board.http().cancel(&format!("t{task}")).await.map_err(|problem| {
                Violation::new(Law::StepByStep, format!("t{task} can't be cancelled: {problem}"))
            })?;
            self.board.note(Fact::Told(Told::Cancelled { task }));
            self.report.full_disk_cancels += 1;
        }
        Ok(())
    }

    /// A server on a full disk answers all the same.
    async fn until_up(&mut self) -> Verdict {
        let is_up = self.server.wait_up(self.board.http(), READY_WITHIN).await;
        law(Law::EverythingEnds, is_up, || "it does not start".into())
    }

    async fn still_reads(&self, waiting: &[u64]) -> Verdict {
        let query = TaskQuery { limit: Some(10), ..TaskQuery::default() };
        let list = self.board.http().tasks(&query).await.map_err(|problem| wrong(&problem))?;
        law(Law::AcknowledgedIsDurable, !list.tasks.is_empty(), || "it knows no tasks".into())?;
        let Some(task) = waiting.first() else { return Ok(()) };
        self.board.http().task(&format!("t{task}")).await.map_err(|problem| wrong(&problem))?;
        Ok(())
    }

    async fn let_end(&mut self) -> Verdict {
        self.board.drain();
        let begun = Instant::now();
        loop {
            self.judge.look()?;
            let open = self.judge.journal().open().count();
            let untold = self.board.open.load(Ordering::Acquire);
            if open == 0 && untold == 0 {
                break;
            }
            law(Law::EverythingEnds, begun.elapsed() < END_WITHIN, || {
                format!("{open} tasks have not ended, of {untold} nobody was told")
            })?;
            sleep(Duration::from_millis(100)).await;
        }
        self.board.end();
        self.server.signal(libc::SIGTERM);
        let status = self.server.wait_ended(Duration::from_secs(15)).await;
        law(Law::EverythingEnds, status.is_some_and(|status| status.success()), || {
            format!("asked to end, it ended with {status:?}")
        })?;
        self.judge.is_tidy()?;
        self.judge.finish()
    }
}
