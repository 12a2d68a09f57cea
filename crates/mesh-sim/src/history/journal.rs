//! The laws of the journal: a second, much simpler account of what each event may follow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_core::Event;
use mesh_core::model::amount::Resources;
use mesh_core::model::cluster::ClusterSpec;
use mesh_core::model::id::{Attempt, ClusterId, Key, LeaseId, NodeId, SpecId, TaskId};
use mesh_core::model::task::{Cause, Outcome, Stop, TaskSpec};
use mesh_core::model::time::{Span, Timestamp};
use mesh_store::{Entry, Seq};

use super::{Law, Verdict, Violation, law};

/// What the journal has said so far.
#[derive(Debug, Default)]
pub struct Journal {
    last: Seq,
    at: Timestamp,
    clusters: BTreeMap<ClusterId, Cluster>,
    specs: BTreeMap<SpecId, Arc<TaskSpec>>,
    leases: BTreeMap<LeaseId, Lease>,
    tasks: BTreeMap<TaskId, Task>,
    keys: BTreeMap<Key, TaskId>,
    newest_lease: Option<LeaseId>,
    newest_task: Option<TaskId>,
    events: u64,
}

#[derive(Debug)]
struct Cluster {
    lost_after: Span,
    up: bool,
    silent_since: Timestamp,
    nodes: BTreeMap<NodeId, Node>,
}

#[derive(Debug)]
struct Node {
    alive: bool,
    total: Resources,
    leased: Resources,
}

#[derive(Debug)]
struct Lease {
    cluster: ClusterId,
    node: NodeId,
    ask: Resources,
    tasks: BTreeSet<TaskId>,
}

/// A task, as the journal tells it.
#[derive(Debug)]
struct Task {
    key: Key,
    spec: SpecId,
    attempt: Attempt,
    state: State,
    /// When its attempt was assigned.
    assigned: Timestamp,
}

#[derive(Debug, PartialEq)]
enum State {
    Waiting,
    Held { lease: LeaseId, started: bool, stop: Option<Stop> },
    Delayed,
    Ended(Outcome),
    Forgotten(Outcome),
}

impl Journal {
    /// Takes in the next entry. `truth` is the time by a clock that never errs, where there is one.
    pub fn entry(&mut self, entry: &Entry, truth: Option<Timestamp>) -> Verdict {
        law(Law::GapFree, entry.first == self.last + 1, || {
            format!("after event {} comes event {}", self.last, entry.first)
        })?;
        law(Law::StepByStep, entry.at >= self.at, || {
            format!("event {} happened at {:?}, before the one before it", entry.first, entry.at)
        })?;
        self.at = entry.at;
        for event in &entry.events {
            self.last += 1;
            self.events += 1;
            self.event(event, truth.unwrap_or(entry.at), truth.is_some()).map_err(|broken| {
                let what = format!("event {} {event:?}: {}", self.last, broken.what);
                Violation { law: broken.law, what }
            })?;
        }
        Ok(())
    }

    /// The number of the last event.
    pub fn last(&self) -> Seq {
        self.last
    }

    /// How many events were judged.
    pub fn judged(&self) -> u64 {
        self.events
    }

    /// The task of a key, whether or not its record was given up since.
    pub fn task_of(&self, key: &Key) -> Option<TaskId> {
        self.keys.get(key).copied()
    }

    /// The key of a task, whether or not its record was given up since.
    pub fn key_of(&self, id: TaskId) -> Option<&Key> {
        self.tasks.get(&id).map(|task| &task.key)
    }

    /// Every task there ever was, with its key.
    pub fn tasks(&self) -> impl Iterator<Item = (TaskId, &Key)> {
        self.tasks.iter().map(|(id, task)| (*id, &task.key))
    }

    /// How a task ended, if it has.
    pub fn outcome(&self, id: TaskId) -> Option<&Outcome> {
        match &self.tasks.get(&id)?.state {
            State::Ended(outcome) | State::Forgotten(outcome) => Some(outcome),
            State::Waiting | State::Held { .. } | State::Delayed => None,
        }
    }

    /// Whether the record of a task was given up.
    pub fn is_forgotten(&self, id: TaskId) -> bool {
        let state = self.tasks.get(&id).map(|task| &task.state);
        matches!(state, None | Some(State::Forgotten(_)))
    }

