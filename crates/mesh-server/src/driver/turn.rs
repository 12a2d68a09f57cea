//! One turn of the engine: what was asked, what was decided, and who is told once it is durable.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use mesh_api::client_link::Accepted;
use mesh_api::convert::{Accept, Payload, Reported};
use mesh_api::problem::Problem;
use mesh_core::bug::{self, Bug};
use mesh_core::command::{Held, Submission};
use mesh_core::model::id::{ClusterId, ClusterName, TaskId};
use mesh_core::model::task::{BlobId, Data};
use mesh_core::model::time::Timestamp;
use mesh_core::{Answer, Command, Event};
use mesh_store::{Batch, Entry, Seq, Side, StoreError};
use tokio::sync::oneshot;

use super::ask::{AgentSaid, Ask, ClientSubmit, LinkAsk, LinkId, Reader};
use super::engine::{Engine, Health, store_failed};
use crate::clients::ClientId;
use crate::handle::{Reply, Submitted};

/// Most events that one look at the old journal reads.
const REPLAY_EVENTS: usize = 2_000;

/// A turn under way.
pub(super) struct Turn {
    /// When it happens.
    pub(super) now: Timestamp,
    /// What it makes durable.
    pub(super) batch: Batch,
    /// Who is answered afterwards, in this order.
    pending: Vec<Pending>,
    /// Results that came in this turn.
    pub(super) fresh: HashMap<TaskId, Bytes>,
    /// Agents that linked in this turn.
    pub(super) linked: Vec<LinkAsk>,
    /// Clusters whose agents reported in this turn.
    pub(super) reported: Vec<ClusterName>,
    /// What still ran in clusters that were removed in this turn.
    pub(super) evicted: HashMap<ClusterId, Vec<Held>>,
    /// Tasks with something to be done.
    pub(super) to_do: Vec<TaskId>,
    /// Tasks that started, and tasks that ended.
    pub(super) started: Vec<TaskId>,
    pub(super) ended: Vec<TaskId>,
    /// Whether a cluster was forgotten.
    pub(super) removed: bool,
    /// Whether time was skipped.
    pub(super) skipped: bool,
    /// Who asked for the end.
    pub(super) goodbye: Option<Goodbye>,
}

/// Whoever asked for the end, and whether with a snapshot.
pub(super) type Goodbye = (bool, oneshot::Sender<()>);

/// Somebody who waits for the turn to be durable.
enum Pending {
    Submit(Reply<Vec<Result<Submitted, Problem>>>, Vec<Result<Submitted, Problem>>),
    Commands(Reply<Vec<Result<Answer, Problem>>>, Vec<Result<Answer, Problem>>),
    Client { client: ClientId, id: u64, results: Vec<Accepted> },
    Code(Reply<()>),
    HasCode(Reply<bool>, bool),
    UsedBlobs(Reply<HashSet<BlobId>>, HashSet<BlobId>),
    Read(Reader),
    Data { task: TaskId, side: Side, reply: Reply<Option<Bytes>> },
    Replay { after: Seq, reply: Reply<Vec<Entry>> },
    WaitEnded { task: TaskId, reply: Reply<()> },
    Watch { client: ClientId, tasks: Vec<TaskId> },
}

impl Turn {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            now,
            batch: Batch::default(),
            pending: Vec::new(),
            fresh: HashMap::new(),
            linked: Vec::new(),
            reported: Vec::new(),
            evicted: HashMap::new(),
            to_do: Vec::new(),
            started: Vec::new(),
            ended: Vec::new(),
            removed: false,
            skipped: false,
            goodbye: None,
        }
    }

    /// Those who wait for the turn, in a turn of their own.
    pub(super) fn take_answers(&mut self) -> Self {
        Self { pending: std::mem::take(&mut self.pending), ..Self::new(self.now) }
    }

    /// Notes what of the events others must hear of.
    pub(super) fn note(&mut self, events: &[Event]) {
        for event in events {
            match event {
                Event::Assigned(_, tasks) => self.to_do.extend(tasks),
                Event::StopAsked(task, _) => self.to_do.push(*task),
                Event::ClusterRemoved(_) => self.removed = true,
                Event::ClockSkipped(_) => self.skipped = true,
                Event::Started(task) => self.started.push(*task),
                Event::Ended { task, .. } => self.ended.push(*task),
                _ => {}
            }
        }
    }

    /// Makes this a turn in which nothing happened: everybody who wanted a change is told why there
    /// is none. Who only reads is answered as ever.
    pub(super) fn refuse(&mut self, problem: &Problem) {
        for link in self.linked.drain(..) {
            drop(link.reply.send(Err(problem.clone()))); // whoever hung up is not linked either way
        }
        let pending = std::mem::take(&mut self.pending);
        self.pending = pending.into_iter().filter_map(|pending| pending.refused(problem)).collect();
        self.batch = Batch::default();
        self.fresh.clear();
        self.reported.clear();
    }
}

