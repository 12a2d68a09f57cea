//! The owner of the state, without a thread, a clock or a disk of its own: it is told what was asked
//! and what time it is, and writes to the store that it was given. The server's thread drives it, and
//! so does the simulator.

use std::sync::Arc;
use std::time::Instant;

use mesh_api::problem::Problem;
use mesh_core::bug::{self, Bug};
use mesh_core::command::{Held, Report, Seen};
use mesh_core::model::task::{Cause, Data, Failure};
use mesh_core::model::time::{Span, Timestamp};
use mesh_core::{Command, Limits, Mesh};
use mesh_store::{Batch, Entry, Seq, Store, StoreError};

use super::ask::Ask;
use super::books::Books;
use super::dispatch::Seats;
use super::recover;
use super::turn::{Goodbye, Turn};
use super::watch::Watchers;
use super::{Settings, StartError};
use crate::agents::AgentLinks;
use crate::metrics::Metrics;
use crate::tail::Tail;

/// Most rounds of due timers in one turn.
const TICKS_MAX: usize = 16;
/// The shortest wait for a timer, so that one which can't be served does not spin.
const WAIT_MIN: Span = Span::from_millis(1);
/// How often a full disk is tried again.
const FULL_RETRY: Span = Span::from_secs(1);
/// How much room a full disk must have before work goes on.
const PROBE_BYTES: usize = 1 << 20;
/// How many events a snapshot leaves in the journal, for those who follow it.
pub(crate) const EVENTS_KEPT: Seq = mesh_fail::sooner(100_000, 20_000);

/// The owner of the state.
pub struct Engine {
    limits: Limits,
    pub(super) heartbeat: std::time::Duration,
    pub(super) mesh: Mesh,
    pub(super) books: Books,
    pub(super) store: Box<dyn Store>,
    pub(super) tail: Arc<Tail>,
    metrics: Arc<Metrics>,
    pub(super) links: Arc<AgentLinks>,
    pub(super) seats: Seats,
    pub(super) watchers: Watchers,
    /// Attempts that could not be sent because their arguments could not be read: they fail in the
    /// next turn.
    pub(super) unreadable: Vec<Held>,
    pub(super) health: Health,
    /// Time that was skipped, until that is durable.
    skipped: Span,
}

/// Whether anything can be made durable.
#[derive(Debug)]
pub(super) enum Health {
    Well,
    /// The disk is full, and its reserve was given up: what is here already may end, nothing new is
    /// taken. Whether there is room again is looked at then.
    Tight(Timestamp, Problem),
    /// The disk is full; it is tried again then.
    Full(Timestamp, Problem),
    /// The store must be opened again by a restart. `blind`: nor could the state be read back.
    Failed(Problem, bool),
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (health, seq) = (&self.health, self.store.last_seq());
        out.debug_struct("Engine")
            .field("health", health)
            .field("seq", &seq)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Reads the state back from a store. [`Engine::begin`] comes next.
    pub fn open(store: Box<dyn Store>, settings: Settings) -> Result<Self, StartError> {
        let (folded, mesh) = recover::load(store.as_ref(), settings.limits)?;
        Ok(Self {
            limits: settings.limits,
            heartbeat: settings.heartbeat,
            books: Books::of(&mesh),
            mesh,
            tail: Arc::new(Tail::new(store.last_seq(), folded)),
            store,
            metrics: Arc::new(Metrics::new()),
            links: Arc::new(AgentLinks::default()),
            seats: Seats::default(),
            watchers: Watchers::default(),
            unreadable: Vec::new(),
            health: Health::Well,
            skipped: Span::ZERO,
        })
    }

    /// Whether it is durable how much time was skipped: until then, the next life must find that out
    /// anew.
    pub fn has_told_time(&self) -> bool {
        self.skipped == Span::ZERO
    }

    /// The state.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// The end of the journal, which followers read.
    pub fn tail(&self) -> &Arc<Tail> {
        &self.tail
    }

    /// The links that are up.
    pub(crate) fn links(&self) -> &Arc<AgentLinks> {
        &self.links
    }