    /// Whether no attempt of a task may begin any more.
    pub fn is_final(&self, id: TaskId) -> bool {
        self.tasks.get(&id).is_some_and(|task| match task.state {
            State::Ended(_) | State::Forgotten(_) => true,
            State::Held { stop, .. } => stop.is_some(),
            State::Waiting | State::Delayed => false,
        })
    }

    /// Whether an attempt is the one that counts.
    pub fn is_current(&self, id: TaskId, attempt: Attempt) -> bool {
        self.tasks
            .get(&id)
            .is_some_and(|task| task.attempt == attempt && matches!(task.state, State::Held { .. }))
    }

    /// The newest attempt of a task.
    pub fn attempt(&self, id: TaskId) -> Option<Attempt> {
        self.tasks.get(&id).map(|task| task.attempt)
    }

    /// Tasks that have not ended.
    pub fn open(&self) -> impl Iterator<Item = TaskId> {
        let open = self.tasks.iter().filter(|(_, task)| {
            matches!(task.state, State::Waiting | State::Held { .. } | State::Delayed)
        });
        open.map(|(id, _)| *id)
    }

    fn event(&mut self, event: &Event, now: Timestamp, is_true: bool) -> Verdict {
        match event {
            Event::ClusterAdded(id, _, spec) => self.add(*id, spec),
            Event::ClusterChanged(id, spec) => {
                self.cluster(*id)?.lost_after = spec.lost_after;
                Ok(())
            }
            Event::ClusterRemoved(id) => self.remove(*id),
            Event::ClusterLinked(id, _) => {
                self.cluster(*id)?.up = true;
                Ok(())
            }
            Event::ClusterSuspected(id) => {
                let cluster = self.cluster(*id)?;
                cluster.up = false;
                cluster.silent_since = now;
                Ok(())
            }
            Event::ClusterLost(id) => {
                let cluster = self.cluster(*id)?;
                let silent = now.since(cluster.silent_since);
                law(Law::NotBeforeItsTime, !is_true || silent >= cluster.lost_after, || {
                    format!("given up after {silent} of silence, not {}", cluster.lost_after)
                })
            }
            Event::NodesSeen(id, nodes) => {
                let cluster = self.cluster(*id)?;
                for (node, alive, facts) in nodes {
                    let known = cluster.nodes.entry(*node).or_insert_with(Node::empty);
                    known.alive = *alive;
                    known.total = facts.total.clone();
                }
                Ok(())
            }
            Event::SpecDefined(id, spec) => {
                self.specs.insert(*id, Arc::clone(spec));
                Ok(())
            }
            Event::ClusterDrained(..)
            | Event::BreakerOpened(..)
            | Event::BreakerHalfOpened(_)
            | Event::CodeForgotten(_)
            | Event::ClockSkipped(_) => Ok(()),
            Event::Leased { lease, cluster, node, spec } => {
                self.lease(*lease, *cluster, *node, *spec)
            }
            Event::Released(lease) => self.release(*lease),
            _ => self.task_event(event, now, is_true),
        }
    }

    fn task_event(&mut self, event: &Event, now: Timestamp, is_true: bool) -> Verdict {
        match event {
            Event::Submitted { task, spec, key, .. } => self.submit(*task, *spec, key),
            Event::Assigned(lease, tasks) => {
                tasks.iter().try_for_each(|task| self.assign(*lease, *task, now))
            }
            Event::Started(task) => match &mut self.live(*task)?.state {
                State::Held { started, .. } if !*started => {
                    *started = true;
                    Ok(())
                }
                state => Err(unexpected(*task, state)),
            },
            Event::Returned(task) => {
                self.may_go_on(*task)?;
                self.let_go(*task)?;
                self.live(*task)?.state = State::Waiting;
                Ok(())
            }
            Event::Retried { task, .. } => {
                self.may_go_on(*task)?;
                self.let_go(*task)?;
                self.live(*task)?.state = State::Delayed;
                Ok(())
            }
            Event::Requeued(id) => {
                let task = self.live(*id)?;
                if task.state != State::Delayed {
                    return Err(unexpected(*id, &task.state));
                }
                task.state = State::Waiting;
                Ok(())
            }
            Event::StopAsked(task, why) => self.stop(*task, *why, now, is_true),
            Event::Ended { task, outcome, .. } => self.end(*task, outcome, now, is_true),
            Event::LateReport(id, attempt) => {
                let task = self.tasks.get(id).ok_or_else(|| unknown(*id))?;
                law(Law::OneCurrentAttempt, *attempt <= task.attempt, || {
                    format!("{id} was never at {attempt}, it is at {}", task.attempt)
                })
            }
            Event::Forgotten(tasks) => tasks.iter().try_for_each(|task| self.forget(*task)),
            _ => Ok(()),
        }
    }