impl Pending {
    /// Says that nothing was changed, and returns who is still to be answered.
    fn refused(self, problem: &Problem) -> Option<Self> {
        let problem = problem.clone();
        // Whoever hung up needs no answer.
        match self {
            Self::Submit(reply, _) => drop(reply.send(Err(problem))),
            Self::Commands(reply, _) => drop(reply.send(Err(problem))),
            Self::Code(reply) => drop(reply.send(Err(problem))),
            // What they were to be told includes what has not happened.
            Self::HasCode(reply, _) => drop(reply.send(Err(problem))),
            Self::UsedBlobs(reply, _) => drop(reply.send(Err(problem))),
            Self::Client { client, id, results } => {
                let results = results.iter().map(|_| Accepted::Error(problem.clone())).collect();
                return Some(Self::Client { client, id, results });
            }
            reader => return Some(reader),
        }
        None
    }
}

impl Engine {
    /// Judges a command and makes what follows true. `bytes` are kept when a task ends with them.
    pub(super) fn decide(
        &mut self,
        turn: &mut Turn,
        command: &Command,
        bytes: Option<&Bytes>,
    ) -> Result<Answer, Problem> {
        if let Some(problem) = self.trouble() {
            return Err(problem.clone());
        }
        let decided = self.mesh.decide(turn.now, command);
        let (events, answer) = decided.map_err(|rejection| Problem::from(&rejection))?;
        for event in events {
            self.books.before(&self.mesh, &event, &mut turn.batch);
            if let (Event::Ended { task, result: Data::Inline(_), .. }, Some(bytes)) =
                (&event, bytes)
            {
                if !bug::is(Bug::LoseResult) {
                    turn.batch.data.push((*task, Side::Result, bytes.clone()));
                }
                turn.fresh.insert(*task, bytes.clone());
            }
            self.mesh.apply(turn.now, &event);
            turn.batch.events.push(event);
        }
        Ok(answer)
    }

    /// Takes one question into the turn.
    pub(super) fn take(&mut self, turn: &mut Turn, ask: Ask) {
        match ask {
            Ask::Submit { tasks, reply } => {
                let accept = |task| self.accept(turn, task, &Ok(()));
                let results = tasks.into_iter().map(accept).collect();
                turn.pending.push(Pending::Submit(reply, results));
            }
            Ask::Commands { commands, reply } => {
                let answers = commands.iter().map(|command| self.obey(turn, command)).collect();
                turn.pending.push(Pending::Commands(reply, answers));
            }
            Ask::Read(read) => turn.pending.push(Pending::Read(read)),
            Ask::Data { task, side, reply } => {
                turn.pending.push(Pending::Data { task, side, reply });
            }
            Ask::PutCode { code, reply } => match self.put_code(turn, code) {
                Ok(()) => turn.pending.push(Pending::Code(reply)),
                Err(problem) => drop(reply.send(Err(problem))),
            },
            Ask::HasCode { digest, reply } => {
                match self.books.has_code(&digest, self.store.as_ref()) {
                    Ok(known) => turn.pending.push(Pending::HasCode(reply, known)),
                    Err(error) => drop(reply.send(Err(unreadable(&error)))),
                }
            }
            Ask::WaitEnded { task, reply } => {
                turn.pending.push(Pending::WaitEnded { task, reply });
            }
            Ask::Replay { after, reply } => turn.pending.push(Pending::Replay { after, reply }),
            Ask::Link(link) => self.take_link(turn, *link),
            Ask::Agent { link, cluster, said } => self.hear(turn, link, &cluster, said),
            Ask::Client { client, outbox } => self.watchers.join(client, outbox),
            Ask::ClientSubmit(submit) => self.take_client_submit(turn, *submit),
            Ask::Watch { client, tasks } => turn.pending.push(Pending::Watch { client, tasks }),
            Ask::ClientGone { client } => self.watchers.leave(client),
            Ask::Shutdown { snapshot, reply } => turn.goodbye = Some((snapshot, reply)),
            Ask::UsedBlobs { reply } => {
                turn.pending.push(Pending::UsedBlobs(reply, self.books.used_blobs()));
            }
        }
    }

