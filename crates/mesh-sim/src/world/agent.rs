//! An agent and its Ray cluster, as far as the control plane can tell them from real ones: attempts
//! that are held until their end is confirmed, numbered reports that are sent again, workers that run
//! the tasks of a lease one after the other, actors, jobs that outlive their agent, and all that can
//! happen to them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use mesh_api::LINK_PROTOCOL;
use mesh_api::agent::{
    DataFrame, FromAgent, Happened, Heartbeat, HeldTask, Hello, Node, RemoteError, ReportFrame,
    ReportItem, StartFrame, StartTask, StopTask, ToAgent, WorkFrame,
};
use mesh_core::model::id::{Attempt, ClusterName, TaskId};
use mesh_core::model::time::{Span, Timestamp};

use super::net::{ConnId, End};
use super::{Happening, World};
use crate::history::{Law, Verdict, Violation, law};
use crate::plan::Fault;

/// An attempt: the task, and which assignment of it.
pub(super) type Fence = (u64, u32);

/// Most reports in one frame: few, so that there are many frames.
const REPORTS_MAX: usize = 7;

/// One cluster with its agent.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) name: ClusterName,
    pub(super) alive: bool,
    pub(super) frozen: bool,
    /// Which life of the agent this is.
    pub(super) life: u128,
    pub(super) conn: Option<ConnId>,
    linked: bool,
    pub(super) nodes: Vec<SimNode>,
    held: BTreeMap<Fence, Work>,
    lanes: BTreeMap<u64, VecDeque<Fence>>,
    reports: VecDeque<ReportItem>,
    /// The number of the first report that is kept, and how many of them were sent on this link.
    first: u64,
    sent: usize,
    /// Jobs that run in Ray, whoever looks after them, and when they end.
    jobs: BTreeMap<Fence, Timestamp>,
    /// What arrived while it stood still.
    backlog: Vec<(ConnId, Bytes)>,
}

/// A node of the cluster.
#[derive(Debug)]
pub(super) struct SimNode {
    name: String,
    cores: u32,
    pub(super) foreign: u32,
    pub(super) alive: bool,
}

#[derive(Debug)]
struct Work {
    kind: Kind,
    lease: u64,
    node: String,
    state: State,
    stop: bool,
    began: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Function,
    Actor,
    Call(u64),
    Job,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Queued,
    Running,
    Ended,
}

/// What becomes of a piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It can begin.
    Begin,
    /// It is through.
    Done,
    /// It was to stop, and has had its time.
    Killed,
    /// Its worker is busy for too long.
    HandBack,
}

impl Agent {
    pub(super) fn new(name: ClusterName, nodes: Vec<SimNode>) -> Self {
        Self {
            name,
            alive: true,
            frozen: false,
            life: 0,
            conn: None,
            linked: false,
            nodes,
            held: BTreeMap::new(),
            lanes: BTreeMap::new(),
            reports: VecDeque::new(),
            first: 1,
            sent: 0,
            jobs: BTreeMap::new(),
            backlog: Vec::new(),
        }
    }

    fn hello(&self) -> FromAgent {
        let held =
            self.held.keys().map(|(task, attempt)| HeldTask { task: *task, attempt: *attempt });
        FromAgent::Hello(Hello {
            protocol: LINK_PROTOCOL,
            cluster: self.name.to_string(),
            incarnation: uuid::Uuid::from_u128(self.life).to_string(),
            version: "simulated".into(),
            python: "3.11.7".into(),
            ray: "2.60.0".into(),
            platform: "simulated".into(),
            held: held.collect(),
            nodes: self.node_frames(),
        })
    }

    fn node_frames(&self) -> Vec<Node> {
        let alive = self.nodes.iter().filter(|node| node.alive);
        let frame = |node: &SimNode| Node {
            id: node.name.clone(),
            address: "127.0.0.1".into(),
            labels: BTreeMap::new(),
            total: [("CPU".to_owned(), f64::from(node.cores))].into(),
            foreign: [("CPU".to_owned(), f64::from(node.foreign))].into(),
        };
        alive.map(frame).collect()
    }

