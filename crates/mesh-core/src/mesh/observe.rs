//! What becomes of what agents say.

use std::collections::{BTreeMap, BTreeSet};

use super::Mesh;
use crate::bug::{self, Bug};
use crate::command::{Answer, Held, Rejection, Report, Seen};
use crate::event::Event;
use crate::model::cluster::{AgentFacts, Breaker, Link, NodeFacts};
use crate::model::id::{Attempt, ClusterId, ClusterName, NodeId, NodeName, TaskId};
use crate::model::task::{Cause, Data, Failure, Outcome, Phase, Task};
use crate::model::time::{Span, Timestamp};

impl Mesh {
    pub(super) fn link(
        &self,
        now: Timestamp,
        name: &ClusterName,
        agent: &AgentFacts,
        held: &[Held],
        events: &mut Vec<Event>,
    ) -> Result<Answer, Rejection> {
        let id = self.cluster_id(name)?;
        let Some(cluster) = self.clusters.get(&id) else { return Ok(Answer::Done) };
        let known = cluster.agent.as_ref().map(|agent| agent.incarnation);
        let same_life = known == Some(agent.incarnation);
        if cluster.is_up() && !same_life {
            return Err(Rejection::ClusterTaken(name.clone()));
        }
        events.push(Event::ClusterLinked(id, Box::new(agent.clone())));
        let gone = Failure::new(Cause::ClusterLost, format!("the agent of {name} was restarted"));
        let held: BTreeSet<(TaskId, Attempt)> =
            held.iter().map(|held| (held.task, held.attempt)).collect();
        for task in self.top_tasks_on(id) {
            let is_held = held.contains(&(task.id, task.attempt));
            match &task.phase {
                _ if is_held => {}
                // It may not have arrived, and is sent again under the same number.
                Phase::Assigned { .. } if same_life => {}
                Phase::Assigned { .. } => events.push(Event::Returned(task.id)),
                Phase::Running { .. } | Phase::Stopping { .. } => {
                    self.lose(now, task, &gone, events);
                }
                Phase::Queued | Phase::Delayed { .. } | Phase::Ended(_) => {}
            }
        }
        if !same_life {
            self.lose_calls(now, id, &held, &gone, events);
        }
        Ok(Answer::Done)
    }

    /// Calls that were with an agent that is gone, on actors that live on.
    fn lose_calls(
        &self,
        now: Timestamp,
        id: ClusterId,
        held: &BTreeSet<(TaskId, Attempt)>,
        gone: &Failure,
        events: &mut Vec<Event>,
    ) {
        let holds = |task: &Task| held.contains(&(task.id, task.attempt));
        for actor in self.top_tasks_on(id).filter(|task| holds(task)) {
            let handed = self.calls_of(actor).filter(|call| call.phase.lease().is_some());
            for call in handed.filter(|call| !holds(call)) {
                self.lose(now, call, gone, events);
            }
        }
    }

    pub(super) fn unlink(
        &self,
        name: &ClusterName,
        events: &mut Vec<Event>,
    ) -> Result<Answer, Rejection> {
        let id = self.cluster_id(name)?;
        if self.clusters.get(&id).is_some_and(super::ClusterState::is_up) {
            events.push(Event::ClusterSuspected(id));
        }
        Ok(Answer::Done)
    }

    /// After a restart no agent is linked, and each gets its full time to come back.
    pub(super) fn restart(&self, skipped: Span, events: &mut Vec<Event>) -> Answer {
        if skipped > Span::ZERO {
            events.push(Event::ClockSkipped(skipped));
        }
        let heard = |link: &Link| matches!(link, Link::Up { .. } | Link::Suspect { .. });
        let clusters = self.clusters.values().filter(|cluster| heard(&cluster.link));
        events.extend(clusters.map(|cluster| Event::ClusterSuspected(cluster.id)));
        Answer::Done
    }