    /// Does what a command says, and remembers whom it takes the ground from under.
    fn obey(&mut self, turn: &mut Turn, command: &Command) -> Result<Answer, Problem> {
        let evicted = match command {
            Command::RemoveCluster { name, .. } => self.mesh.cluster(name).map(|cluster| {
                let here = |id| self.mesh.cluster_of(id) == Some(cluster.id);
                let tasks = self.mesh.tasks_before(None).filter(|task| here(task.id));
                let held = tasks.map(|task| Held { task: task.id, attempt: task.attempt });
                (cluster.id, held.collect())
            }),
            _ => None,
        };
        let answer = self.decide(turn, command, None)?;
        turn.evicted.extend(evicted);
        Ok(answer)
    }

    fn accept(
        &mut self,
        turn: &mut Turn,
        task: Result<Accept, Problem>,
        code: &Result<(), Problem>,
    ) -> Result<Submitted, Problem> {
        let Accept { key, body, name, spec, payload } = task?;
        if let Err(problem) = self.refuses_new().map_or(code.as_ref(), Err) {
            // Whoever asks again must not be told that what was accepted is not.
            let known = self.mesh.task_by_key(&key).filter(|known| known.body == body);
            let known = known.map(|known| Submitted { task: known.id, replayed: true });
            return known.ok_or_else(|| problem.clone());
        }
        if let Some(code) = spec.work.code() {
            let known = self.books.has_code(&code, self.store.as_ref());
            let known = known.map_err(|error| unreadable(&error))?;
            if !known && self.mesh.task_by_key(&key).is_none() {
                return Err(Problem::new(
                    "UNKNOWN_CODE",
                    format!("the code {code} is not here"),
                    "upload it with `PUT /v1/code/{digest}`, or send it in the same frame",
                ));
            }
        }
        let data = payload.data();
        let submission = Submission { key, body, name, spec, payload: data };
        match self.decide(turn, &Command::Submit(submission), None)? {
            Answer::Submitted { task, replayed } => {
                if let (Payload::Inline(bytes), false) = (payload, replayed) {
                    self.books.keep_payload(task, &bytes);
                    turn.batch.data.push((task, Side::Payload, bytes));
                }
                Ok(Submitted { task, replayed })
            }
            Answer::Done => Err(Problem::new("INTERNAL", "a submission without an answer", "")),
        }
    }

    fn put_code(
        &mut self,
        turn: &mut Turn,
        code: Vec<(mesh_core::model::id::Digest, Bytes)>,
    ) -> Result<(), Problem> {
        if let Some(problem) = self.refuses_new() {
            return Err(problem.clone());
        }
        let kept = self.books.put_code(code, self.store.as_ref(), &mut turn.batch);
        kept.map_err(|error| unreadable(&error))
    }

    fn take_client_submit(&mut self, turn: &mut Turn, submit: ClientSubmit) {
        let ClientSubmit { client, id, tasks, code } = submit;
        let kept = self.put_code(turn, code);
        let mut results = Vec::with_capacity(tasks.len());
        for task in tasks {
            results.push(match self.accept(turn, task, &kept) {
                Ok(Submitted { task, replayed }) => Accepted::Task { task: task.0, replayed },
                Err(problem) => Accepted::Error(problem),
            });
        }
        turn.pending.push(Pending::Client { client, id, results });
    }

    fn take_link(&mut self, turn: &mut Turn, link: LinkAsk) {
        let command = Command::Link {
            cluster: link.cluster.clone(),
            agent: Box::new(link.facts.clone()),
            held: link.held.clone(),
        };
        let nodes = Command::Nodes(link.cluster.clone(), link.nodes.clone());
        let linked =
            self.decide(turn, &command, None).and_then(|_| self.decide(turn, &nodes, None));
        match linked {
            Ok(_) => turn.linked.push(link),
            Err(problem) => drop(link.reply.send(Err(problem))),
        }
    }

    /// Takes in what an agent says, unless another link took its place.
    fn hear(&mut self, turn: &mut Turn, link: LinkId, cluster: &ClusterName, said: AgentSaid) {
        // A link may break in the very turn in which it comes up.
        let fresh = turn.linked.iter().position(|linked| linked.link == link);
        match fresh.filter(|_| matches!(said, AgentSaid::Gone)) {
            Some(at) => drop(turn.linked.remove(at)),
            None if self.seats.holds(cluster, link) => {}
            None => return,
        }
        let heard = match said {
            AgentSaid::Reports { seq, items } => self.take_reports(turn, cluster, seq, items),
            AgentSaid::Nodes(nodes) => {
                self.decide(turn, &Command::Nodes(cluster.clone(), nodes), None)
            }
            AgentSaid::Gone => {
                self.seats.remove(cluster);
                self.links.remove(cluster, link);
                self.decide(turn, &Command::Unlink(cluster.clone()), None)
            }
        };
        if let Err(problem) = heard {
            tracing::warn!(%cluster, code = %problem.code, message = %problem.message, "agent not heard");
        }
    }

