//! Clients: they submit under keys until they are answered, cancel, wait, read results and follow the
//! events. What they are told is held against the journal.

use std::sync::Arc;

use bytes::Bytes;
use mesh_api::client_link::Accepted;
use mesh_api::problem::Problem;
use mesh_core::model::amount::{Amount, Resources};
use mesh_core::model::id::{Digest, Key, TaskId};
use mesh_core::model::label::Affinity;
use mesh_core::model::priority::Priority;
use mesh_core::model::task::{
    Kind, OnLost, Outcome, Phase, PythonVersion, Retries, Shape, TaskSpec, Work,
};
use mesh_core::model::time::{Span, Timestamp};
use mesh_core::{Answer as Decided, Command};
use mesh_server::clients::{ClientId, NOTICE_BYTES_MAX, Notice};
use mesh_server::driver::ask::{Ask, ClientSubmit};
use mesh_server::handle::{Accept, Payload, Reply, Submitted};
use mesh_server::outbox::{Inbox, outbox};
use mesh_server::tail::{Cursor, Next};
use mesh_store::{Entry, Seq, Side};
use tokio::sync::oneshot::{self, Receiver};

use super::agent::result_of;
use super::{Happening, World, bytes_of};
use crate::history::{Law, Told, Verdict, Violation, law, word};
use crate::plan::Fault;

/// How long a client waits for an answer before it asks again.
const PATIENCE: Span = Span::from_secs(3);

/// A client, and its share of the tasks.
pub(super) struct Client {
    jobs: Vec<Job>,
    /// The link of a program that uses the SDK; nothing for one that uses HTTP.
    link: Option<ClientLink>,
    cursor: Option<Cursor>,
    /// Until when it waits for old events.
    reads_old: Option<Timestamp>,
    /// What it waits for, so that late answers to given-up questions are told from others.
    waits: Option<Timestamp>,
}

struct ClientLink {
    id: ClientId,
    inbox: Inbox<Notice>,
    life: u64,
}

/// A task, from its submitter's side.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each of them stands for one thing that is left to do"
)]
struct Job {
    accept: Accept,
    state: JobState,
    cancel: bool,
    cancelled: bool,
    ended: bool,
    read: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JobState {
    Open,
    Accepted(TaskId),
    Refused,
}

/// One answer for each thing that was asked, or one for all.
type Answers<T> = Result<Vec<Result<T, Problem>>, Problem>;

/// A question under way.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) client: usize,
    wait: Wait,
    dropped: bool,
}

#[derive(Debug)]
enum Wait {
    Submit(Vec<usize>, Receiver<Answers<Submitted>>),
    Cancel(usize, Receiver<Answers<Decided>>),
    Look(usize, Receiver<Option<Phase>>),
    Data(usize, Receiver<Result<Option<Bytes>, Problem>>),
    Replay(Seq, Receiver<Result<Vec<Entry>, Problem>>),
}

/// What a client is told.
#[derive(Debug)]
pub(super) enum Answer {
    Submitted(Vec<usize>, Answers<Submitted>),
    Cancelled(usize, Answers<Decided>),
    Looked(usize, Option<Phase>),
    Data(usize, Result<Option<Bytes>, Problem>),
    Replayed(Seq, Result<Vec<Entry>, Problem>),
    Notices(Vec<Notice>),
}

impl Waiter {
    fn new(client: usize, wait: Wait) -> Self {
        Self { client, wait, dropped: false }
    }

    /// The answer, when there is one.
    pub(super) fn poll(&mut self) -> Option<Answer> {
        fn take<T>(receiver: &mut Receiver<T>, dropped: &mut bool) -> Option<T> {
            match receiver.try_recv() {
                Ok(value) => Some(value),
                Err(oneshot::error::TryRecvError::Empty) => None,
                Err(oneshot::error::TryRecvError::Closed) => {
                    *dropped = true;
                    None
                }
            }
        }
        let dropped = &mut self.dropped;
        match &mut self.wait {
            Wait::Submit(jobs, rx) => {
                take(rx, dropped).map(|answer| Answer::Submitted(std::mem::take(jobs), answer))
            }
            Wait::Cancel(job, rx) => {
                take(rx, dropped).map(|answer| Answer::Cancelled(*job, answer))
            }
            Wait::Look(job, rx) => take(rx, dropped).map(|phase| Answer::Looked(*job, phase)),
            Wait::Data(job, rx) => take(rx, dropped).map(|data| Answer::Data(*job, data)),
            Wait::Replay(after, rx) => {
                take(rx, dropped).map(|entries| Answer::Replayed(*after, entries))
            }
        }
    }