    pub(super) fn see_nodes(
        &self,
        name: &ClusterName,
        nodes: &[NodeFacts],
        events: &mut Vec<Event>,
    ) -> Result<Answer, Rejection> {
        let id = self.cluster_id(name)?;
        let Some(cluster) = self.clusters.get(&id) else { return Ok(Answer::Done) };
        let mut fresh: BTreeMap<&NodeName, &NodeFacts> =
            nodes.iter().map(|facts| (&facts.name, facts)).collect();
        let mut seen = Vec::new();
        let mut known = 0_u32;
        for (node, number) in cluster.nodes.iter().zip(0_u32..) {
            known = number + 1;
            match fresh.remove(&node.facts.name) {
                Some(facts) if node.alive && *facts == node.facts => {}
                Some(facts) => seen.push((NodeId(number), true, facts.clone())),
                None if node.alive => seen.push((NodeId(number), false, node.facts.clone())),
                None => {}
            }
        }
        // In the order in which the agent named them, so that a replay numbers them alike.
        let new = nodes.iter().filter(|facts| fresh.remove(&facts.name).is_some());
        seen.extend(new.zip(known..).map(|(facts, number)| (NodeId(number), true, facts.clone())));
        if !seen.is_empty() {
            events.push(Event::NodesSeen(id, seen));
        }
        Ok(Answer::Done)
    }

    pub(super) fn report(
        &self,
        now: Timestamp,
        name: &ClusterName,
        report: &Report,
        events: &mut Vec<Event>,
    ) -> Result<Answer, Rejection> {
        let id = self.cluster_id(name)?;
        let Some(task) = self.current(id, report) else {
            let is_end = !matches!(report.what, Seen::Started | Seen::Returned);
            if is_end && self.tasks.get(report.task).is_some() {
                events.push(Event::LateReport(report.task, report.attempt));
            }
            return Ok(Answer::Done);
        };
        match &report.what {
            Seen::Started => {
                if matches!(task.phase, Phase::Assigned { .. }) {
                    events.push(Event::Started(task.id));
                }
            }
            Seen::Returned => match &task.phase {
                Phase::Stopping { why, .. } => {
                    self.end(task, Self::stopped(*why), Data::None, Span::ZERO, events);
                }
                Phase::Assigned { .. } => events.push(Event::Returned(task.id)),
                _ => {
                    let failure = Failure::new(Cause::ClusterLost, "its agent gave it up");
                    self.lose(now, task, &failure, events);
                }
            },
            Seen::Finished { ran, result } => {
                self.end(task, Outcome::Succeeded, *result, *ran, events);
            }
            Seen::Stopped { ran } => {
                if let Phase::Stopping { why, .. } = &task.phase {
                    self.end(task, Self::stopped(*why), Data::None, *ran, events);
                } else {
                    let failure = Failure::new(Cause::ClusterLost, "its agent stopped it");
                    self.lose(now, task, &failure, events);
                }
            }
            Seen::Failed { ran, failure, details } => {
                self.fail(now, (id, task), failure, (*details, *ran), events);
            }
        }
        Ok(Answer::Done)
    }

    /// The task of a report, if what the report speaks of is its current attempt.
    fn current(&self, cluster: ClusterId, report: &Report) -> Option<&Task> {
        let task = self.tasks.get(report.task)?;
        let lease = self.leases.get(&task.phase.lease()?)?;
        let counts = task.attempt == report.attempt || bug::is(Bug::NoFenceCheck);
        (counts && lease.cluster == cluster).then_some(task)
    }

    fn fail(
        &self,
        now: Timestamp,
        (cluster, task): (ClusterId, &Task),
        failure: &Failure,
        (details, ran): (Data, Span),
        events: &mut Vec<Event>,
    ) {
        if let Phase::Stopping { why, .. } = &task.phase {
            self.end(task, Self::stopped(*why), Data::None, ran, events);
        } else if self.retry_at(now, task, failure.cause).is_some() {
            self.lose(now, task, failure, events);
        } else {
            self.end(task, Outcome::Failed(failure.clone()), details, ran, events);
        }
        if failure.cause == Cause::NotStarted {
            self.trip(now, cluster, events);
        }
    }

    /// Opens the breaker of a cluster when this failure to start is one too many.
    fn trip(&self, now: Timestamp, id: ClusterId, events: &mut Vec<Event>) {
        let Some(cluster) = self.clusters.get(&id) else { return };
        let failures = match &cluster.breaker {
            Breaker::Closed => 1,
            Breaker::Counting { failures } => failures + 1,
            Breaker::Probing { .. } => cluster.spec.breaker_failures,
            Breaker::HalfOpen | Breaker::Open { .. } => return,
        };
        if failures >= cluster.spec.breaker_failures.max(1) {
            let until = now.after(cluster.spec.breaker_recovery);
            events.push(Event::BreakerOpened(id, until));
        }
    }
}
