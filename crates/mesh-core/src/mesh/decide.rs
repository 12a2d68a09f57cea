//! What becomes of a command: events, or a refusal. Changes nothing.

use std::sync::Arc;

use super::Mesh;
use crate::bug::{self, Bug};
use crate::command::{Answer, Command, Rejection, Submission};
use crate::event::Event;
use crate::model::cluster::{ClusterSpec, Link};
use crate::model::id::{ClusterId, ClusterName, TaskId};
use crate::model::task::{Cause, Data, Failure, Outcome, Phase, Stop, Task, Work};
use crate::model::time::{Span, Timestamp};

impl Mesh {
    /// Judges a command at a moment: the events that make it true, and the answer to its asker.
    pub fn decide(
        &self,
        now: Timestamp,
        command: &Command,
    ) -> Result<(Vec<Event>, Answer), Rejection> {
        let mut events = Vec::new();
        let answer = match command {
            Command::Submit(submission) => self.submit(now, submission, &mut events)?,
            Command::Cancel(task) => self.cancel(*task, &mut events)?,
            Command::AddCluster(name, spec) => self.add_cluster(name, spec, &mut events)?,
            Command::ChangeCluster(name, spec) => {
                let id = self.cluster_id(name)?;
                events.push(Event::ClusterChanged(id, spec.clone()));
                Answer::Done
            }
            Command::DrainCluster(name, on) => self.drain_cluster(name, *on, &mut events)?,
            Command::RemoveCluster { name, force } => {
                self.remove_cluster(now, name, *force, &mut events)?
            }
            Command::Link { cluster, agent, held } => {
                self.link(now, cluster, agent, held, &mut events)?
            }
            Command::Unlink(name) => self.unlink(name, &mut events)?,
            Command::Nodes(name, nodes) => self.see_nodes(name, nodes, &mut events)?,
            Command::Report(name, report) => self.report(now, name, report, &mut events)?,
            Command::Restart { skipped } => self.restart(*skipped, &mut events),
            Command::Tick => self.tick(now, &mut events),
        };
        Ok((events, answer))
    }

    pub(super) fn cluster_id(&self, name: &ClusterName) -> Result<ClusterId, Rejection> {
        let known = self.cluster_ids.get(name).copied();
        known.ok_or_else(|| Rejection::UnknownCluster(name.clone()))
    }

    fn submit(
        &self,
        now: Timestamp,
        submission: &Submission,
        events: &mut Vec<Event>,
    ) -> Result<Answer, Rejection> {
        let Submission { key, body, name, spec, payload } = submission;
        let earlier = self.task_by_key(key).filter(|_| !bug::is(Bug::DropDuplicateKey));
        if let Some(earlier) = earlier {
            let task = earlier.id;
            return if earlier.body == *body {
                Ok(Answer::Submitted { task, replayed: true })
            } else {
                Err(Rejection::KeyConflict { key: key.clone(), task })
            };
        }
        self.check_age(now, submission)?;
        if self.counts.waiting() >= self.limits.queue_max {
            return Err(Rejection::QueueFull { max: self.limits.queue_max });
        }
        if let Work::Call { actor, .. } = &spec.work {
            self.check_actor(*actor)?;
        }
        let known = self.spec_ids.get(spec).copied();
        let spec_id = known.unwrap_or(self.next.spec);
        self.check_feasible(now, spec, known)?;
        if known.is_none() {
            events.push(Event::SpecDefined(spec_id, Arc::clone(spec)));
        }
        let task = self.next.task;
        events.push(Event::Submitted {
            task,
            spec: spec_id,
            key: key.clone(),
            body: *body,
            name: name.clone(),
            payload: *payload,
        });
        Ok(Answer::Submitted { task, replayed: false })
    }

    /// A key may have been used already when it was made before the newest record that was given
    /// up, whether for its age or because there were too many. Keys that do not say when they were
    /// made are known for as long as their record is.
    fn check_age(&self, now: Timestamp, submission: &Submission) -> Result<(), Rejection> {
        let Some(made) = submission.key.made_at_micros().map(Timestamp::from_micros) else {
            return Ok(());
        };
        let kept = now.since(self.forgotten_until).min(self.limits.retention);
        if now.since(made) > kept {
            return Err(Rejection::KeyExpired { key: submission.key.clone(), kept });
        }
        Ok(())
    }