    /// Whether there never will be an answer.
    pub(super) fn is_dropped(&self) -> bool {
        self.dropped
    }
}

impl Client {
    /// The arguments that it submitted under a key.
    pub(super) fn arguments_of(&self, key: &Key) -> Option<Bytes> {
        let job = self.jobs.iter().find(|job| job.accept.key == *key)?;
        Some(bytes_of(&job.accept.payload))
    }

    /// Whether it has nothing left to do but to be told of ends.
    fn is_done(&self) -> bool {
        self.jobs.iter().all(Job::is_done)
    }
}

impl Job {
    fn is_done(&self) -> bool {
        match self.state {
            JobState::Open => false,
            JobState::Refused => true,
            JobState::Accepted(_) => self.ended && (self.read || !self.wants_result()),
        }
    }

    fn wants_result(&self) -> bool {
        self.accept.spec.work.kind() != Kind::Actor
    }
}

impl World {
    /// Makes the clients, and what each of them will submit.
    pub(super) fn make_clients(&mut self) {
        for number in 0..self.plan.clients {
            let share = self.plan.tasks.div_ceil(self.plan.clients);
            let jobs = (0..share).map(|index| self.make_job(number, index)).collect();
            let linked = self.dice.bool();
            let follows = self.dice.bool();
            let link = linked.then(|| {
                let (_nobody, inbox) = outbox(1);
                ClientLink { id: 0, inbox, life: 0 }
            });
            let cursor = follows.then(|| Cursor::new(0));
            self.clients.push(Client { jobs, link, cursor, reads_old: None, waits: None });
            let pause = Span::from_millis(self.dice.u64(0..500));
            self.after(pause, Happening::Client(number));
        }
    }

    fn make_job(&mut self, client: usize, index: usize) -> Job {
        let digest = Digest([self.dice.u8(1..=3); 32]);
        let work = match self.dice.u8(..10) {
            0 => Work::Actor(digest),
            // The actor is filled in when it is known.
            1..=3 => Work::Call { actor: TaskId(0), method: "method".into() },
            4 => Work::Job,
            _ => Work::Function(digest),
        };
        let spec = self.make_spec(work);
        let key = if self.dice.bool() {
            let millis = u128::from(self.now.micros() / 1_000);
            let random = self.dice.u128(..) & ((1 << 62) - 1);
            Key::Uuid(millis << 80 | 7 << 76 | 2 << 62 | random)
        } else {
            Key::Text(format!("client {client}, task {index}").into())
        };
        let size = self.dice.usize(0..60);
        let payload = if size == 0 {
            Payload::None
        } else {
            Payload::Inline(Bytes::from(format!("{key}{}", "x".repeat(size))))
        };
        let accept =
            Accept { key, body: self.dice.u64(..), name: None, spec: Arc::new(spec), payload };
        Job {
            accept,
            state: JobState::Open,
            cancel: self.dice.u8(..6) == 0,
            cancelled: false,
            ended: false,
            read: false,
        }
    }

    fn make_spec(&mut self, work: Work) -> TaskSpec {
        let kind = work.kind();
        let cores = if kind == Kind::Call { 0 } else { self.dice.u32(0..=self.plan.cores.min(3)) };
        let priority =
            Priority::try_from(f64::from(self.dice.u8(..3))).unwrap_or(Priority::DEFAULT);
        TaskSpec {
            title: None,
            work,
            shape: Shape {
                kind,
                resources: Resources::cpus(Amount::whole(cores)),
                affinity: Affinity::default(),
                priority,
                python: Some(PythonVersion { major: 3, minor: 11 }),
                runtime_env: None,
            },
            retries: Retries {
                lost: self.dice.u16(0..4),
                raised: self.dice.u16(0..2),
                ..Retries::default()
            },
            timeout: (kind != Kind::Actor && self.dice.u8(..6) == 0)
                .then(|| Span::from_millis(self.dice.u64(20..5_000))),
            on_lost: [OnLost::Replace, OnLost::Wait, OnLost::Fail][self.dice.usize(..3)],
            wait_for_growth: self.dice.bool(),
        }
    }

