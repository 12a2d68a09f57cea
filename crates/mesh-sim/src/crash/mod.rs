//! The crash loop: the real server on a real directory, killed again and again while real clients and
//! agents work with it, and judged by the laws of [`crate::history`] after every kill.
//!
//! The server is built with the feature `failpoints`, so that it can also kill itself at named places.
//! The seed decides who does what and how each life ends; how threads and the disk take turns does
//! not follow from it, so that a failure is likely, not certain, to come back with its seed.

mod agent;
mod birth;
mod board;
mod clients;
mod full;
mod judge;
mod life;
mod link;
mod process;
mod sdk;
mod stuff;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mesh_api::http_client::{HttpClient, TaskQuery};
use mesh_api::v1::ClusterBody;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use self::board::Board;
use self::judge::Judge;
use self::life::{End, Lives, Way, way};
use self::process::{Server, Setup};
use crate::history::{Law, Verdict, Violation, law};
use crate::report::Crashed;

/// The longest that a server may take from its start until it takes work.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// The longest that a server may take to end when it is asked to.
const PEACE_WITHIN: Duration = Duration::from_secs(15);
/// The longest that a life lasts in which a failpoint is not reached.
const POINT_WITHIN: Duration = Duration::from_millis(1_500);
/// The longest until everything has ended once the killing has.
const END_WITHIN: Duration = Duration::from_secs(90);

/// What a crash loop is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often the server is killed.
    pub kills: u64,
    /// What is drawn follows from it.
    pub seed: u64,
    /// The binary, built with the feature `failpoints`.
    pub server: PathBuf,
    /// Whether a small disk is filled up as well.
    pub tmpfs: bool,
    /// A fault to plant in the server, to see whether it is noticed.
    pub bug: Option<String>,
}

/// How a crash loop ended.
#[derive(Debug)]
pub struct Ended {
    /// What was done.
    pub report: Crashed,
    /// What was broken, and where the state directory was kept.
    pub broken: Option<(Violation, PathBuf)>,
}

/// Runs a crash loop. `progress` is told a line now and then.
pub fn run(options: &Options, progress: &dyn Fn(&str)) -> std::io::Result<Ended> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let dir = tempfile::Builder::new().prefix("schedulemesh-crash-").tempdir()?;
    let mut crash = runtime.block_on(Crash::begin(options, dir.path(), progress))?;
    let begun = std::time::Instant::now();
    let mut verdict = runtime.block_on(crash.go());
    if options.tmpfs && verdict.is_ok() {
        verdict = runtime.block_on(full::run(options, dir.path(), &mut crash.report, progress));
    }
    crash.board.end();
    crash.sum_up(begun.elapsed());
    let report = std::mem::take(&mut crash.report);
    drop(crash); // the server ends first
    runtime.shutdown_timeout(Duration::from_secs(5));
    let broken = verdict.err().map(|violation| (violation, dir.keep()));
    Ok(Ended { report, broken })
}

/// A crash loop under way.
struct Crash<'a> {
    options: &'a Options,
    progress: &'a dyn Fn(&str),
    setup: Setup,
    board: Arc<Board>,
    judge: Judge,
    lives: Lives,
    crowd: JoinSet<()>,
    restarts: Vec<Duration>,
    kinds: BTreeMap<&'static str, u64>,
    report: Crashed,
}