    /// Whether anything of an attempt still goes on here.
    pub(super) fn runs(&self, fence: Fence) -> bool {
        self.jobs.contains_key(&fence)
            || self.held.get(&fence).is_some_and(|work| work.state == State::Running)
    }

    /// Nodes come that have room for everything.
    pub(super) fn grow(&mut self, nodes: usize) {
        let large = (0..nodes).map(|node| SimNode::new(format!("{}-large-{node}", self.name), 500));
        self.nodes.extend(large);
    }

    fn running(&self) -> Vec<Fence> {
        let running = self.held.iter().filter(|(_, work)| work.state == State::Running);
        running.map(|(fence, _)| *fence).collect()
    }

    fn open(&self) -> Vec<Fence> {
        let open = self.held.iter().filter(|(_, work)| work.state != State::Ended);
        open.map(|(fence, _)| *fence).collect()
    }
}

impl SimNode {
    pub(super) fn new(name: String, cores: u32) -> Self {
        Self { name, cores, foreign: 0, alive: true }
    }
}

impl World {
    /// An agent that is alive and has no connection dials one.
    pub(super) fn agent_dials(&mut self, index: usize) -> Verdict {
        let agent = &self.agents[index];
        if agent.alive && !agent.frozen && agent.conn.is_none() {
            match self.dial(index) {
                Some(conn) => {
                    let hello = self.agents[index].hello();
                    self.agents[index].conn = Some(conn);
                    self.agents[index].linked = false;
                    self.trace(|| format!("agent {index} dials, link {conn}"));
                    self.say(index, &hello)?;
                }
                None => self.redial(index),
            }
        }
        Ok(())
    }

    fn redial(&mut self, index: usize) {
        let pause = Span::from_millis(self.dice.u64(20..1_000));
        self.after(pause, Happening::Dial(index));
    }

    fn say(&mut self, index: usize, frame: &FromAgent) -> Verdict {
        let bytes = mesh_api::encode(frame)
            .map_err(|error| Violation::new(Law::NoPanic, format!("a frame: {error}")))?;
        if let Some(conn) = self.agents[index].conn {
            self.send(conn, End::Server, bytes.into());
        }
        Ok(())
    }

    /// Its part of a heartbeat.
    pub(super) fn agent_beats(&mut self, index: usize, conn: ConnId, deaf: bool) {
        let agent = &self.agents[index];
        if agent.conn != Some(conn) || agent.frozen || !agent.alive {
            return;
        }
        if deaf {
            self.leave(index);
        } else {
            let unacked = u64::try_from(agent.reports.len()).unwrap_or(0);
            drop(self.say(index, &FromAgent::Heartbeat(Heartbeat { unacked }))); // always encodes
        }
    }

    /// The agent gives up its connection, and dials again.
    pub(super) fn leave(&mut self, index: usize) {
        if let Some(conn) = self.agents[index].conn.take() {
            self.agents[index].linked = false;
            self.close(conn, End::Agent);
        }
        self.redial(index);
    }

    /// The agent learns that a connection is gone.
    pub(super) fn closed_to_agent(&mut self, conn: ConnId) {
        let Some(index) = self.net.conns.get_mut(&conn).map(|conn| {
            conn.open[End::Agent.index()] = false;
            conn.agent
        }) else {
            return;
        };
        self.forget_if_closed(conn);
        if self.agents[index].conn == Some(conn) {
            self.agents[index].conn = None;
            self.agents[index].linked = false;
            self.redial(index);
        }
    }

    /// A frame arrives at an agent.
    pub(super) fn frame_to_agent(&mut self, conn: ConnId, bytes: &Bytes) -> Verdict {
        if !self.arrives(conn, End::Agent) {
            return Ok(());
        }
        let Some(index) = self.net.conns.get(&conn).map(|conn| conn.agent) else { return Ok(()) };
        if self.agents[index].conn != Some(conn) {
            return Ok(());
        }
        if self.agents[index].frozen {
            self.agents[index].backlog.push((conn, bytes.clone()));
            return Ok(());
        }
        let frame: ToAgent = mesh_api::decode(bytes)
            .map_err(|error| Violation::new(Law::NoPanic, format!("a frame: {error}")))?;
        self.agent_hears(index, frame)
    }

