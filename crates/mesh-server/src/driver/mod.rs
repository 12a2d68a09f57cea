//! The one thread that owns the state. It takes what waits, decides, makes everything durable in one
//! commit, and only then lets anybody know.

pub(crate) mod ask;
mod books;
mod dispatch;
mod recover;
mod turn;
mod watch;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mesh_api::problem::Problem;
use mesh_core::command::{Held, Report, Seen};
use mesh_core::model::task::{Cause, Data, Failure};
use mesh_core::model::time::Span;
use mesh_core::snapshot::Snapshot;
use mesh_core::{Command, Limits, Mesh};
use mesh_store::{Batch, Entry, Seq, Store, StoreError};
use tokio::sync::{Semaphore, mpsc};

use self::ask::Queued;
use self::books::Books;
use self::dispatch::Seats;
use self::turn::{Goodbye, Turn};
use self::watch::Watchers;
use crate::agents::AgentLinks;
use crate::blobs::Blobs;
use crate::clock::Clock;
use crate::handle::{Handle, Shared, WAITING_ASKS_MAX, all_permits};
use crate::metrics::Metrics;
use crate::tail::Tail;

/// Most questions that one commit answers.
const TURN_MAX: usize = 4_096;
/// Most rounds of due timers in one turn.
const TICKS_MAX: usize = 16;
/// The shortest wait for a timer, so that one which can't be served does not spin.
const WAIT_MIN: Duration = Duration::from_millis(1);
/// How often a full disk is tried again.
const FULL_RETRY: Duration = Duration::from_secs(1);
/// How much room a full disk must have before work goes on.
const PROBE_BYTES: usize = 1 << 20;
/// How many events a snapshot leaves in the journal, for those who follow it.
const EVENTS_KEPT: Seq = 100_000;

/// What a driver needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What the mesh may hold.
    pub limits: Limits,
    /// How often both sides of a link say something.
    pub heartbeat: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { limits: Limits::default(), heartbeat: Duration::from_secs(2) }
    }
}

/// Why a driver could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store could not be opened or read.
    #[error("the store can't be read: {0}")]
    Store(#[from] StoreError),
    /// The blobs could not be opened.
    #[error("the blobs can't be opened: {0}")]
    Blobs(io::Error),
    /// The thread could not be started.
    #[error("the driver can't be started: {0}")]
    Thread(io::Error),
    /// What was read contradicts itself.
    #[error("the journal contradicts itself: {}", .0.join("; "))]
    Contradiction(Vec<String>),
}

/// Starts a driver on a store, with everything as it was when the last one ended.
pub fn start(
    dir: &Path,
    store: Box<dyn Store>,
    settings: Settings,
) -> Result<(Handle, JoinHandle<()>), StartError> {
    let (folded, mesh) = recover::load(store.as_ref(), settings.limits)?;
    let blobs = Blobs::open(dir).map_err(StartError::Blobs)?;
    let (asks, waiting) = mpsc::channel(WAITING_ASKS_MAX);
    let shared = Shared {
        asks,
        room: Arc::new(Semaphore::new(all_permits())),
        tail: Arc::new(Tail::new(store.last_seq(), folded)),
        blobs,
        agents: Arc::new(AgentLinks::default()),
        clock: Arc::new(Clock::start(mesh.at())),
        metrics: Arc::new(Metrics::new()),
        heartbeat: settings.heartbeat,
    };
    let driver = Driver {
        limits: settings.limits,
        heartbeat: settings.heartbeat,
        books: Books::of(&mesh),
        mesh,
        store,
        clock: Arc::clone(&shared.clock),
        tail: Arc::clone(&shared.tail),
        metrics: Arc::clone(&shared.metrics),
        links: Arc::clone(&shared.agents),
        seats: Seats::default(),
        watchers: Watchers::default(),
        unreadable: Vec::new(),
        health: Health::Well,
    };
    let timers = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let timers = timers.map_err(StartError::Thread)?;
    let thread = std::thread::Builder::new().name("driver".into());
    let thread = thread.spawn(move || driver.run(waiting, &timers)).map_err(StartError::Thread)?;
    Ok((Handle { shared: Arc::new(shared) }, thread))
}

/// The owner of the state.
pub(super) struct Driver {
    limits: Limits,
    heartbeat: Duration,
    mesh: Mesh,
    books: Books,
    store: Box<dyn Store>,
    clock: Arc<Clock>,
    tail: Arc<Tail>,
    metrics: Arc<Metrics>,
    links: Arc<AgentLinks>,
    seats: Seats,
    watchers: Watchers,
    /// Attempts that could not be sent because their arguments could not be read: they fail in the
    /// next turn.
    unreadable: Vec<Held>,
    health: Health,
}