impl<'a> Crash<'a> {
    /// The first start: a server, its clusters, and the crowd around it.
    async fn begin(
        options: &'a Options,
        dir: &Path,
        progress: &'a dyn Fn(&str),
    ) -> std::io::Result<Self> {
        let setup = Setup {
            program: options.server.clone(),
            state_dir: dir.join("state"),
            port: process::free_port()?,
            counts: dir.join("failpoints"),
            log: dir.join("server.log"),
            bug: options.bug.clone(),
        };
        let mut server = setup.start("")?;
        let board = introduce(&setup, &mut server, &["a", "b"])
            .await
            .map_err(|problem| std::io::Error::other(format!("{problem}\n{}", server.said())))?;
        let mut crowd = JoinSet::new();
        let mut seeds = fastrand::Rng::with_seed(options.seed ^ 0xc0ff_ee00);
        let mut seed = || seeds.u64(..);
        for cluster in ["a", "b"] {
            crowd.spawn(agent::serve(Arc::clone(&board), cluster.into(), seed()));
        }
        for _client in 0..2 {
            crowd.spawn(clients::Client::new(Arc::clone(&board), seed()).run());
            crowd.spawn(sdk::run(Arc::clone(&board), seed()));
            crowd.spawn(clients::follow(Arc::clone(&board)));
        }
        crowd.spawn(clients::keep_blobs(Arc::clone(&board), seed()));
        sleep(Duration::from_millis(500)).await;
        server.kill();
        let judge = Judge::new(&setup.state_dir, Arc::clone(&board));
        let report = Crashed { seed: options.seed, kills: 1, ..Crashed::default() };
        Ok(Self {
            options,
            progress,
            setup,
            board,
            judge,
            lives: Lives::new(options.seed),
            crowd,
            restarts: Vec::new(),
            kinds: BTreeMap::from([("while it worked", 1)]),
            report,
        })
    }

    /// Kills, judges and starts again, and in the end lets everything end.
    async fn go(&mut self) -> Verdict {
        self.judge.look()?;
        while self.report.kills < self.options.kills {
            let end = self.lives.next(&process::passes(&self.setup.counts));
            let before = self.report.kills;
            self.live(end).await.map_err(|broken| {
                let what = format!("{} (life {}: {end})", broken.what, self.report.kills);
                Violation { law: broken.law, what }
            })?;
            if self.report.kills / 25 > before / 25 {
                self.tell();
            }
        }
        self.let_end().await
    }

    fn tell(&self) {
        (self.progress)(&format!(
            "{} of {} kills; {} events, {} acknowledgements judged",
            self.report.kills,
            self.options.kills,
            self.judge.journal().judged(),
            self.judge.acknowledged()
        ));
    }

    /// One life of the server, and what it leaves behind.
    async fn live(&mut self, end: End) -> Verdict {
        let orders = self.lives.orders(end);
        if let End::Point(point, _) = end {
            match way(mesh_fail::POINTS[point]) {
                Way::Birth => {
                    let killed = birth::live(&self.setup, &orders).await?;
                    if killed {
                        self.lives.killed[point] += 1;
                        self.killed(end.word());
                    }
                    return Ok(());
                }
                Way::NoReserve => {
                    let reserve = self.setup.state_dir.join(mesh_store::RESERVE_FILE);
                    drop(std::fs::remove_file(reserve)); // it may be gone already
                }
                Way::Work | Way::Goodbye | Way::Full | Way::FullTwice => {}
            }
        }
        let mut server = self.start(&orders)?;
        let killed = self.until_end(&mut server, end).await?;
        let said = server.said();
        drop(server);
        law(Law::NoPanic, !said.contains("panicked at"), || last_lines(&said))?;
        if let Some(word) = killed {
            self.killed(word);
        }
        self.judge.look()
    }

    fn killed(&mut self, word: &'static str) {
        self.report.kills += 1;
        *self.kinds.entry(word).or_default() += 1;
    }

    fn start(&self, orders: &str) -> Result<Server, Violation> {
        self.setup.start(orders).map_err(|error| {
            Violation::new(Law::NoPanic, format!("the server can't be started: {error}"))
        })
    }