    fn add(&mut self, id: ClusterId, spec: &ClusterSpec) -> Verdict {
        let cluster = Cluster {
            lost_after: spec.lost_after,
            up: false,
            silent_since: Timestamp::default(),
            nodes: BTreeMap::new(),
        };
        let before = self.clusters.insert(id, cluster);
        law(Law::StepByStep, before.is_none(), || format!("{id} is there already"))
    }

    fn remove(&mut self, id: ClusterId) -> Verdict {
        self.clusters.remove(&id).ok_or_else(|| no_cluster(id))?;
        let (there, others): (BTreeMap<_, _>, _) =
            std::mem::take(&mut self.leases).into_iter().partition(|(_, l)| l.cluster == id);
        self.leases = others;
        let left = there.iter().find(|(_, lease)| !lease.tasks.is_empty());
        law(Law::StepByStep, left.is_none(), || format!("{left:?} was still there"))
    }

    fn cluster(&mut self, id: ClusterId) -> Result<&mut Cluster, Violation> {
        self.clusters.get_mut(&id).ok_or_else(|| no_cluster(id))
    }

    fn submit(&mut self, id: TaskId, spec: SpecId, key: &Key) -> Verdict {
        law(Law::StepByStep, self.newest_task.is_none_or(|newest| newest < id), || {
            format!("{id} comes after {:?}", self.newest_task)
        })?;
        law(Law::StepByStep, self.specs.contains_key(&spec), || format!("{spec} is not defined"))?;
        self.newest_task = Some(id);
        let before = self.keys.insert(key.clone(), id);
        let is_new = before.is_none_or(|before| {
            let text = matches!(key, Key::Text(_));
            let state = self.tasks.get(&before).map(|task| &task.state);
            // A key in the user's own words is known for as long as the record of its task is.
            text && matches!(state, Some(State::Forgotten(_)))
        });
        law(Law::OneTaskForOneKey, is_new, || format!("{key} was {before:?} already"))?;
        let task = Task {
            key: key.clone(),
            spec,
            attempt: Attempt(0),
            state: State::Waiting,
            assigned: Timestamp::default(),
        };
        self.tasks.insert(id, task);
        Ok(())
    }

    fn lease(&mut self, id: LeaseId, cluster: ClusterId, node: NodeId, spec: SpecId) -> Verdict {
        law(Law::NoDoubleBooking, self.newest_lease.is_none_or(|newest| newest < id), || {
            format!("{id} comes after {:?}", self.newest_lease)
        })?;
        self.newest_lease = Some(id);
        let spec = self
            .specs
            .get(&spec)
            .ok_or_else(|| Violation::new(Law::StepByStep, format!("{spec} is not defined")))?;
        let ask = spec.shape.resources.clone();
        let known = self.cluster(cluster)?;
        law(Law::StepByStep, known.up, || format!("no agent of {cluster} is linked"))?;
        let account =
            known.nodes.get_mut(&node).filter(|node| node.alive).ok_or_else(|| {
                Violation::new(Law::NoDoubleBooking, format!("{node} is not there"))
            })?;
        account.leased.put(&ask);
        law(Law::NoDoubleBooking, account.total.covers(&account.leased), || {
            format!("{node} of {cluster} has {}, granted are {}", account.total, account.leased)
        })?;
        self.leases.insert(id, Lease { cluster, node, ask, tasks: BTreeSet::new() });
        Ok(())
    }

    fn release(&mut self, id: LeaseId) -> Verdict {
        let lease = self.leases.remove(&id).ok_or_else(|| {
            Violation::new(Law::NoDoubleBooking, format!("{id} is no lease, or was given back"))
        })?;
        law(Law::NoDoubleBooking, lease.tasks.is_empty(), || {
            format!("{id} is still used by {:?}", lease.tasks)
        })?;
        let node = self.cluster(lease.cluster)?.nodes.get_mut(&lease.node);
        let taken = node.is_some_and(|node| node.leased.take(&lease.ask).is_ok());
        law(Law::NoDoubleBooking, taken, || format!("{id} was not in the account of its node"))
    }