    /// A client does its next thing.
    pub(super) fn client_acts(&mut self, index: usize) -> Verdict {
        if self.server.engine.is_some() {
            self.keep_link(index);
            self.follow(index)?;
            let waits = self.clients[index].waits.is_some_and(|until| until > self.now);
            if !waits {
                self.ask_next(index);
            }
        }
        let pause = Span::from_millis(self.dice.u64(5..400));
        if !self.is_over() {
            self.after(pause, Happening::Client(index));
        }
        Ok(())
    }

    /// A program that uses the SDK links again when its link is gone, and watches what it waits for.
    fn keep_link(&mut self, index: usize) {
        let life = self.server.life;
        let Some(link) = &self.clients[index].link else { return };
        if link.life == life && !link.inbox.is_closed() {
            return;
        }
        let old = link.id;
        self.ask(Ask::ClientGone { client: old }, None);
        self.lives += 1;
        let id = ClientId::try_from(self.lives).unwrap_or(ClientId::MAX);
        let (sender, inbox) = outbox(NOTICE_BYTES_MAX);
        let tasks = self.clients[index].jobs.iter().filter(|job| !job.ended);
        let tasks: Vec<TaskId> = tasks
            .filter_map(|job| match job.state {
                JobState::Accepted(task) => Some(task),
                _ => None,
            })
            .collect();
        self.clients[index].link = Some(ClientLink { id, inbox, life });
        self.clients[index].waits = None;
        self.ask(Ask::Client { client: id, outbox: sender }, None);
        self.ask(Ask::Watch { client: id, tasks }, None);
    }

    /// The next question of a client.
    fn ask_next(&mut self, index: usize) {
        let batch = self.dice.usize(1..=20);
        let mut open = Vec::new();
        let actors = self.actors_of(index);
        for (number, job) in self.clients[index].jobs.iter_mut().enumerate() {
            if job.state != JobState::Open || open.len() >= batch {
                continue;
            }
            if let Work::Call { actor: TaskId(0), .. } = job.accept.spec.work {
                let Some(actor) = actors.get(number % actors.len().max(1)) else { continue };
                let mut spec = TaskSpec::clone(&job.accept.spec);
                spec.work = Work::Call { actor: *actor, method: "method".into() };
                job.accept.spec = Arc::new(spec);
            }
            open.push(number);
        }
        if open.is_empty() {
            self.give_up_orphans(index);
        }
        let wants = self.dice.u8(..4);
        if !open.is_empty() && wants < 3 {
            return self.submit(index, open);
        }
        let jobs = &self.clients[index].jobs;
        let accepted = |job: &Job| matches!(job.state, JobState::Accepted(_));
        let find = |wanted: &dyn Fn(&Job) -> bool| {
            let found = jobs.iter().enumerate().filter(|(_, job)| accepted(job) && wanted(job));
            found.map(|(number, _)| number).collect::<Vec<_>>()
        };
        let cancels = find(&|job| job.cancel && !job.cancelled);
        let unread = find(&|job| job.ended && !job.read && job.wants_result());
        let waiting = find(&|job| !job.ended);
        if let Some(job) = self.pick(&cancels).filter(|_| wants != 0) {
            self.cancel(index, job);
        } else if let Some(job) = self.pick(&unread).filter(|_| wants != 1) {
            self.read_result(index, job);
        } else if let Some(job) = self.pick(&waiting) {
            self.look(index, job);
        }
    }