    fn check_actor(&self, actor: TaskId) -> Result<(), Rejection> {
        let task = self.tasks.get(actor).ok_or(Rejection::UnknownTask(actor))?;
        let is_actor = self.spec(task.spec).is_some_and(|s| matches!(s.work, Work::Actor(_)));
        match (is_actor, &task.phase) {
            (false, _) => Err(Rejection::NotAnActor(actor)),
            (true, Phase::Ended(_) | Phase::Stopping { .. }) => Err(Rejection::ActorEnded(actor)),
            (true, _) => Ok(()),
        }
    }

    fn cancel(&self, id: TaskId, events: &mut Vec<Event>) -> Result<Answer, Rejection> {
        let task = self.tasks.get(id).ok_or(Rejection::UnknownTask(id))?;
        match &task.phase {
            Phase::Queued | Phase::Delayed { .. } => {
                self.end(task, Outcome::Cancelled, Data::None, Span::ZERO, events);
            }
            // Nobody is there to confirm that it stopped, and if somebody comes back, he is told
            // that the attempt no longer counts.
            Phase::Assigned { lease }
            | Phase::Running { lease, .. }
            | Phase::Stopping { lease, .. }
                if self.is_lost(*lease) =>
            {
                self.end(task, Outcome::Cancelled, Data::None, Span::ZERO, events);
            }
            Phase::Assigned { .. } | Phase::Running { .. } => {
                events.push(Event::StopAsked(id, Stop::Cancelled));
            }
            Phase::Stopping { .. } | Phase::Ended(_) => {}
        }
        Ok(Answer::Done)
    }

    /// Whether nobody can be heard who knows of a grant.
    pub(super) fn is_lost(&self, lease: crate::model::id::LeaseId) -> bool {
        let cluster = self.leases.get(&lease).and_then(|lease| self.clusters.get(&lease.cluster));
        cluster.is_none_or(|cluster| matches!(cluster.link, Link::Lost { .. }))
    }

    fn add_cluster(
        &self,
        name: &ClusterName,
        spec: &ClusterSpec,
        events: &mut Vec<Event>,
    ) -> Result<Answer, Rejection> {
        match self.cluster(name) {
            None => {
                let spec = Box::new(spec.clone());
                events.push(Event::ClusterAdded(self.next.cluster, name.clone(), spec));
                Ok(Answer::Done)
            }
            Some(cluster) if cluster.spec == *spec => Ok(Answer::Done),
            Some(_) => Err(Rejection::ClusterExists(name.clone())),
        }
    }

    fn drain_cluster(
        &self,
        name: &ClusterName,
        on: bool,
        events: &mut Vec<Event>,
    ) -> Result<Answer, Rejection> {
        let id = self.cluster_id(name)?;
        if self.clusters.get(&id).is_some_and(|cluster| cluster.draining != on) {
            events.push(Event::ClusterDrained(id, on));
        }
        Ok(Answer::Done)
    }

    fn remove_cluster(
        &self,
        now: Timestamp,
        name: &ClusterName,
        force: bool,
        events: &mut Vec<Event>,
    ) -> Result<Answer, Rejection> {
        let id = self.cluster_id(name)?;
        let tasks = self.tasks_on(id);
        if tasks > 0 && !force {
            return Err(Rejection::ClusterBusy { name: name.clone(), tasks });
        }
        let removed = Failure::new(Cause::ClusterLost, format!("cluster {name} was removed"));
        for task in self.top_tasks_on(id) {
            self.lose(now, task, &removed, events);
        }
        events.push(Event::ClusterRemoved(id));
        Ok(Answer::Done)
    }

