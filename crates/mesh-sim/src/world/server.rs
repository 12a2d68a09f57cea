//! The control plane of the world: the production engine, and around it what its process would do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use mesh_api::agent::{Heartbeat, ToAgent};
use mesh_api::problem::Problem;
use mesh_core::model::id::ClusterName;
use mesh_core::model::time::{Span, Timestamp};
use mesh_core::snapshot::Snapshot;
use mesh_core::{Command, Mesh};
use mesh_server::agents::FRAME_BYTES_MAX;
use mesh_server::agents::protocol::{self, Heard, SILENCE_BEATS};
use mesh_server::clock::Reckoning;
use mesh_server::driver::ask::{AgentSaid, Ask, LinkAsk};
use mesh_server::driver::{Engine, Settings};
use mesh_server::outbox::{Inbox, outbox};
use mesh_store::{SnapshotWriter, Store as _};
use tokio::sync::oneshot::{self, Receiver};

use super::client::{Answer, Waiter};
use super::disk::PowerLost;
use super::net::{ConnId, End};
use super::{Happening, World};
use crate::history::{Law, Verdict, Violation, law};
use crate::panics::{self, Outcome};

/// The process.
pub(super) struct Server {
    pub(super) engine: Option<Engine>,
    /// Which life this is.
    pub(super) life: u64,
    reckoning: Reckoning,
    started: Timestamp,
    queue: Vec<Ask>,
    waiters: Vec<Waiter>,
    /// Agents that said hello and are not linked yet.
    greeting: Vec<(ConnId, Linked)>,
    links: BTreeMap<ConnId, Link>,
    writer: Option<Box<dyn SnapshotWriter>>,
    /// When its next turn is, unless something is asked before.
    next_turn: Option<Timestamp>,
    /// When it can begin its next turn.
    free_at: Timestamp,
    /// How long a commit takes.
    pub(super) commit: Span,
}

/// The answer to a hello.
type Linked = Receiver<Result<(), Problem>>;

#[derive(Debug)]
struct Link {
    cluster: ClusterName,
    inbox: Inbox<ToAgent>,
}

impl Server {
    pub(super) fn off() -> Self {
        Self {
            engine: None,
            life: 0,
            reckoning: Reckoning::start(Timestamp::default(), Timestamp::default()),
            started: Timestamp::default(),
            queue: Vec::new(),
            waiters: Vec::new(),
            greeting: Vec::new(),
            links: BTreeMap::new(),
            writer: None,
            next_turn: None,
            free_at: Timestamp::default(),
            commit: Span::from_millis(1),
        }
    }
}

impl World {
    /// The process starts.
    pub(super) fn start_server(&mut self) -> Verdict {
        let settings = Settings {
            limits: self.plan.limits,
            heartbeat: Duration::from_micros(self.plan.heartbeat.micros()),
        };
        let disk = self.disk.clone();
        let opened = panics::watch::<PowerLost, _>(|| {
            let store = disk.open().map_err(|error| error.to_string())?;
            let writer = store.snapshots();
            let engine = Engine::open(Box::new(store), settings);
            engine.map(|engine| (engine, writer)).map_err(|error| error.to_string())
        });
        let (engine, writer) = match opened {
            Outcome::Returned(engine) => engine.map_err(|error| {
                Violation::new(Law::ReplayEqualsLive, format!("it does not start: {error}"))
            })?,
            Outcome::Unwound => return Ok(()),
            Outcome::Panicked(why) => return Err(Violation::new(Law::NoPanic, why)),
        };
        self.read_journal()?;
        self.compare(engine.mesh())?;
        let truly = self.mark.map(|(then, time)| time.after(self.now.since(then)));
        let (reckoning, skipped) = Reckoning::resume(self.wall(), engine.mesh().at(), truly);
        self.server = Server {
            reckoning,
            started: self.now,
            life: self.server.life + 1,
            free_at: self.now,
            commit: self.server.commit,
            engine: Some(engine),
            writer: Some(writer),
            ..Server::off()
        };
        self.stats.lives += 1;
        let now = self.server_time();
        self.run_engine(|engine| engine.begin(now, skipped))?;
        if self.server.engine.as_ref().is_some_and(Engine::has_told_time) {
            self.mark = Some((self.now, now));
        }
        self.read_journal()?;
        for index in 0..self.agents.len() {
            let add = self.add_cluster(index);
            self.server.queue.push(add);
        }
        self.plan_turn();
        Ok(())
    }

