//! What becomes of the passing of time.

use super::{Mesh, Timer};
use crate::command::Answer;
use crate::event::Event;
use crate::model::id::{ClusterId, TaskId};
use crate::model::task::{Cause, Data, Failure, OnLost, Outcome, Phase, Stop, Work};
use crate::model::time::{Span, Timestamp};

/// Most timers of one kind, or forgotten tasks, that one tick handles.
const TICK_MAX: usize = 1_000;

impl Mesh {
    /// Handles timers that are due, those of one kind at a time: each stands for an event that takes
    /// its timer away, so ticking until no timer is due comes to an end.
    pub(super) fn tick(&self, now: Timestamp, events: &mut Vec<Event>) -> Answer {
        let due = self.timers.range(..=(now, Timer::Breaker(ClusterId(u32::MAX))));
        let mut due = due.map(|(_, timer)| *timer).take(TICK_MAX).peekable();
        match due.peek().copied() {
            None => self.forget(now, events),
            Some(Timer::Retry(_)) => {
                let task = |timer| match timer {
                    Timer::Retry(task) => Some(task),
                    Timer::Timeout(..) | Timer::Lost(_) | Timer::Breaker(_) => None,
                };
                due.map_while(task).for_each(|task| self.requeue_or_end(task, events));
            }
            Some(Timer::Timeout(..)) => {
                let task = |timer| match timer {
                    Timer::Timeout(task, _) => Some(task),
                    Timer::Retry(_) | Timer::Lost(_) | Timer::Breaker(_) => None,
                };
                due.map_while(task).for_each(|task| self.time_out(task, events));
            }
            Some(Timer::Lost(cluster)) => self.lose_cluster(now, cluster, events),
            Some(Timer::Breaker(cluster)) => events.push(Event::BreakerHalfOpened(cluster)),
        }
        Answer::Done
    }

    /// Has a task stopped that ran too long. Where nobody can be heard who could confirm it, it ends
    /// at once: if somebody comes back, he is told that the attempt no longer counts.
    fn time_out(&self, id: TaskId, events: &mut Vec<Event>) {
        let Some(task) = self.tasks.get(id) else { return };
        if task.phase.lease().is_some_and(|lease| self.is_lost(lease)) {
            let outcome = Self::stopped(Stop::TimedOut);
            self.end(task, outcome, Data::None, Span::ZERO, events);
        } else {
            events.push(Event::StopAsked(id, Stop::TimedOut));
        }
    }

    /// Queues a task for its next attempt; a call whose actor ended in the meantime ends too.
    fn requeue_or_end(&self, id: TaskId, events: &mut Vec<Event>) {
        let Some(task) = self.tasks.get(id) else { return };
        match self.spec(task.spec).map(|spec| &spec.work) {
            Some(Work::Call { actor, .. }) if self.has_ended(*actor) => {
                let failure = Failure::new(Cause::ActorEnded, format!("actor {actor} has ended"));
                self.end(task, Outcome::Failed(failure), Data::None, Span::ZERO, events);
            }
            _ => events.push(Event::Requeued(id)),
        }
    }

    fn has_ended(&self, id: TaskId) -> bool {
        self.tasks.get(id).is_none_or(|task| task.phase.is_ended())
    }

    fn lose_cluster(&self, now: Timestamp, id: ClusterId, events: &mut Vec<Event>) {
        events.push(Event::ClusterLost(id));
        let name = self.clusters.get(&id).map(|cluster| cluster.name.to_string());
        let message = format!("cluster {} can't be heard", name.unwrap_or_default());
        let failure = Failure::new(Cause::ClusterLost, message);
        for task in self.top_tasks_on(id) {
            let on_lost = self.spec(task.spec).map(|spec| spec.on_lost);
            match (&task.phase, on_lost) {
                (Phase::Stopping { why, .. }, _) => {
                    self.end(task, Self::stopped(*why), Data::None, Span::ZERO, events);
                }
                (_, Some(OnLost::Wait) | None) => {}
                (_, Some(OnLost::Replace)) => self.lose(now, task, &failure, events),
                (_, Some(OnLost::Fail)) => {
                    let outcome = Outcome::Failed(failure.clone());
                    self.end(task, outcome, Data::None, Span::ZERO, events);
                }
            }
        }
    }

    /// Gives up records that are too old or too many. An actor's record stays while it has calls.
    fn forget(&self, now: Timestamp, events: &mut Vec<Event>) {
        let over = self.ended.len().saturating_sub(self.limits.ended_max);
        let old = |at: Timestamp| at.after(self.limits.retention) <= now;
        let tasks: Vec<TaskId> = self
            .ended
            .iter()
            .enumerate()
            .take(TICK_MAX)
            .take_while(|(index, (at, _))| *index < over || old(*at))
            .map(|(_, (_, task))| *task)
            .collect();
        if tasks.is_empty() {
            return;
        }
        let code = self.code_only_of(&tasks);
        events.push(Event::Forgotten(tasks));
        if !code.is_empty() {
            events.push(Event::CodeForgotten(code));
        }
    }

    /// The code that nothing refers to once these tasks are forgotten.
    fn code_only_of(&self, tasks: &[TaskId]) -> Vec<crate::model::id::Digest> {
        let mut leaving = std::collections::BTreeMap::new();
        for spec in tasks.iter().filter_map(|task| self.tasks.get(*task)).map(|task| task.spec) {
            *leaving.entry(spec).or_insert(0_usize) += 1;
        }
        let mut specs_of_code = std::collections::BTreeMap::new();
        for (spec, tasks) in leaving {
            let Some(entry) = self.specs.get(&spec).filter(|entry| entry.tasks <= tasks) else {
                continue;
            };
            if let Some(digest) = entry.spec.work.code() {
                *specs_of_code.entry(digest).or_insert(0_usize) += 1;
            }
        }
        specs_of_code
            .into_iter()
            .filter(|(digest, specs)| self.code.get(digest).is_none_or(|code| code.specs <= *specs))
            .map(|(digest, _)| digest)
            .collect()
    }
}