    fn assign(&mut self, lease: LeaseId, id: TaskId, now: Timestamp) -> Verdict {
        let task = self.live(id)?;
        if task.state != State::Waiting {
            return Err(Violation::new(
                Law::OneCurrentAttempt,
                format!("{id} is {:?}, and assigned again", task.state),
            ));
        }
        task.attempt = task.attempt.next();
        task.assigned = now;
        task.state = State::Held { lease, started: false, stop: None };
        let holder = self
            .leases
            .get_mut(&lease)
            .ok_or_else(|| Violation::new(Law::NoDoubleBooking, format!("{lease} is no lease")))?;
        holder.tasks.insert(id);
        Ok(())
    }

    /// A task that was told to stop begins no other attempt.
    fn may_go_on(&mut self, id: TaskId) -> Verdict {
        let task = self.live(id)?;
        match &task.state {
            State::Held { stop: None, .. } => Ok(()),
            State::Held { stop: Some(_), .. } => Err(Violation::new(
                Law::NeverAfterCancel,
                format!("{id} was told to stop, and goes on"),
            )),
            state => Err(unexpected(id, state)),
        }
    }

    fn let_go(&mut self, id: TaskId) -> Verdict {
        let State::Held { lease, .. } = self.live(id)?.state else { return Ok(()) };
        let held = self.leases.get_mut(&lease).is_some_and(|lease| lease.tasks.remove(&id));
        law(Law::NoDoubleBooking, held, || format!("{lease} does not hold {id}"))
    }

    fn stop(&mut self, id: TaskId, why: Stop, now: Timestamp, is_true: bool) -> Verdict {
        if why == Stop::TimedOut && is_true {
            self.not_too_early(id, now)?;
        }
        let task = self.live(id)?;
        match &mut task.state {
            State::Held { stop, .. } if stop.is_none() => {
                *stop = Some(why);
                Ok(())
            }
            state => Err(unexpected(id, state)),
        }
    }

    fn not_too_early(&mut self, id: TaskId, now: Timestamp) -> Verdict {
        let (spec, assigned) = {
            let task = self.live(id)?;
            (task.spec, task.assigned)
        };
        let timeout = self.specs.get(&spec).and_then(|spec| spec.timeout);
        let ran = now.since(assigned);
        law(Law::NotBeforeItsTime, timeout.is_some_and(|timeout| ran >= timeout), || {
            format!("{id} was stopped after {ran}, it may run for {timeout:?}")
        })
    }

    fn end(&mut self, id: TaskId, outcome: &Outcome, now: Timestamp, is_true: bool) -> Verdict {
        let stop = match &self.live(id)?.state {
            State::Held { stop, .. } => *stop,
            _ => None,
        };
        let timed_out =
            matches!(outcome, Outcome::Failed(failure) if failure.cause == Cause::TimedOut);
        if is_true && timed_out && stop.is_none() {
            self.not_too_early(id, now)?;
        }
        self.let_go(id)?;
        self.live(id)?.state = State::Ended(outcome.clone());
        Ok(())
    }

    fn forget(&mut self, id: TaskId) -> Verdict {
        let task = self.tasks.get_mut(&id).ok_or_else(|| unknown(id))?;
        match &task.state {
            State::Ended(outcome) => task.state = State::Forgotten(outcome.clone()),
            state => return Err(unexpected(id, state)),
        }
        Ok(())
    }

    /// A task that has not ended.
    fn live(&mut self, id: TaskId) -> Result<&mut Task, Violation> {
        let task = self.tasks.get_mut(&id).ok_or_else(|| unknown(id))?;
        match &task.state {
            State::Ended(outcome) | State::Forgotten(outcome) => {
                Err(Violation::new(Law::OneEnd, format!("{id} had ended: {outcome:?}")))
            }
            State::Waiting | State::Held { .. } | State::Delayed => Ok(task),
        }
    }
}

impl Node {
    fn empty() -> Self {
        Self { alive: false, total: Resources::NONE, leased: Resources::NONE }
    }
}

fn unknown(id: TaskId) -> Violation {
    Violation::new(Law::StepByStep, format!("{id} was never submitted"))
}

fn no_cluster(id: ClusterId) -> Violation {
    Violation::new(Law::StepByStep, format!("{id} is not registered"))
}

fn unexpected(id: TaskId, state: &State) -> Violation {
    Violation::new(Law::StepByStep, format!("{id} is {state:?}"))
}