    /// The control plane's time.
    pub(super) fn server_time(&self) -> Timestamp {
        let passed = self.now.since(self.server.started);
        self.server.reckoning.time(passed, || self.wall())
    }

    /// Puts a question into the queue; whether anybody will hear it.
    pub(super) fn ask(&mut self, ask: Ask, waiter: Option<Waiter>) -> bool {
        if self.server.engine.is_none() {
            return false;
        }
        self.server.queue.push(ask);
        self.server.waiters.extend(waiter);
        self.plan_turn();
        true
    }

    /// Makes sure that there is a turn when one is due.
    pub(super) fn plan_turn(&mut self) {
        let Some(engine) = &self.server.engine else { return };
        let due = if self.server.queue.is_empty() {
            let Some(wait) = engine.wait(self.server_time()) else { return };
            self.now.after(wait)
        } else {
            self.now
        };
        let due = due.max(self.server.free_at);
        if self.server.next_turn.is_none_or(|planned| due < planned) {
            self.server.next_turn = Some(due);
            self.at(due, Happening::Turn { life: self.server.life });
        }
    }

    /// One turn, and all that leaves the process because of it.
    pub(super) fn turn(&mut self, life: u64) -> Verdict {
        let is_due = self.server.next_turn.is_some_and(|due| due <= self.now);
        if life != self.server.life || self.server.engine.is_none() || !is_due {
            return Ok(());
        }
        self.server.next_turn = None;
        let asks = std::mem::take(&mut self.server.queue);
        self.trace(|| format!("turn of {} asks {asks:?}", asks.len()));
        let (now, commits) = (self.server_time(), self.disk.commits());
        self.stats.turns += 1;
        self.run_engine(|engine| drop(engine.turn(now, asks)))?;
        self.read_journal()?;
        let spent = if self.disk.commits() > commits { self.server.commit } else { Span::ZERO };
        self.server.free_at = self.now.after(spent);
        self.let_out(spent)?;
        if self.stats.turns.is_multiple_of(64)
            && let Some(engine) = &self.server.engine
        {
            self.compare(engine.mesh())?;
        }
        self.plan_turn();
        Ok(())
    }

    /// Runs the engine, which may lose its power on the way; what it let out before is out.
    fn run_engine(&mut self, run: impl FnOnce(&mut Engine)) -> Verdict {
        let Some(mut engine) = self.server.engine.take() else { return Ok(()) };
        let outcome = panics::watch::<PowerLost, _>(move || {
            run(&mut engine);
            engine
        });
        match outcome {
            Outcome::Returned(engine) => {
                self.server.engine = Some(engine);
                Ok(())
            }
            Outcome::Unwound => {
                self.trace(|| "the power is lost in the commit".into());
                self.let_out(Span::ZERO)?;
                let silently = self.dice.bool();
                self.server_is_gone(silently);
                Ok(())
            }
            Outcome::Panicked(why) => Err(Violation::new(Law::NoPanic, why)),
        }
    }

    /// Passes on what the engine answered and sent.
    fn let_out(&mut self, spent: Span) -> Verdict {
        let mut answered: Vec<(usize, Answer)> = Vec::new();
        self.server.waiters.retain_mut(|waiter| match waiter.poll() {
            Some(answer) => {
                answered.push((waiter.client, answer));
                false
            }
            None => !waiter.is_dropped(),
        });
        for (client, answer) in answered {
            self.hear_answer_later(client, answer, spent);
        }
        let mut refused = Vec::new();
        self.server.greeting.retain_mut(|(conn, reply)| match reply.try_recv() {
            Ok(Err(problem)) => {
                refused.push((*conn, problem));
                false
            }
            Err(oneshot::error::TryRecvError::Empty) => true,
            Ok(Ok(())) | Err(oneshot::error::TryRecvError::Closed) => false,
        });
        for (conn, problem) in refused {
            self.trace(|| format!("link {conn} is refused: {}", problem.code));
            self.push_frame(conn, &ToAgent::Refused(problem))?;
            self.close(conn, End::Server);
            self.server.links.remove(&conn);
        }
        self.flush_links()?;
        self.flush_notices();
        Ok(())
    }