    fn actors_of(&self, index: usize) -> Vec<TaskId> {
        let jobs = self.clients[index].jobs.iter();
        let actor = |job: &Job| match job.state {
            JobState::Accepted(task) if job.accept.spec.work.kind() == Kind::Actor => Some(task),
            _ => None,
        };
        jobs.filter_map(actor).collect()
    }

    /// Calls without an actor to call are not made; actors end when nobody will call them any more.
    fn give_up_orphans(&mut self, index: usize) {
        let no_actor = self.actors_of(index).is_empty();
        let jobs = &mut self.clients[index].jobs;
        let is_call = |job: &Job| job.accept.spec.work.kind() == Kind::Call;
        let open_actors = jobs
            .iter()
            .any(|job| job.state == JobState::Open && job.accept.spec.work.kind() == Kind::Actor);
        if no_actor && !open_actors {
            for job in jobs.iter_mut().filter(|job| is_call(job) && job.state == JobState::Open) {
                job.state = JobState::Refused;
            }
        }
        let calls_left = jobs.iter().any(|job| {
            is_call(job)
                && match job.state {
                    JobState::Open => true,
                    JobState::Accepted(_) => !job.ended,
                    JobState::Refused => false,
                }
        });
        if !calls_left {
            let actors = jobs.iter_mut().filter(|job| job.accept.spec.work.kind() == Kind::Actor);
            actors.for_each(|job| job.cancel = true);
        }
    }

    fn submit(&mut self, index: usize, open: Vec<usize>) {
        let accepts: Vec<Accept> =
            open.iter().map(|job| self.clients[index].jobs[*job].accept.clone()).collect();
        let code = |accepts: &[Accept]| {
            let mut digests: Vec<Digest> =
                accepts.iter().filter_map(|accept| accept.spec.work.code()).collect();
            digests.sort_unstable();
            digests.dedup();
            digests.into_iter().map(|digest| (digest, Bytes::from_static(b"code"))).collect()
        };
        self.clients[index].waits = Some(self.now.after(PATIENCE));
        self.stats.asked += 1;
        if let Some(link) = &self.clients[index].link {
            let submit = ClientSubmit {
                client: link.id,
                id: self.now.micros(),
                code: code(&accepts),
                tasks: accepts.into_iter().map(Ok).collect(),
            };
            self.clients[index].waits = Some(self.now.after(PATIENCE));
            self.link_submissions.insert((link_id(&submit), submit.id), open);
            self.ask(Ask::ClientSubmit(Box::new(submit)), None);
            return;
        }
        let twice = self.has(Fault::Duplicate) && self.dice.u8(..4) == 0;
        for _ in 0..=u8::from(twice) {
            let (reply, _nobody): (Reply<()>, _) = oneshot::channel();
            self.ask(Ask::PutCode { code: code(&accepts), reply }, None);
            let (reply, answer) = oneshot::channel();
            let tasks = accepts.iter().cloned().map(Ok).collect();
            let waiter = Some(Waiter::new(index, Wait::Submit(open.clone(), answer)));
            self.ask(Ask::Submit { tasks, reply }, waiter);
        }
    }

    fn cancel(&mut self, index: usize, job: usize) {
        let JobState::Accepted(task) = self.clients[index].jobs[job].state else { return };
        let (reply, answer) = oneshot::channel();
        let waiter = Some(Waiter::new(index, Wait::Cancel(job, answer)));
        self.clients[index].waits = Some(self.now.after(PATIENCE));
        self.stats.asked += 1;
        self.ask(Ask::Commands { commands: vec![Command::Cancel(task)], reply }, waiter);
    }

    fn look(&mut self, index: usize, job: usize) {
        let JobState::Accepted(task) = self.clients[index].jobs[job].state else { return };
        let (reply, answer) = oneshot::channel();
        let waiter = Some(Waiter::new(index, Wait::Look(job, answer)));
        let read = Ask::Read(Box::new(move |mesh, _now| {
            let phase = mesh.task(task).map(|task| task.phase.clone());
            if let Some(phase) = phase {
                drop(reply.send(Some(phase)));
            } else {
                drop(reply.send(None));
            }
        }));
        self.clients[index].waits = Some(self.now.after(PATIENCE));
        self.ask(read, waiter);
    }