    /// Lets a server live until it is killed, and says how it was; nothing when it ended in peace.
    async fn until_end(
        &mut self,
        server: &mut Server,
        end: End,
    ) -> Result<Option<&'static str>, Violation> {
        if let End::Start(after) = end {
            sleep(after).await;
            was_not_over(server)?;
            server.kill();
            return Ok(Some(end.word()));
        }
        let ready = server.wait_ready(self.board.http(), READY_WITHIN).await;
        match (ready, end) {
            (Some(took), _) => self.restarts.push(took),
            (None, End::Point(point, _)) if was_killed(server) => {
                self.lives.killed[point] += 1;
                return Ok(Some(end.word()));
            }
            // Whether the disk fails or is slow from the first commit on is up to chance.
            (None, End::Fault(_)) if server.ended().is_none() => {}
            (None, _) => {
                let what =
                    format!("not ready after {READY_WITHIN:?}: {}", last_lines(&server.said()));
                return Err(Violation::new(Law::EverythingEnds, what));
            }
        }
        match end {
            End::Start(_) | End::Load(_) => {
                if let End::Load(after) = end {
                    sleep(after).await;
                }
                was_not_over(server)?;
            }
            End::Point(point, _) => return self.until_point(server, point).await.map(Some),
            End::Frozen { stopped, on } => {
                sleep(Duration::from_millis(150)).await;
                server.signal(libc::SIGSTOP);
                sleep(stopped).await;
                if let Some(on) = on {
                    server.signal(libc::SIGCONT);
                    sleep(on).await;
                    was_not_over(server)?;
                }
            }
            End::Fault(_) => self.with_faults(server).await?,
            End::Slow(_) => sleep(Duration::from_millis(900)).await,
            End::Peace(after) => {
                sleep(after).await;
                self.in_peace(server).await?;
                return Ok(None);
            }
        }
        server.kill();
        Ok(Some(end.word()))
    }

    /// Waits until the server kills itself, or kills it after a while.
    async fn until_point(
        &mut self,
        server: &mut Server,
        point: usize,
    ) -> Result<&'static str, Violation> {
        if way(mesh_fail::POINTS[point]) == Way::Goodbye {
            sleep(Duration::from_millis(150)).await;
            server.signal(libc::SIGTERM);
        }
        if server.wait_ended(POINT_WITHIN).await.is_some() {
            if was_killed(server) {
                self.lives.killed[point] += 1;
                return Ok(End::Point(point, 1).word());
            }
            was_not_over(server)?;
        }
        server.kill();
        Ok(End::Load(Duration::ZERO).word())
    }

    /// A server whose disk fails says so, lets everybody read, and takes work again when it can.
    async fn with_faults(&mut self, server: &mut Server) -> Verdict {
        let deadline = Instant::now() + Duration::from_secs(8);
        sleep(Duration::from_millis(500)).await;
        while Instant::now() < deadline {
            was_not_over(server)?;
            let Ok(Ok(ready)) = timeout(Duration::from_secs(2), self.board.http().ready()).await
            else {
                continue;
            };
            let Some(why) = ready.why else { return Ok(()) };
            let query = TaskQuery { limit: Some(1), ..TaskQuery::default() };
            let read = timeout(Duration::from_secs(2), self.board.http().tasks(&query)).await;
            let is_read = matches!(&read, Ok(Ok(list)) if !list.tasks.is_empty());
            law(Law::StepByStep, is_read, || format!("{why}, and reading fails: {read:?}"))?;
            if why.code == "STORE_FAILED" {
                return Ok(()); // until it is started again
            }
            sleep(Duration::from_millis(100)).await;
        }
        Err(Violation::new(Law::EverythingEnds, "the disk works again, the server does not"))
    }

    /// Ends a server as an operator does.
    async fn in_peace(&mut self, server: &mut Server) -> Verdict {
        server.signal(libc::SIGTERM);
        let status = server.wait_ended(PEACE_WITHIN).await;
        law(Law::EverythingEnds, status.is_some_and(|status| status.success()), || {
            format!("asked to end, it ended with {status:?}: {}", last_lines(&server.said()))
        })?;
        self.report.peaceful += 1;
        Ok(())
    }

    /// Once the killing stops, everything ends.
    async fn let_end(&mut self) -> Verdict {
        let mut server = self.start("")?;
        let ready = server.wait_ready(self.board.http(), READY_WITHIN).await;
        law(Law::EverythingEnds, ready.is_some(), || last_lines(&server.said()))?;
        self.board.drain();
        let begun = Instant::now();
        loop {
            self.judge.look()?;
            let open = self.judge.journal().open().count();
            let untold = self.board.open.load(std::sync::atomic::Ordering::Acquire);
            if open == 0 && untold == 0 {
                break;
            }
            let left: Vec<_> = self.judge.journal().open().take(5).collect();
            law(Law::EverythingEnds, begun.elapsed() < END_WITHIN, || {
                format!(
                    "after {END_WITHIN:?} {open} tasks have not ended, such as {left:?}; \
                         clients were not told of the end of {untold}"
                )
            })?;
            sleep(Duration::from_millis(100)).await;
        }
        // Followers get as far as the journal is, and then everybody goes home.
        sleep(Duration::from_millis(300)).await;
        self.board.end();
        let home = async { while self.crowd.join_next().await.is_some() {} };
        let is_home = timeout(Duration::from_secs(20), home).await.is_ok();
        law(Law::EverythingEnds, is_home, || "somebody does not go home".into())?;
        self.in_peace(&mut server).await?;
        // Not after each peaceful end: one that cuts an upload short, or a fold, leaves what the next
        // start clears away.
        self.judge.is_tidy()?;
        self.judge.finish()
    }

    fn sum_up(&mut self, took: Duration) {
        self.restarts.sort_unstable();
        let millis = |took: Option<&Duration>| {
            took.map_or(0, |took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
        };
        let passes = process::passes(&self.setup.counts);
        let points = mesh_fail::POINTS.iter().zip(&passes);
        let seen = &self.judge.seen;
        let kinds = self.kinds.iter().map(|(kind, count)| ((*kind).to_owned(), *count));
        let report = &mut self.report;
        report.kinds.extend(kinds);
        report.points = points.map(|(point, passes)| ((*point).to_owned(), *passes)).collect();
        report.killed_at = count(self.lives.killed.iter().filter(|killed| **killed > 0));
        report.tasks += count(self.judge.journal().tasks());
        report.events += self.judge.journal().judged();
        report.acknowledged += self.judge.acknowledged();
        report.results += seen.results;
        report.followed += seen.followed;
        report.dispatched += seen.dispatched;
        report.snapshots += seen.snapshots;
        report.restart_p50_ms = millis(self.restarts.get(self.restarts.len() / 2));
        report.restart_max_ms = millis(self.restarts.last());
        report.took_s = took.as_secs_f64();
    }
}