    fn flush_links(&mut self) -> Verdict {
        let mut frames = Vec::new();
        let mut closing = Vec::new();
        for (conn, link) in &mut self.server.links {
            while let Some(frame) = link.inbox.take() {
                let last = matches!(frame, ToAgent::Refused(_));
                frames.push((*conn, frame));
                if last {
                    closing.push(*conn);
                    break;
                }
            }
            if link.inbox.is_closed() {
                closing.push(*conn);
            }
        }
        for (conn, frame) in frames {
            self.push_frame(conn, &frame)?;
        }
        for conn in closing {
            self.end_link(conn);
        }
        Ok(())
    }

    fn push_frame(&mut self, conn: ConnId, frame: &ToAgent) -> Verdict {
        let bytes = mesh_api::encode(frame)
            .map_err(|error| Violation::new(Law::NoPanic, format!("a frame: {error}")))?;
        if self.is_open(conn, End::Server) {
            self.send(conn, End::Agent, bytes.into());
        }
        Ok(())
    }

    /// The server's side of a link ends.
    fn end_link(&mut self, conn: ConnId) {
        self.close(conn, End::Server);
        if let Some(link) = self.server.links.remove(&conn) {
            let gone = Ask::Agent { link: conn, cluster: link.cluster, said: AgentSaid::Gone };
            self.ask(gone, None);
        }
    }

    /// A frame arrives from an agent.
    pub(super) fn frame_to_server(&mut self, conn: ConnId, bytes: &Bytes) -> Verdict {
        if !self.arrives(conn, End::Server) || self.server.engine.is_none() {
            return Ok(());
        }
        if let Some(link) = self.server.links.get(&conn) {
            let cluster = link.cluster.clone();
            match protocol::hear(bytes) {
                Ok(Heard::Said(said)) => {
                    self.ask(Ask::Agent { link: conn, cluster, said }, None);
                }
                Ok(_) => {}
                Err(problem) => {
                    return Err(Violation::new(Law::NoPanic, format!("not heard: {problem}")));
                }
            }
            return Ok(());
        }
        let greeting = protocol::greeting(bytes, None)
            .map_err(|problem| Violation::new(Law::NoPanic, format!("no hello: {problem}")))?;
        let (to_agent, inbox) = outbox(FRAME_BYTES_MAX);
        let (reply, answer) = oneshot::channel();
        let link = LinkAsk {
            link: conn,
            cluster: greeting.cluster.clone(),
            facts: greeting.facts,
            held: greeting.held,
            nodes: greeting.nodes,
            outbox: to_agent,
            reply,
        };
        self.server.links.insert(conn, Link { cluster: greeting.cluster, inbox });
        self.server.greeting.push((conn, answer));
        self.ask(Ask::Link(Box::new(link)), None);
        Ok(())
    }

    /// The server learns that a connection is gone.
    pub(super) fn closed_to_server(&mut self, conn: ConnId) {
        if let Some(known) = self.net.conns.get_mut(&conn) {
            known.open[End::Server.index()] = false;
        }
        self.forget_if_closed(conn);
        self.end_link(conn);
    }

    /// Both ends of a connection say that they are there, and look whether the other one is.
    pub(super) fn beat(&mut self, id: ConnId) -> Verdict {
        let Some(conn) = self.net.conns.get(&id) else { return Ok(()) };
        let silence = self.plan.heartbeat.times(SILENCE_BEATS.into());
        let silent = |end: End| self.now.since(conn.heard[end.index()]) > silence;
        let (agent, deaf) = (conn.agent, [silent(End::Server), silent(End::Agent)]);
        if deaf[0] && self.is_open(id, End::Server) {
            self.end_link(id);
        } else if self.server.links.contains_key(&id) {
            self.push_frame(id, &ToAgent::Heartbeat(Heartbeat::default()))?;
        }
        self.agent_beats(agent, id, deaf[1]);
        self.after(self.plan.heartbeat, Happening::Beat(id));
        Ok(())
    }

    /// The process is gone.
    pub(super) fn server_is_gone(&mut self, silently: bool) {
        self.server.engine = None;
        self.server.writer = None;
        self.server.queue.clear();
        self.server.next_turn = None;
        let lost = std::mem::take(&mut self.server.waiters);
        self.server.greeting.clear();
        self.server.links.clear();
        if silently {
            self.lose_time();
            self.vanish(End::Server);
        } else {
            let open: Vec<ConnId> = self.net.conns.keys().copied().collect();
            for conn in open {
                self.close(conn, End::Server);
            }
        }
        self.clients_lose(lost);
        let down = Span::from_millis(self.dice.u64(10..5_000));
        self.after(down, Happening::Restart);
    }