    fn read_result(&mut self, index: usize, job: usize) {
        let JobState::Accepted(task) = self.clients[index].jobs[job].state else { return };
        let (reply, answer) = oneshot::channel();
        let waiter = Some(Waiter::new(index, Wait::Data(job, answer)));
        self.clients[index].waits = Some(self.now.after(PATIENCE));
        self.ask(Ask::Data { task, side: Side::Result, reply }, waiter);
    }

    /// Brings an answer on its way; it may be lost.
    pub(super) fn hear_answer_later(&mut self, client: usize, answer: Answer, spent: Span) {
        if self.has(Fault::LostAnswer) && self.dice.u8(..8) == 0 {
            self.trace(|| format!("an answer to client {client} is lost"));
            return;
        }
        let way = Span::from_micros(self.dice.u64(20..2_000));
        self.after(spent.plus(way), Happening::Answer(client, Box::new(answer)));
    }

    /// Questions that nobody will answer.
    pub(super) fn clients_lose(&mut self, lost: Vec<Waiter>) {
        for waiter in lost {
            self.clients[waiter.client].waits = None;
        }
    }

    /// Brings clients what they were told over their links.
    pub(super) fn flush_notices(&mut self) {
        for index in 0..self.clients.len() {
            let Some(link) = &mut self.clients[index].link else { continue };
            let mut notices = Vec::new();
            while let Some(notice) = link.inbox.take() {
                notices.push(notice);
            }
            if !notices.is_empty() {
                // On a link nothing is lost but the link itself.
                let way = Span::from_micros(self.dice.u64(20..2_000));
                self.after(way, Happening::Answer(index, Box::new(Answer::Notices(notices))));
            }
        }
    }

    /// A client hears an answer.
    pub(super) fn answered(&mut self, index: usize, answer: Answer) -> Verdict {
        self.trace(|| format!("client {index} hears {answer:?}"));
        match answer {
            Answer::Submitted(jobs, answers) => {
                self.clients[index].waits = None;
                let Ok(answers) = answers else { return Ok(()) };
                for (job, answer) in jobs.into_iter().zip(answers) {
                    let answer = answer.map(|submitted| submitted.task);
                    self.submitted(index, job, answer)?;
                }
                Ok(())
            }
            Answer::Cancelled(job, answer) => {
                self.clients[index].waits = None;
                self.cancelled(index, job, answer)
            }
            Answer::Looked(job, phase) => {
                self.clients[index].waits = None;
                self.looked(index, job, phase)
            }
            Answer::Data(job, data) => {
                self.clients[index].waits = None;
                self.result_read(index, job, data)
            }
            Answer::Replayed(after, entries) => self.replayed(index, after, entries),
            Answer::Notices(notices) => {
                notices.into_iter().try_for_each(|notice| self.noticed(index, notice))
            }
        }
    }

    fn submitted(&mut self, index: usize, job: usize, answer: Result<TaskId, Problem>) -> Verdict {
        let known = &mut self.clients[index].jobs[job];
        let key = known.accept.key.clone();
        match answer {
            Ok(task) => {
                if known.state == JobState::Open {
                    known.state = JobState::Accepted(task);
                }
                self.told(&Told::Submitted { key: key.to_string(), task: task.0 })
            }
            Err(problem) => {
                let accepted = matches!(known.state, JobState::Accepted(_));
                match problem.code.as_str() {
                    "INFEASIBLE" | "UNKNOWN_TASK" | "ACTOR_ENDED" | "KEY_EXPIRED" if !accepted => {
                        known.state = JobState::Refused;
                        Ok(())
                    }
                    // To be asked again; or its record was given up, when it ended long ago.
                    "QUEUE_FULL" | "STORE_FULL" | "STORE_FAILED" | "OVERLOADED"
                    | "UNKNOWN_CODE" | "KEY_EXPIRED" | "UNKNOWN_TASK" | "ACTOR_ENDED"
                    | "INFEASIBLE" => Ok(()),
                    _ => Err(Violation::new(Law::OneTaskForOneKey, format!("{key}: {problem}"))),
                }
            }
        }
    }