/// Whether anything can be made durable.
#[derive(Debug)]
enum Health {
    Well,
    /// The disk is full; it is tried again then.
    Full(Instant, Problem),
    /// The store must be opened again by a restart. `blind`: nor could the state be read back.
    Failed(Problem, bool),
}

impl Driver {
    fn run(mut self, mut waiting: mpsc::Receiver<Queued>, timers: &tokio::runtime::Runtime) {
        let mut asks = Vec::with_capacity(TURN_MAX);
        let mut goodbye = None;
        self.begin();
        while goodbye.is_none() {
            let wait = self.wait();
            let open = timers.block_on(async {
                let received = waiting.recv_many(&mut asks, TURN_MAX);
                match wait {
                    None => received.await > 0,
                    Some(wait) => tokio::time::timeout(wait, received).await != Ok(0),
                }
            });
            goodbye = self.turn(&mut asks);
            if !open {
                break;
            }
        }
        drop(waiting);
        self.links.close_all();
        if goodbye.as_ref().is_none_or(|(snapshot, _)| *snapshot) {
            self.fold();
        }
        if let Some((_, goodbye)) = goodbye {
            drop(self.store); // closed before anybody is told that it is
            let _hung_up: Result<(), ()> = goodbye.send(());
        }
    }

    /// The first turn: whatever the journal says, no agent is linked.
    fn begin(&mut self) {
        let mut turn = Turn::new(self.clock.now());
        // Only commands that name something can be refused.
        drop(self.decide(&mut turn, &Command::Restart, None));
        self.finish(turn);
    }

    /// One turn: everything that waits, and one commit.
    fn turn(&mut self, asks: &mut Vec<Queued>) -> Option<Goodbye> {
        let mut turn = Turn::new(self.clock.now());
        self.recuperate(&mut turn);
        for Queued { ask, room } in asks.drain(..) {
            turn.rooms.push(room);
            self.take(&mut turn, ask);
        }
        self.fail_unreadable(&mut turn);
        self.tick(&mut turn);
        let goodbye = turn.goodbye.take();
        self.finish(turn);
        goodbye
    }

    /// Fails what could not be sent, instead of letting it wait for ever.
    fn fail_unreadable(&mut self, turn: &mut Turn) {
        for Held { task, attempt } in std::mem::take(&mut self.unreadable) {
            let cluster = self.mesh.cluster_of(task).and_then(|id| self.mesh.cluster_by_id(id));
            let Some(cluster) = cluster.map(|cluster| cluster.name.clone()) else { continue };
            let failure = Failure::new(
                Cause::Unreadable,
                "its arguments can't be read from the store; the server's log says why",
            );
            let what = Seen::Failed { ran: Span::ZERO, failure, details: Data::None };
            let report = Command::Report(cluster, Report { task, attempt, what });
            // Refused only while nothing can be written: it is tried again when the agent links.
            drop(self.decide(turn, &report, None));
        }
    }

    fn tick(&mut self, turn: &mut Turn) {
        if !matches!(self.health, Health::Well) {
            return;
        }
        for _ in 0..TICKS_MAX {
            let before = turn.batch.events.len();
            if self.mesh.next_timer().is_none_or(|due| due > turn.now) {
                break;
            }
            drop(self.decide(turn, &Command::Tick, None)); // a tick is never refused
            if turn.batch.events.len() == before {
                break;
            }
        }
        let events = self.mesh.schedule(turn.now);
        turn.batch.events.extend(events);
    }

    /// How long nothing needs to be done unless somebody asks.
    fn wait(&self) -> Option<Duration> {
        match &self.health {
            Health::Well if !self.unreadable.is_empty() => Some(Duration::ZERO),
            Health::Well => {
                let due = self.mesh.next_timer()?.since(self.clock.now());
                Some(Duration::from_micros(due.micros()).max(WAIT_MIN))
            }
            Health::Full(at, _) => Some(at.saturating_duration_since(Instant::now()).max(WAIT_MIN)),
            Health::Failed(..) => None,
        }
    }

    /// Makes a turn durable, and lets everybody know.
    fn finish(&mut self, mut turn: Turn) {
        self.mesh.take_changes();
        match self.commit(&mut turn) {
            Ok(()) => self.dispatch(&mut turn),
            Err(problem) => turn.refuse(&problem),
        }
        self.answer(turn);
    }