    /// The tasks of a cluster that hold a lease themselves; calls follow their actor.
    pub(super) fn top_tasks_on(&self, id: ClusterId) -> impl Iterator<Item = &Task> {
        let leases = self.clusters.get(&id).into_iter().flat_map(|cluster| &cluster.leases);
        leases
            .filter_map(|lease| self.leases.get(lease))
            .flat_map(|lease| lease.tasks.keys())
            .filter_map(|task| self.tasks.get(*task))
            .filter(|task| !self.is_call(task))
    }

    pub(super) fn is_call(&self, task: &Task) -> bool {
        self.spec(task.spec).is_some_and(|spec| matches!(spec.work, Work::Call { .. }))
    }

    /// The end of a task; an actor takes its calls with it.
    pub(super) fn end(
        &self,
        task: &Task,
        outcome: Outcome,
        result: Data,
        ran: Span,
        events: &mut Vec<Event>,
    ) {
        for call in self.calls_of(task) {
            let failure = Failure::new(Cause::ActorEnded, format!("actor {} has ended", task.id));
            let outcome = match &call.phase {
                Phase::Stopping { why: Stop::Cancelled, .. } => Outcome::Cancelled,
                _ => Outcome::Failed(failure),
            };
            events.push(Event::Ended {
                task: call.id,
                outcome,
                result: Data::None,
                ran: Span::ZERO,
            });
        }
        events.push(Event::Ended { task: task.id, outcome, result, ran });
    }

    /// The calls of an actor that have not ended: handed over, then waiting. None for other tasks.
    pub(super) fn calls_of(&self, actor: &Task) -> impl Iterator<Item = &Task> {
        let is_actor = self.spec(actor.spec).is_some_and(|s| matches!(s.work, Work::Actor(_)));
        let lease = actor.phase.lease().filter(|_| is_actor).and_then(|l| self.leases.get(&l));
        let handed = lease.into_iter().flat_map(|lease| lease.tasks.keys());
        let waiting = self.calls.get(&actor.id).into_iter().flatten();
        let not_itself = actor.id;
        handed
            .chain(waiting)
            .filter(move |id| **id != not_itself)
            .filter_map(|id| self.tasks.get(*id))
    }

    /// An attempt is gone through no fault of its own: the task is tried again, or fails.
    pub(super) fn lose(
        &self,
        now: Timestamp,
        task: &Task,
        failure: &Failure,
        events: &mut Vec<Event>,
    ) {
        if let Phase::Stopping { why, .. } = &task.phase
            && !bug::is(Bug::RetryCancelled)
        {
            let outcome = Self::stopped(*why);
            return self.end(task, outcome, Data::None, Span::ZERO, events);
        }
        let Some(retry) = self.retry_at(now, task, failure.cause) else {
            let outcome = Outcome::Failed(failure.clone());
            return self.end(task, outcome, Data::None, Span::ZERO, events);
        };
        let handed: Vec<&Task> =
            self.calls_of(task).filter(|call| call.phase.lease().is_some()).collect();
        for call in handed {
            self.lose(now, call, failure, events);
        }
        events.push(Event::Retried { task: task.id, failure: failure.clone(), until: retry });
    }

    /// When a task that failed of `cause` is tried again; `None` when it is not.
    pub(super) fn retry_at(&self, now: Timestamp, task: &Task, cause: Cause) -> Option<Timestamp> {
        let retries = self.spec(task.spec)?.retries;
        let (spent, allowed) = match cause {
            Cause::Raised => (task.raised, retries.raised),
            cause if cause.is_loss() => (task.lost, retries.lost),
            _ => return None,
        };
        (spent < allowed).then(|| now.after(retries.wait(spent.saturating_add(1))))
    }

    /// How a task ends that stopped because it was told to.
    pub(super) fn stopped(why: Stop) -> Outcome {
        match why {
            Stop::Cancelled => Outcome::Cancelled,
            Stop::TimedOut => {
                Outcome::Failed(Failure::new(Cause::TimedOut, "it ran longer than it may"))
            }
        }
    }
}

impl Failure {
    /// A failure in one line.
    pub fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self { cause, message: message.into().into_boxed_str() }
    }
}