    fn cancelled(&mut self, index: usize, job: usize, answer: Answers<Decided>) -> Verdict {
        let Ok(answers) = answer else { return Ok(()) };
        let known = &mut self.clients[index].jobs[job];
        let JobState::Accepted(task) = known.state else { return Ok(()) };
        match answers.into_iter().next() {
            Some(Ok(_)) => {
                known.cancelled = true;
                self.told(&Told::Cancelled { task: task.0 })
            }
            Some(Err(problem)) if problem.code == "UNKNOWN_TASK" => {
                known.cancelled = true;
                self.is_forgotten(index, job, task)
            }
            _ => Ok(()),
        }
    }

    fn looked(&mut self, index: usize, job: usize, phase: Option<Phase>) -> Verdict {
        let JobState::Accepted(task) = self.clients[index].jobs[job].state else { return Ok(()) };
        match phase {
            None => self.is_forgotten(index, job, task),
            Some(Phase::Ended(end)) => self.has_ended(index, job, task, &end.outcome),
            Some(_) => Ok(()),
        }
    }

    /// There is no record of a task that was accepted: it must have ended.
    fn is_forgotten(&mut self, index: usize, job: usize, task: TaskId) -> Verdict {
        let known = &mut self.clients[index].jobs[job];
        (known.ended, known.read) = (true, true);
        law(Law::AcknowledgedIsDurable, self.journal.outcome(task).is_some(), || {
            format!("{task} was acknowledged, has not ended, and is not known any more")
        })
    }

    fn has_ended(&mut self, index: usize, job: usize, task: TaskId, outcome: &Outcome) -> Verdict {
        self.clients[index].jobs[job].ended = true;
        if !matches!(outcome, Outcome::Succeeded) {
            self.clients[index].jobs[job].read = true;
        }
        self.told(&Told::Ended { task: task.0, outcome: word(outcome).into() })
    }

    fn result_read(
        &mut self,
        index: usize,
        job: usize,
        data: Result<Option<Bytes>, Problem>,
    ) -> Verdict {
        let JobState::Accepted(task) = self.clients[index].jobs[job].state else { return Ok(()) };
        let damaged = self.disk.is_damaged(task);
        let Ok(data) = data else {
            self.clients[index].jobs[job].read |= damaged;
            return law(Law::ResultAsStored, damaged || self.is_troubled(), || {
                format!("the result of {task} can't be read")
            });
        };
        self.clients[index].jobs[job].read = true;
        let attempt = self.journal.attempt(task).unwrap_or_default();
        let expected = result_of((task.0, attempt.0));
        let is_gone = data.is_none() && self.journal.is_forgotten(task);
        law(Law::ResultAsStored, is_gone || data.as_ref() == Some(&expected), || {
            format!("the result of {task} reads {data:?}, stored was {expected:?}")
        })
    }

    fn noticed(&mut self, index: usize, notice: Notice) -> Verdict {
        match notice {
            Notice::Accepted { id, results } => {
                self.clients[index].waits = None;
                let client = self.clients[index].link.as_ref().map_or(0, |link| link.id);
                let Some(jobs) = self.link_submissions.remove(&(client, id)) else { return Ok(()) };
                for (job, result) in jobs.into_iter().zip(results) {
                    let answer = match result {
                        Accepted::Task { task, .. } => Ok(TaskId(task)),
                        Accepted::Error(problem) => Err(problem),
                    };
                    self.submitted(index, job, answer)?;
                }
                Ok(())
            }
            Notice::Started(_) => Ok(()),
            Notice::Ended(ends) => {
                for end in ends {
                    if let Some(job) = self.job_of(index, end.task) {
                        self.has_ended(index, job, end.task, &end.outcome)?;
                    }
                    if let (Some(bytes), Outcome::Succeeded) = (&end.bytes, &end.outcome) {
                        let attempt = self.journal.attempt(end.task).unwrap_or_default();
                        let expected = result_of((end.task.0, attempt.0));
                        law(Law::ResultAsStored, *bytes == expected, || {
                            format!("{} was told to return {bytes:?}", end.task)
                        })?;
                    }
                }
                Ok(())
            }
            Notice::Unknown(tasks) => tasks.into_iter().try_for_each(|task| {
                self.job_of(index, task).map_or(Ok(()), |job| self.is_forgotten(index, job, task))
            }),
        }
    }