fn count<T>(of: impl Iterator<Item = T>) -> u64 {
    u64::try_from(of.count()).unwrap_or(u64::MAX)
}

/// Waits for the first start, and registers clusters and the code.
async fn introduce(
    setup: &Setup,
    server: &mut Server,
    clusters: &[&str],
) -> Result<Arc<Board>, mesh_api::problem::Problem> {
    let url = format!("http://127.0.0.1:{}", setup.port);
    let probe = HttpClient::new(&url, None)?;
    if !server.wait_up(&probe, READY_WITHIN).await {
        return Err(mesh_api::problem::Problem::new("UNAVAILABLE", "the server did not start", ""));
    }
    let token = mesh_server::state_dir::admin_token(&setup.state_dir).unwrap_or_default();
    let board = Board::new(url, token)?;
    for name in clusters {
        let body = serde_json::json!({ "name": name });
        let body: ClusterBody = serde_json::from_value(body)
            .map_err(|error| mesh_api::problem::Problem::new("INTERNAL", error.to_string(), ""))?;
        board.http().add_cluster(&body).await?;
    }
    board.http().put_code(Bytes::from_static(clients::CODE)).await?;
    Ok(board)
}

/// Whether a server was killed.
fn was_killed(server: &mut Server) -> bool {
    use std::os::unix::process::ExitStatusExt as _;
    server.ended().is_some_and(|status| status.signal() == Some(libc::SIGKILL))
}

/// A server never ends by itself, except at a failpoint.
fn was_not_over(server: &mut Server) -> Verdict {
    let status = server.ended();
    law(Law::NoPanic, status.is_none(), || {
        format!("the server ended with {status:?}: {}", last_lines(&server.said()))
    })
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