    fn commit(&mut self, turn: &mut Turn) -> Result<(), Problem> {
        if turn.batch.is_empty() {
            return Ok(());
        }
        turn.batch.at = turn.now;
        let begun = Instant::now();
        match self.store.append(&turn.batch) {
            Ok(last) => {
                self.metrics.committed(&turn.batch, begun.elapsed());
                self.show(turn, last);
                Ok(())
            }
            Err(error) => Err(self.fail(&error)),
        }
    }

    /// Moves the events of a durable turn to the tail.
    fn show(&mut self, turn: &mut Turn, last: Seq) {
        let events = std::mem::take(&mut turn.batch.events);
        if events.is_empty() {
            return;
        }
        turn.note(&events);
        self.metrics.count(&self.mesh, turn.now, &events);
        let first = last + 1 - Seq::try_from(events.len()).unwrap_or(0);
        self.tail.push(Entry { first, at: turn.now, events });
    }

    /// After a failed commit nothing of it has happened: the store is the truth.
    fn fail(&mut self, error: &StoreError) -> Problem {
        let full = matches!(error, StoreError::Full { .. });
        let problem = if full { store_full(error) } else { store_failed(error) };
        tracing::error!(%error, code = %problem.code, "commit failed");
        self.seats.leave();
        self.links.close_all();
        let blind = match recover::load(self.store.as_ref(), self.limits) {
            Ok((_folded, mesh)) => {
                self.books = Books::of(&mesh);
                self.mesh = mesh;
                false
            }
            Err(error) => {
                tracing::error!(%error, "state not read back");
                true
            }
        };
        self.health = if full && !blind {
            Health::Full(Instant::now() + FULL_RETRY, problem.clone())
        } else {
            Health::Failed(problem.clone(), blind)
        };
        self.tail.set_trouble(Some(problem.clone()));
        problem
    }

    /// Tries a full disk again when it is time to.
    fn recuperate(&mut self, turn: &mut Turn) {
        let Health::Full(at, problem) = &self.health else { return };
        if Instant::now() < *at {
            return;
        }
        let probe = vec![0; PROBE_BYTES];
        let digest = mesh_api::convert::digest_of(&probe);
        let fill = Batch { code: vec![(digest, probe.into())], ..Batch::default() };
        let clear = Batch { drop_code: vec![digest], ..Batch::default() };
        let problem = problem.clone();
        match self.store.append(&fill).and_then(|_seq| self.store.append(&clear)) {
            Ok(_seq) => {
                tracing::info!("store has room again");
                self.health = Health::Well;
                self.tail.set_trouble(None);
                drop(self.decide(turn, &Command::Restart, None)); // links were closed meanwhile
            }
            Err(StoreError::Full { .. }) => {
                self.health = Health::Full(Instant::now() + FULL_RETRY, problem);
            }
            Err(error) => {
                self.fail(&error);
            }
        }
    }

    /// Why nothing can be changed at the moment.
    fn trouble(&self) -> Option<&Problem> {
        match &self.health {
            Health::Well => None,
            Health::Full(_, problem) | Health::Failed(problem, _) => Some(problem),
        }
    }

    /// A clean end leaves a snapshot, so that the next start reads little.
    fn fold(&mut self) {
        if !matches!(self.health, Health::Well) {
            return;
        }
        let seq = self.store.last_seq();
        if seq == 0 {
            return;
        }
        if let Err(problem) = self.save_snapshot(seq, &self.mesh.snapshot()) {
            tracing::warn!(%problem, "last snapshot not written");
        }
    }

    /// Keeps a snapshot, and gives up the journal before it, except for those who still follow it.
    fn save_snapshot(&mut self, seq: Seq, snapshot: &Snapshot) -> Result<(), Problem> {
        let kept = seq.saturating_sub(EVENTS_KEPT);
        match self.store.save_snapshot(seq, snapshot, kept) {
            Ok(()) => {
                self.tail.set_folded(seq);
                Ok(())
            }
            // Nothing depends on it: whether the disk is full or broken shows at the next commit.
            Err(error @ StoreError::Full { .. }) => Err(store_full(&error)),
            Err(error) => Err(store_failed(&error)),
        }
    }
}

fn store_full(error: &StoreError) -> Problem {
    Problem {
        retry_after_ms: Some(5_000),
        ..Problem::new(
            "STORE_FULL",
            format!("nothing was changed: {error}"),
            "free some space on the disk of the state directory; work goes on by itself then",
        )
    }
}

fn store_failed(error: &StoreError) -> Problem {
    Problem::new(
        "STORE_FAILED",
        format!("nothing was changed: {error}"),
        "check the disk of the state directory, then restart the server; what was accepted is kept",
    )
}