    fn job_of(&self, index: usize, task: TaskId) -> Option<usize> {
        let mut jobs = self.clients[index].jobs.iter();
        jobs.position(|job| job.state == JobState::Accepted(task))
    }

    fn told(&mut self, told: &Told) -> Verdict {
        self.witness.hear(&self.journal, told)
    }

    /// A client reads what has happened since it last looked.
    fn follow(&mut self, index: usize) -> Verdict {
        let Some(engine) = &self.server.engine else { return Ok(()) };
        let tail = Arc::clone(engine.tail());
        if self.clients[index].reads_old.is_some_and(|until| until > self.now) {
            return Ok(());
        }
        loop {
            let Some(cursor) = &mut self.clients[index].cursor else { return Ok(()) };
            let before = cursor.after();
            match cursor.advance(&tail) {
                Next::Entry(entry) => self.followed(before, &entry)?,
                Next::End => return Ok(()),
                Next::Old => {
                    let (reply, answer) = oneshot::channel();
                    self.clients[index].reads_old = Some(self.now.after(PATIENCE));
                    let ask = Ask::Replay { after: before, reply };
                    self.ask(ask, Some(Waiter::new(index, Wait::Replay(before, answer))));
                    return Ok(());
                }
            }
        }
    }

    /// What a follower sees is what is in the journal, and nothing is left out.
    fn followed(&mut self, before: u64, entry: &Entry) -> Verdict {
        law(Law::GapFree, entry.first == before + 1, || {
            format!("after event {before} a follower sees event {}", entry.first)
        })?;
        let index = self.log.partition_point(|known| known.last() < entry.first);
        let known = self.log.get(index);
        let same = known.is_some_and(|known| {
            let skip = usize::try_from(entry.first.saturating_sub(known.first)).unwrap_or(0);
            known.events.iter().skip(skip).eq(entry.events.iter())
        });
        law(Law::GapFree, same, || {
            format!(
                "a follower sees event {} as {:?}, the journal has {known:?}",
                entry.first, entry.events
            )
        })
    }

    fn replayed(
        &mut self,
        index: usize,
        after: Seq,
        entries: Result<Vec<Entry>, Problem>,
    ) -> Verdict {
        let last = self.journal.last();
        if self.clients[index].reads_old.take().is_none_or(|until| until <= self.now) {
            return Ok(()); // it asked again meanwhile
        }
        let cursor = self.clients[index].cursor.as_mut();
        let Some(cursor) = cursor.filter(|cursor| cursor.after() == after) else {
            return Ok(()); // the answer to an earlier question, which it did not wait for
        };
        match entries {
            Ok(entries) => cursor.feed(entries),
            // It reads the state as it is, and follows from there.
            Err(problem) if problem.code == "CURSOR_COMPACTED" => *cursor = Cursor::new(last),
            Err(problem) if problem.code == "INVALID" => {
                return Err(Violation::new(Law::GapFree, problem.to_string()));
            }
            Err(_) => {}
        }
        Ok(())
    }

    /// Whether every client has what it wanted.
    pub(super) fn clients_are_done(&self) -> bool {
        self.clients.iter().all(Client::is_done)
    }

    /// What clients still wait for.
    pub(super) fn unfinished(&self) -> Vec<String> {
        let jobs = self.clients.iter().flat_map(|client| &client.jobs);
        jobs.filter(|job| !job.is_done())
            .map(|job| {
                let state = match job.state {
                    JobState::Accepted(task) => {
                        format!("{task} ended={} read={}", job.ended, job.read)
                    }
                    state => format!("{state:?}"),
                };
                format!("{} {:?} {state}", job.accept.key, job.accept.spec.work)
            })
            .collect()
    }
}

fn link_id(submit: &ClientSubmit) -> ClientId {
    submit.client
}