    fn agent_hears(&mut self, index: usize, frame: ToAgent) -> Verdict {
        match frame {
            ToAgent::Welcome(welcome) => {
                self.agents[index].linked = true;
                self.agents[index].sent = 0;
                self.confirmed(index, welcome.acked)?;
                let nodes = FromAgent::Nodes(self.agents[index].node_frames());
                self.say(index, &nodes)?;
                self.report(index)
            }
            ToAgent::Refused(problem) => {
                self.trace(|| format!("agent {index} is refused: {}", problem.code));
                self.leave(index);
                Ok(())
            }
            ToAgent::Ack { seq } => self.confirmed(index, seq),
            ToAgent::Start(frame) => self.agent_starts(index, frame),
            ToAgent::Stop(tasks) => self.agent_stops(index, &tasks),
            ToAgent::Ask(_) | ToAgent::Piece(_) | ToAgent::Pushed(_) | ToAgent::Heartbeat(_) => {
                Ok(())
            }
        }
    }

    /// Reports up to this number are durable: what ended is let go of.
    fn confirmed(&mut self, index: usize, seq: u64) -> Verdict {
        let agent = &mut self.agents[index];
        while agent.first <= seq
            && let Some(item) = agent.reports.pop_front()
        {
            agent.first += 1;
            agent.sent = agent.sent.saturating_sub(1);
            if !matches!(item.what, Happened::Started) {
                let fence = (item.task, item.attempt);
                let current = self.journal.is_current(TaskId(fence.0), Attempt(fence.1));
                law(Law::AcknowledgedIsDurable, !current, || {
                    format!("{item:?} was confirmed and is not in the journal")
                })?;
                if agent.held.get(&fence).is_some_and(|work| work.state == State::Ended) {
                    agent.held.remove(&fence);
                }
            }
        }
        Ok(())
    }

    /// Sends the reports that this link has not carried yet.
    fn report(&mut self, index: usize) -> Verdict {
        loop {
            let agent = &mut self.agents[index];
            if !agent.linked || agent.frozen || agent.sent >= agent.reports.len() {
                return Ok(());
            }
            let seq = agent.first + u64::try_from(agent.sent).unwrap_or(0);
            let items: Vec<_> =
                agent.reports.iter().skip(agent.sent).take(REPORTS_MAX).cloned().collect();
            agent.sent += items.len();
            self.say(index, &FromAgent::Report(ReportFrame { seq, items }))?;
        }
    }

    fn tell(&mut self, index: usize, (task, attempt): Fence, what: Happened) -> Verdict {
        self.trace(|| format!("agent {index} reports t{task} #{attempt} {what:?}"));
        self.agents[index].reports.push_back(ReportItem { task, attempt, what });
        self.report(index)
    }

    fn agent_starts(&mut self, index: usize, frame: StartFrame) -> Verdict {
        let nodes: BTreeMap<u64, String> =
            frame.leases.into_iter().map(|lease| (lease.lease, lease.node)).collect();
        let mut lanes = BTreeSet::new();
        for task in frame.tasks {
            let fence = (task.task, task.attempt);
            if self.agents[index].held.contains_key(&fence) {
                continue;
            }
            self.check_arguments(&task)?;
            let kind = match task.work {
                WorkFrame::Function { .. } => Kind::Function,
                WorkFrame::Actor { .. } => Kind::Actor,
                WorkFrame::Call { actor, .. } => Kind::Call(actor),
                WorkFrame::Job => Kind::Job,
            };
            let work = Work {
                kind,
                lease: task.lease,
                node: nodes.get(&task.lease).cloned().unwrap_or_default(),
                state: State::Queued,
                stop: false,
                began: Timestamp::default(),
            };
            let agent = &mut self.agents[index];
            agent.held.insert(fence, work);
            agent.lanes.entry(task.lease).or_default().push_back(fence);
            lanes.insert(task.lease);
            if self.dice.u8(..12) == 0 {
                let patience = Span::from_millis(self.dice.u64(10..500));
                self.after(
                    patience,
                    Happening::Work(index, self.agents[index].life, fence, Step::HandBack),
                );
            }
        }
        for lane in lanes {
            self.pump(index, lane);
        }
        Ok(())
    }