    /// What is counted.
    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The first turn: whatever the journal says, no agent is linked.
    /// `skipped` is how much of the time since the last life did not pass.
    pub fn begin(&mut self, now: Timestamp, skipped: Span) {
        mesh_fail::pass("engine.begin.before");
        let mut turn = Turn::new(now);
        if !self.store.hold_reserve() {
            self.tighten(now);
        }
        // Only commands that name something can be refused.
        self.skipped = skipped;
        drop(self.decide(&mut turn, &Command::Restart { skipped }, None));
        self.finish(turn);
        mesh_fail::pass("engine.begin.after");
    }

    /// One turn: all that was asked, what is due, and one commit. Times must not go back.
    pub fn turn(&mut self, now: Timestamp, asks: impl IntoIterator<Item = Ask>) -> Option<Goodbye> {
        let mut turn = Turn::new(now);
        self.recuperate(&mut turn);
        for ask in asks {
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
        if self.trouble().is_some() {
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
        let events = if matches!(self.health, Health::Well) {
            self.mesh.schedule(turn.now)
        } else {
            self.mesh.give_back_idle(turn.now)
        };
        turn.batch.events.extend(events);
    }

    /// How long nothing needs to be done unless somebody asks.
    pub fn wait(&self, now: Timestamp) -> Option<Span> {
        match &self.health {
            Health::Well | Health::Tight(..) if !self.unreadable.is_empty() => Some(Span::ZERO),
            Health::Well => Some(self.mesh.next_timer()?.since(now).max(WAIT_MIN)),
            Health::Tight(at, _) => {
                let due = self.mesh.next_timer().map_or(*at, |timer| timer.min(*at));
                Some(due.since(now).max(WAIT_MIN))
            }
            Health::Full(at, _) => Some(at.since(now).max(WAIT_MIN)),
            Health::Failed(..) => None,
        }
    }

    /// Makes a turn durable, and lets everybody know.
    fn finish(&mut self, mut turn: Turn) {
        self.mesh.take_changes();
        self.misbehave(&mut turn);
        match self.commit(&mut turn) {
            Ok(()) => {
                self.dispatch(&mut turn);
                mesh_fail::pass("engine.dispatch.after");
            }
            Err(problem) => turn.refuse(&problem),
        }
        self.answer(turn);
        mesh_fail::pass("engine.answer.after");
    }

    /// Lets others know too early, in a build that tests whether that would be noticed.
    fn misbehave(&mut self, turn: &mut Turn) {
        if bug::is(Bug::AckBeforeSync) {
            self.answer(turn.take_answers());
        }
        if bug::is(Bug::DispatchBeforeSync) {
            let events = turn.batch.events.clone();
            turn.note(&events);
            self.dispatch(turn);
        }
        if bug::is(Bug::ConfirmBeforeSync) {
            turn.reported.iter().for_each(|cluster| self.seats.acknowledge(cluster));
        }
    }

    fn commit(&mut self, turn: &mut Turn) -> Result<(), Problem> {
        if turn.batch.is_empty() {
            return Ok(());
        }
        turn.batch.at = turn.now;
        let begun = Instant::now();
        mesh_fail::pass("engine.commit.before");
        let mut appended = self.store.append(&turn.batch);
        if matches!(appended, Err(StoreError::Full { .. })) && self.store.release_reserve() {
            self.tighten(turn.now);
            appended = self.store.append(&turn.batch);
        }
        match appended {
            Ok(last) => {
                mesh_fail::pass("engine.commit.after");
                self.metrics.committed(&turn.batch, begun.elapsed());
                self.show(turn, last);
                Ok(())
            }
            Err(error) => Err(self.fail(turn.now, &error)),
        }
    }

    /// Moves the events of a durable turn to the tail.
    fn show(&mut self, turn: &mut Turn, last: Seq) {
        let events = std::mem::take(&mut turn.batch.events);
        if events.is_empty() {
            return;
        }
        turn.note(&events);
        if turn.skipped {
            self.skipped = Span::ZERO;
        }
        self.metrics.count(&self.mesh, turn.now, &events);
        let first = last + 1 - Seq::try_from(events.len()).unwrap_or(0);
        self.tail.push(Entry { first, at: turn.now, events });
    }

    /// After a failed commit nothing of it has happened: the store is the truth.
    fn fail(&mut self, now: Timestamp, error: &StoreError) -> Problem {
        let full = matches!(error, StoreError::Full { .. });
        let problem = if full { store_full(error) } else { store_failed(error) };
        tracing::error!(%error, code = %problem.code, "commit failed");
        mesh_fail::pass("engine.commit.failed");
        self.seats.leave();
        self.links.close_all();
        if bug::is(Bug::KeepAfterFailure) {
            return problem;
        }
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
            Health::Full(now.after(FULL_RETRY), problem.clone())
        } else {
            Health::Failed(problem.clone(), blind)
        };
        self.tail.set_trouble(Some(problem.clone()));
        problem
    }

    /// Takes nothing new until the disk has room for its reserve again.
    fn tighten(&mut self, now: Timestamp) {
        let problem = store_tight();
        if !matches!(self.health, Health::Tight(..)) {
            tracing::error!(code = %problem.code, "{}", problem.message);
        }
        self.tail.set_trouble(Some(problem.clone()));
        self.health = Health::Tight(now.after(FULL_RETRY), problem);
    }

    /// Takes everything again, if there is room for the reserve.
    fn loosen(&mut self, now: Timestamp) {
        if self.store.hold_reserve() {
            tracing::info!("store has room again");
            self.health = Health::Well;
            self.tail.set_trouble(None);
        } else {
            self.tighten(now);
        }
    }

    /// Tries a full disk again when it is time to.
    fn recuperate(&mut self, turn: &mut Turn) {
        let (Health::Full(at, problem) | Health::Tight(at, problem)) = &self.health else { return };
        if turn.now < *at {
            return;
        }
        if matches!(self.health, Health::Tight(..)) {
            return self.loosen(turn.now);
        }
        let probe = vec![0; PROBE_BYTES];
        let digest = mesh_api::convert::digest_of(&probe);
        let fill = Batch { code: vec![(digest, probe.into())], ..Batch::default() };
        let clear = Batch { drop_code: vec![digest], ..Batch::default() };
        let problem = problem.clone();
        match self.store.append(&fill).and_then(|_seq| self.store.append(&clear)) {
            Ok(_seq) => {
                self.loosen(turn.now);
                let again = Command::Restart { skipped: self.skipped };
                drop(self.decide(turn, &again, None)); // links were closed meanwhile
            }
            Err(StoreError::Full { .. }) => {
                self.health = Health::Full(turn.now.after(FULL_RETRY), problem);
            }
            Err(error) => {
                self.fail(turn.now, &error);
            }
        }
    }

    /// Why nothing can be changed at the moment.
    pub(super) fn trouble(&self) -> Option<&Problem> {
        match &self.health {
            Health::Well | Health::Tight(..) => None,
            Health::Full(_, problem) | Health::Failed(problem, _) => Some(problem),
        }
    }

    /// Why nothing new is taken at the moment.
    pub(super) fn refuses_new(&self) -> Option<&Problem> {
        match &self.health {
            Health::Tight(_, problem) => Some(problem),
            _ => self.trouble(),
        }
    }

    /// A clean end leaves a snapshot, so that the next start reads little.
    pub fn fold(&mut self) {
        if !matches!(self.health, Health::Well) {
            return;
        }
        let seq = self.store.last_seq();
        if seq == 0 {
            return;
        }
        let kept = seq.saturating_sub(EVENTS_KEPT);
        mesh_fail::pass("engine.fold.before");
        match self.store.save_snapshot(seq, &self.mesh.snapshot(), kept) {
            Ok(()) => self.tail.set_folded(seq),
            // Nothing depends on it: whether the disk is full or broken shows at the next commit.
            Err(error) => tracing::warn!(%error, "last snapshot not written"),
        }
        mesh_fail::pass("engine.fold.after");
    }
}

fn store_tight() -> Problem {
    Problem {
        retry_after_ms: Some(5_000),
        ..Problem::new(
            "STORE_FULL",
            "the disk of the state directory is full: what runs may end and be cancelled, nothing new \
             is accepted or started",
            "free some space on that disk; work goes on by itself then",
        )
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

pub(super) fn store_failed(error: &StoreError) -> Problem {
    Problem::new(
        "STORE_FAILED",
        format!("the store failed, and takes no more changes: {error}"),
        "check the disk of the state directory, then restart the server: what was accepted is kept, and \
         asking again under the same key is safe",
    )
}