    /// A machine that starts again can't tell how long it was off but by its wall clock: in this world
    /// that one was right.
    fn lose_time(&mut self) {
        let error = |late: Timestamp, early: Timestamp| {
            i64::try_from(late.since(early).micros()).unwrap_or(i64::MAX)
        };
        let time = self.server_time();
        self.wall_error = error(time, self.now) - error(self.now, time);
        self.mark = None;
    }

    /// The control plane ends as it should.
    pub(super) fn stop_cleanly(&mut self) -> Verdict {
        let (reply, _done) = oneshot::channel();
        let now = self.server_time();
        let asks = std::mem::take(&mut self.server.queue);
        let with_snapshot = self.dice.bool();
        self.run_engine(|engine| {
            let goodbye = Ask::Shutdown { snapshot: with_snapshot, reply };
            drop(engine.turn(now, asks.into_iter().chain([goodbye])));
            if with_snapshot {
                engine.fold();
            }
        })?;
        self.read_journal()?;
        if self.server.engine.is_some() {
            self.let_out(Span::ZERO)?;
            self.server_is_gone(false);
        }
        Ok(())
    }

    /// A snapshot is written beside the engine, from what is on the disk.
    pub(super) fn write_snapshot(&mut self) {
        let seq = self.journal.last();
        let keep_after = self.dice.u64(..=seq);
        let snapshot = self.shadow.snapshot();
        if let Some(writer) = &mut self.server.writer {
            // A disk that has no room keeps the one before; one that fails stops the engine too.
            drop(writer.save(seq, &snapshot, keep_after));
        }
    }

    /// Takes in what has become durable.
    pub(super) fn read_journal(&mut self) -> Verdict {
        let after = self.journal.last();
        let entries = self.disk.entries_after(after);
        for entry in entries {
            self.stats.events += u64::try_from(entry.events.len()).unwrap_or(0);
            self.trace(|| format!("journal {} {:?}", entry.first, entry.events));
            self.journal.entry(&entry, Some(self.now))?;
            entry.events.iter().for_each(|event| self.shadow.apply(entry.at, event));
            self.witness_ends(&entry);
            self.log.push(entry);
        }
        Ok(())
    }

    /// The state that decides must be the one that the journal leads to.
    pub(super) fn compare(&self, mesh: &Mesh) -> Verdict {
        let (live, replayed) = (mesh.snapshot(), self.shadow.snapshot());
        law(Law::ReplayEqualsLive, live == replayed, || difference(&live, &replayed))?;
        self.shadow.check().map_err(|wrong| Violation::new(Law::ReplayEqualsLive, wrong.join("; ")))
    }

    pub(super) fn add_cluster(&mut self, agent: usize) -> Ask {
        let name = self.agents[agent].name.clone();
        let spec = Box::new(self.cluster_spec());
        let (reply, _nobody) = oneshot::channel();
        Ask::Commands { commands: vec![Command::AddCluster(name, spec)], reply }
    }
}

/// In what two states differ.
fn difference(live: &Snapshot, replayed: &Snapshot) -> String {
    fn lines<T: std::fmt::Debug>(of: &[T]) -> BTreeSet<String> {
        of.iter().map(|one| format!("{one:?}")).collect()
    }
    let all = |state: &Snapshot| {
        let mut all = lines(&state.tasks);
        all.extend(lines(&state.specs));
        all.extend(lines(&state.clusters));
        all.extend(lines(&state.leases));
        all.extend(state.code.iter().map(|code| format!("{code:?}")));
        let (next, forgotten) = (state.next, (state.forgotten, state.forgotten_until));
        all.insert(format!("{:?} {next:?} {forgotten:?}", state.at));
        all
    };
    let (live, replayed) = (all(live), all(replayed));
    let only: Vec<_> = live.difference(&replayed).cloned().collect();
    let other: Vec<_> = replayed.difference(&live).cloned().collect();
    format!("live {}; replayed {}", only.join(", "), other.join(", "))
}