    /// The arguments that arrive are those that were submitted.
    fn check_arguments(&self, task: &StartTask) -> Verdict {
        let arrived = match &task.payload {
            DataFrame::Inline(bytes) => bytes.clone(),
            DataFrame::None | DataFrame::Blob(_) => Bytes::new(),
        };
        let Some(expected) = self.arguments.get(&TaskId(task.task)) else { return Ok(()) };
        law(Law::ResultAsStored, arrived == *expected, || {
            format!("t{} was sent {arrived:?} and not {expected:?}", task.task)
        })
    }

    /// Has the next task of a lease begin, when its worker is free.
    fn pump(&mut self, index: usize, lane: u64) {
        let slow = if self.has(Fault::SlowStart) { 3_000 } else { 20 };
        let agent = &mut self.agents[index];
        let Some(queue) = agent.lanes.get(&lane) else { return };
        let is_running = |fence: &Fence| {
            agent
                .held
                .get(fence)
                .is_some_and(|work| work.state == State::Running && work.kind != Kind::Actor)
        };
        if queue.iter().any(is_running) {
            return;
        }
        let waits =
            |fence: &&Fence| agent.held.get(fence).is_some_and(|work| work.state == State::Queued);
        let Some(next) = queue.iter().find(waits).copied() else { return };
        let life = agent.life;
        let pause = Span::from_millis(self.dice.u64(0..slow));
        self.after(pause, Happening::Work(index, life, next, Step::Begin));
    }