    fn take_reports(
        &mut self,
        turn: &mut Turn,
        cluster: &ClusterName,
        seq: u64,
        items: Vec<Reported>,
    ) -> Result<Answer, Problem> {
        let count = u64::try_from(items.len()).unwrap_or(u64::MAX);
        let known = self.seats.hear(cluster, seq, count);
        turn.reported.push(cluster.clone());
        for Reported { report, bytes } in items.into_iter().skip(known) {
            self.decide(turn, &Command::Report(cluster.clone(), report), bytes.as_ref())?;
        }
        Ok(Answer::Done)
    }

    /// Answers everybody, now that the turn is durable.
    pub(super) fn answer(&mut self, turn: Turn) {
        if self.is_blind() {
            return self.answer_blindly(turn);
        }
        let Turn { now, pending, fresh, started, ended, .. } = turn;
        // What a client submitted is watched before it is told of what happened in this turn.
        let mut readers = Vec::new();
        for pending in pending {
            match pending {
                Pending::Client { client, id, results } => {
                    self.watchers.accepted(&self.mesh, client, id, results);
                }
                other => readers.push(other),
            }
        }
        self.watchers.tell(&self.mesh, &started, &ended, &fresh);
        for pending in readers {
            self.answer_one(pending, now);
        }
    }

    /// Nothing that could be read is known to be true. Links are told why; whoever else waits is told
    /// that he waits in vain by the end of his question.
    fn answer_blindly(&mut self, turn: Turn) {
        let Health::Failed(problem, _) = &self.health else { return };
        for pending in turn.pending {
            if let Some(Pending::Client { client, id, results }) = pending.refused(problem) {
                self.watchers.accepted(&self.mesh, client, id, results);
            }
        }
    }

    fn answer_one(&mut self, pending: Pending, now: Timestamp) {
        // Whoever hung up has lost his answer, not what he asked for.
        match pending {
            Pending::Submit(reply, results) => drop(reply.send(Ok(results))),
            Pending::Commands(reply, answers) => drop(reply.send(Ok(answers))),
            Pending::Code(reply) => drop(reply.send(Ok(()))),
            Pending::HasCode(reply, known) => drop(reply.send(Ok(known))),
            Pending::UsedBlobs(reply, used) => drop(reply.send(Ok(used))),
            Pending::Read(read) => read(&self.mesh, now),
            Pending::Data { task, side, reply } => {
                let bytes = self.store.data(task, side).map_err(|error| unreadable(&error));
                drop(reply.send(bytes));
            }
            Pending::Replay { after, reply } => drop(reply.send(self.replay(after))),
            Pending::WaitEnded { task, reply } => self.watchers.wait(&self.mesh, task, reply),
            Pending::Watch { client, tasks } => self.watchers.watch(&self.mesh, client, &tasks),
            Pending::Client { .. } => {}
        }
    }

    fn is_blind(&self) -> bool {
        matches!(self.health, Health::Failed(_, true))
    }

    fn replay(&self, after: Seq) -> Result<Vec<Entry>, Problem> {
        let last = self.store.last_seq();
        let oldest = self.store.oldest_seq().map_err(|error| unreadable(&error))?;
        if after > last {
            return Err(Problem::new(
                "INVALID",
                format!("there is no event {after} yet, the last one is {last}"),
                "follow from the last event that you have seen",
            ));
        }
        if after < last && (oldest == 0 || after + 1 < oldest) {
            return Err(Problem::new(
                "CURSOR_COMPACTED",
                format!("events up to {} were given up", oldest.max(last + 1) - 1),
                "read the state as it is now, and follow from its sequence number",
            ));
        }
        let (mut entries, mut count) = (Vec::new(), 0);
        let replayed = self.store.replay(after, &mut |entry| {
            count += entry.events.len();
            entries.push(entry);
            count < REPLAY_EVENTS
        });
        replayed.map(|()| entries).map_err(|error| unreadable(&error))
    }
}

fn unreadable(error: &StoreError) -> Problem {
    store_failed(error)
}