    /// Something becomes of a piece of work.
    pub(super) fn work(&mut self, index: usize, life: u128, fence: Fence, step: Step) -> Verdict {
        let agent = &self.agents[index];
        if agent.life != life || !agent.alive {
            return Ok(());
        }
        let Some(work) = agent.held.get(&fence) else { return Ok(()) };
        match (step, work.state) {
            (Step::Begin, State::Queued) if !work.stop => self.begin(index, fence),
            (Step::Done, State::Running) => self.done(index, fence),
            (Step::Killed, State::Queued | State::Running) if work.stop => {
                let run_us = self.ran(index, fence);
                self.end(index, fence, Happened::Stopped { run_us })
            }
            (Step::HandBack, State::Queued) if !work.stop => {
                self.end(index, fence, Happened::Returned)
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, index: usize, fence: Fence) -> Verdict {
        let lane = self.agents[index].held.get(&fence).map(|work| work.lease);
        let busy = lane.and_then(|lane| self.agents[index].lanes.get(&lane)).is_some_and(|queue| {
            let held = &self.agents[index].held;
            let running = |other: &Fence| {
                held.get(other)
                    .is_some_and(|work| work.state == State::Running && work.kind != Kind::Actor)
            };
            queue.iter().any(running)
        });
        if busy {
            return Ok(());
        }
        if self.has(Fault::StartFails) && self.dice.u8(..8) == 0 {
            return self.end(index, fence, failed("not_started", 0));
        }
        self.may_run(index, fence)?;
        let now = self.now;
        let (life, run) = (self.agents[index].life, self.run_time(fence));
        let Some(work) = self.agents[index].held.get_mut(&fence) else { return Ok(()) };
        work.state = State::Running;
        work.began = now;
        let kind = work.kind;
        if kind == Kind::Job {
            self.agents[index].jobs.insert(fence, now.after(run));
        }
        if kind != Kind::Actor {
            self.after(run, Happening::Work(index, life, fence, Step::Done));
        }
        if kind != Kind::Function || self.dice.bool() {
            self.tell(index, fence, Happened::Started)?;
        }
        if kind == Kind::Actor {
            let lane = self.agents[index].held.get(&fence).map_or(0, |work| work.lease);
            self.pump(index, lane);
        }
        Ok(())
    }

    /// An attempt that begins was assigned durably, and nothing replaced it that could be known here.
    fn may_run(&mut self, index: usize, (task, attempt): Fence) -> Verdict {
        let id = TaskId(task);
        let known = self.journal.attempt(id);
        law(Law::OneCurrentAttempt, known.is_some_and(|known| known >= Attempt(attempt)), || {
            format!("t{task} #{attempt} runs, the journal has it at {known:?}")
        })?;
        let rival = (1..attempt).find_map(|earlier| {
            let others = self.agents.iter().enumerate();
            let mut running =
                others.filter(|(_, other)| other.alive && other.runs((task, earlier)));
            running.next().map(|(other, _)| (earlier, other))
        });
        let Some((earlier, other)) = rival else { return Ok(()) };
        // Only a cluster that was given up may run what was replaced.
        let given_up = self.given_up.get(&self.agents[other].name).copied();
        law(Law::OneCurrentAttempt, given_up.is_some(), || {
            format!("t{task} #{attempt} begins on {index} while #{earlier} runs on {other}")
        })
    }

    /// How long an attempt runs: the same whenever it is asked.
    fn run_time(&self, (task, attempt): Fence) -> Span {
        let mut dice = fastrand::Rng::with_seed(
            self.plan.seed ^ task.wrapping_mul(0x9e37_79b9) ^ u64::from(attempt) << 40,
        );
        let longest = self.plan.run_max.micros().max(1_000);
        let long = dice.u8(..20) == 0;
        Span::from_micros(if long { dice.u64(0..longest * 4) } else { dice.u64(0..longest / 10) })
    }

    fn ran(&self, index: usize, fence: Fence) -> u64 {
        let work = self.agents[index].held.get(&fence);
        work.filter(|work| work.state == State::Running)
            .map_or(0, |work| self.now.since(work.began).micros())
    }

    fn done(&mut self, index: usize, fence: Fence) -> Verdict {
        let run_us = self.ran(index, fence);
        let what = match self.dice.u8(..20) {
            0 => failed("raised", run_us),
            1 if self.has(Fault::WorkerDeath) => failed("worker_died", run_us),
            _ => Happened::Finished { run_us, result: DataFrame::Inline(result_of(fence)) },
        };
        self.end(index, fence, what)
    }

    /// An attempt ends, which is said once; the next one of its lease begins.
    fn end(&mut self, index: usize, fence: Fence, what: Happened) -> Verdict {
        let agent = &mut self.agents[index];
        let Some(work) = agent.held.get_mut(&fence) else { return Ok(()) };
        if work.state == State::Ended {
            return Ok(());
        }
        work.state = State::Ended;
        let what = match what {
            Happened::Finished { .. } | Happened::Stopped { .. } => what,
            Happened::Failed { run_us, .. } if work.stop => Happened::Stopped { run_us },
            Happened::Returned if work.stop => Happened::Stopped { run_us: 0 },
            other => other,
        };
        let (lane, kind) = (work.lease, work.kind);
        agent.jobs.remove(&fence);
        if let Some(queue) = agent.lanes.get_mut(&lane) {
            queue.retain(|other| *other != fence);
        }
        if kind == Kind::Actor {
            self.actor_dies(index, lane)?;
        }
        self.tell(index, fence, what)?;
        if self.agents[index].lanes.get(&lane).is_some_and(VecDeque::is_empty) {
            self.agents[index].lanes.remove(&lane);
        }
        self.pump(index, lane);
        Ok(())
    }

    /// The calls of an actor that is gone fail, or were never handed to it.
    fn actor_dies(&mut self, index: usize, lane: u64) -> Verdict {
        let calls: Vec<Fence> =
            self.agents[index].lanes.get(&lane).into_iter().flatten().copied().collect();
        for call in calls {
            let run_us = self.ran(index, call);
            self.end(index, call, failed("worker_died", run_us))?;
        }
        Ok(())
    }

    fn agent_stops(&mut self, index: usize, tasks: &[StopTask]) -> Verdict {
        for stop in tasks {
            let fence = (stop.task, stop.attempt);
            let life = self.agents[index].life;
            match self.agents[index].held.get_mut(&fence) {
                None => {
                    // It never came, or was confirmed: it is held until what is said now is confirmed.
                    let work = Work {
                        kind: Kind::Function,
                        lease: 0,
                        node: String::new(),
                        state: State::Ended,
                        stop: true,
                        began: Timestamp::default(),
                    };
                    self.agents[index].held.insert(fence, work);
                    self.agents[index].jobs.remove(&fence);
                    self.tell(index, fence, Happened::Stopped { run_us: 0 })?;
                }
                Some(work) if !work.stop && work.state != State::Ended => {
                    work.stop = true;
                    let grace = Span::from_millis(self.dice.u64(0..=stop.grace_ms / 4));
                    self.after(grace, Happening::Work(index, life, fence, Step::Killed));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// The agent process dies; with it all but the jobs, unless Ray's head dies too.
    pub(super) fn kill_agent(&mut self, index: usize, with_ray: bool) {
        let silently = self.dice.bool();
        let agent = &mut self.agents[index];
        agent.alive = false;
        agent.frozen = false;
        agent.backlog.clear();
        if with_ray {
            agent.jobs.clear();
        }
        agent.held.clear();
        agent.lanes.clear();
        agent.reports.clear();
        (agent.first, agent.sent, agent.linked) = (1, 0, false);
        if let Some(conn) = agent.conn.take() {
            if silently {
                self.dig_hole(conn, End::Server);
                if let Some(conn) = self.net.conns.get_mut(&conn) {
                    conn.open[End::Agent.index()] = false;
                }
                self.forget_if_closed(conn);
            } else {
                self.close(conn, End::Agent);
            }
        }
        let down = Span::from_millis(self.dice.u64(10..8_000));
        self.after(down, Happening::AgentUp(index));
    }

    /// A new life of the agent: it adopts the jobs that still run.
    pub(super) fn agent_up(&mut self, index: usize) -> Verdict {
        let now = self.now;
        let agent = &mut self.agents[index];
        if agent.alive {
            return Ok(());
        }
        agent.alive = true;
        self.lives += 1;
        agent.life = self.lives;
        agent.nodes.iter_mut().for_each(|node| node.alive = true);
        let jobs: Vec<(Fence, Timestamp)> = agent.jobs.iter().map(|(f, at)| (*f, *at)).collect();
        for (fence, ends) in jobs {
            let lease = u64::MAX - fence.0; // a lane of its own
            let work = Work {
                kind: Kind::Job,
                lease,
                node: String::new(),
                state: State::Running,
                stop: false,
                began: now,
            };
            let agent = &mut self.agents[index];
            agent.held.insert(fence, work);
            agent.lanes.insert(lease, [fence].into());
            let life = agent.life;
            self.after(ends.since(now), Happening::Work(index, life, fence, Step::Done));
        }
        self.agent_dials(index)
    }

    /// The agent stands still, or goes on and takes in what came meanwhile.
    pub(super) fn set_frozen(&mut self, index: usize, frozen: bool) -> Verdict {
        if self.agents[index].frozen == frozen || !self.agents[index].alive {
            return Ok(());
        }
        self.agents[index].frozen = frozen;
        if frozen {
            return Ok(());
        }
        for (conn, bytes) in std::mem::take(&mut self.agents[index].backlog) {
            if self.agents[index].conn == Some(conn) {
                let frame = mesh_api::decode(&bytes)
                    .map_err(|error| Violation::new(Law::NoPanic, format!("a frame: {error}")))?;
                self.agent_hears(index, frame)?;
            }
        }
        if self.agents[index].conn.is_none() {
            self.redial(index);
        }
        self.report(index)
    }

    /// A node goes or comes back; what ran on it is gone.
    pub(super) fn set_node(&mut self, index: usize, node: usize, alive: bool) -> Verdict {
        let agent = &mut self.agents[index];
        let Some(node) = agent.nodes.get_mut(node).filter(|node| node.alive != alive) else {
            return Ok(());
        };
        node.alive = alive;
        let name = node.name.clone();
        if !alive {
            let there = agent.held.iter().filter(|(_, work)| work.node == name);
            let there: Vec<Fence> = there.map(|(fence, _)| *fence).collect();
            for fence in there {
                let run_us = self.ran(index, fence);
                self.end(index, fence, failed("worker_died", run_us))?;
            }
        }
        self.tell_nodes(index)
    }

    pub(super) fn tell_nodes(&mut self, index: usize) -> Verdict {
        if !self.agents[index].linked || self.agents[index].frozen {
            return Ok(());
        }
        let nodes = FromAgent::Nodes(self.agents[index].node_frames());
        self.say(index, &nodes)
    }

    /// The process of one running attempt dies.
    pub(super) fn kill_worker(&mut self, index: usize) -> Verdict {
        let running = self.agents[index].running();
        let Some(fence) = self.pick(&running) else { return Ok(()) };
        let run_us = self.ran(index, fence);
        self.end(index, fence, failed("worker_died", run_us))
    }

    /// Ray forgets a job: its agent finds out.
    pub(super) fn forget_job(&mut self, index: usize) -> Verdict {
        let jobs: Vec<Fence> = self.agents[index].jobs.keys().copied().collect();
        let Some(fence) = self.pick(&jobs) else { return Ok(()) };
        self.agents[index].jobs.remove(&fence);
        self.end(index, fence, failed("worker_died", 0))
    }

    /// An agent says something that is not so, of an attempt that is not its own or not the last.
    pub(super) fn talk_nonsense(&mut self, index: usize) -> Verdict {
        if !self.agents[index].linked || self.journal.last() == 0 {
            return Ok(());
        }
        let newest = self.arguments.keys().next_back().map_or(1, |id| id.0);
        let task = self.dice.u64(1..=newest);
        let current = self.journal.attempt(TaskId(task)).unwrap_or_default().0;
        let mut attempt = self.dice.u32(0..=current);
        if self.agents[index].held.contains_key(&(task, attempt)) {
            attempt = current.saturating_sub(1);
        }
        if self.agents[index].held.contains_key(&(task, attempt))
            || self.agents[index].jobs.contains_key(&(task, attempt))
            || self.journal.is_current(TaskId(task), Attempt(attempt))
        {
            return Ok(()); // what it says of its own it does not lie about
        }
        let what = match self.dice.u8(..4) {
            0 => Happened::Started,
            1 => Happened::Returned,
            2 => failed("not_started", 0),
            _ => Happened::Finished {
                run_us: 1,
                result: DataFrame::Inline(Bytes::from_static(b"nonsense")),
            },
        };
        self.tell(index, (task, attempt), what)
    }

    /// Attempts that go on although their tasks have ended, when everything has come to rest.
    pub(super) fn left_overs(&self) -> Option<String> {
        self.agents.iter().enumerate().find_map(|(index, agent)| {
            let open = agent.open();
            let left = open
                .iter()
                .find(|(task, attempt)| !self.journal.is_current(TaskId(*task), Attempt(*attempt)));
            left.map(|(task, attempt)| format!("agent {index} still has t{task} #{attempt}"))
        })
    }
}

/// What an attempt returns: nobody else returns the same.
pub(super) fn result_of((task, attempt): Fence) -> Bytes {
    Bytes::from(format!("result of t{task} #{attempt}"))
}

fn failed(cause: &str, run_us: u64) -> Happened {
    let error =
        RemoteError { cause: cause.into(), message: cause.into(), ..RemoteError::default() };
    Happened::Failed { run_us, error, details: DataFrame::None }
}
