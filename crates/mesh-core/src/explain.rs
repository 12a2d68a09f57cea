//! Why a task waits, or why it may go where it goes: as data, so that the command line, the
//! dashboard, logs and tests print the same value.

use std::fmt;

use crate::model::amount::{Amount, Resources, Shortfall};
use crate::model::id::{ClusterName, NodeName, Tag, TaskId};
use crate::model::label::LabelRule;
use crate::model::task::{Failure, PythonVersion};
use crate::model::time::Timestamp;

/// What one cluster has to say about one task.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It has room now, on this node; the cluster of the highest score wins.
    Fits {
        /// The node.
        node: NodeName,
        /// How welcome the task is there.
        score: Score,
    },
    /// Its agent is not there.
    NotReady {
        /// The state of its link, in a word.
        link: &'static str,
        /// Since when.
        since: Timestamp,
    },
    /// It was told to take no new work.
    Draining,
    /// It lacks a tag that the task requires.
    TagMissing(Tag),
    /// It has a tag that the task avoids.
    TagAvoided(Tag),
    /// None of its nodes satisfies a label rule.
    LabelUnmet(LabelRule),
    /// It runs another Python than the one that pickled the task.
    PythonDiffers {
        /// The task's.
        task: PythonVersion,
        /// The cluster's.
        cluster: PythonVersion,
    },
    /// The task wants to run elsewhere.
    OtherPreferred(ClusterName),
    /// No node of it could ever hold the task.
    TooBig {
        /// What the node that comes closest has, in all.
        largest: Resources,
        /// What it lacks.
        short: Shortfall,
    },
    /// A node could hold the task, but not now.
    NoRoom {
        /// What is free on the node that comes closest.
        free: Resources,
        /// What it lacks.
        short: Shortfall,
    },
    /// It is used above the share that its owner set.
    OverUtilised {
        /// The share that is used of the scarcest resource.
        used: Amount,
        /// The share at which new work stops.
        limit: Amount,
    },
    /// It runs as many tasks as its owner allows.
    TasksMax(u32),
    /// It started a job a moment ago, and its owner wants a pause.
    JobInterval {
        /// When the next job may start.
        until: Timestamp,
    },
    /// It failed to start work too often in a row.
    BreakerOpen {
        /// When it is tried again.
        until: Timestamp,
    },
    /// It is being tried with one task after its breaker was open.
    BreakerProbing,
}

impl Verdict {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Fits { .. } => "FITS",
            Self::NotReady { .. } => "NOT_READY",
            Self::Draining => "DRAINING",
            Self::TagMissing(_) => "TAG_MISSING",
            Self::TagAvoided(_) => "TAG_AVOIDED",
            Self::LabelUnmet(_) => "LABEL_UNMET",
            Self::PythonDiffers { .. } => "PYTHON_DIFFERS",
            Self::OtherPreferred(_) => "OTHER_PREFERRED",
            Self::TooBig { .. } => "TOO_BIG",
            Self::NoRoom { .. } => "NO_ROOM",
            Self::OverUtilised { .. } => "OVER_UTILISED",
            Self::TasksMax(_) => "TASKS_MAX",
            Self::JobInterval { .. } => "JOB_INTERVAL",
            Self::BreakerOpen { .. } => "BREAKER_OPEN",
            Self::BreakerProbing => "BREAKER_PROBING",
        }
    }

    /// Whether the cluster says yes.
    pub fn fits(&self) -> bool {
        matches!(self, Self::Fits { .. })
    }

    /// Whether waiting can't help: the cluster as it is could never run the task.
    pub fn is_final(&self) -> bool {
        match self {
            Self::TagMissing(_)
            | Self::TagAvoided(_)
            | Self::LabelUnmet(_)
            | Self::PythonDiffers { .. }
            | Self::TooBig { .. } => true,
            Self::Fits { .. }
            | Self::NotReady { .. }
            | Self::Draining
            | Self::OtherPreferred(_)
            | Self::NoRoom { .. }
            | Self::OverUtilised { .. }
            | Self::TasksMax(_)
            | Self::JobInterval { .. }
            | Self::BreakerOpen { .. }
            | Self::BreakerProbing => false,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fits { node, score } => write!(out, "fits on node {node}, score {score}"),
            Self::NotReady { link, .. } => write!(out, "its agent is not linked ({link})"),
            Self::Draining => out.write_str("is draining"),
            Self::TagMissing(tag) => write!(out, "does not have the required tag {tag}"),
            Self::TagAvoided(tag) => write!(out, "has the avoided tag {tag}"),
            Self::LabelUnmet(rule) => write!(out, "no node satisfies {rule}"),
            Self::PythonDiffers { task, cluster } => {
                write!(out, "runs Python {cluster}, the task was pickled under {task}")
            }
            Self::OtherPreferred(name) => write!(out, "the task waits for cluster {name}"),
            Self::TooBig { largest, short } => {
                write!(out, "its best node has {largest} in all: {short}")
            }
            Self::NoRoom { free, short } => write!(out, "its best node has {free} free: {short}"),
            Self::OverUtilised { used, limit } => {
                write!(out, "is used to {used} of 1, new work stops above {limit}")
            }
            Self::TasksMax(max) => write!(out, "already runs {max} tasks, its limit"),
            Self::JobInterval { .. } => out.write_str("started a job a moment ago"),
            Self::BreakerOpen { .. } => out.write_str("failed to start work too often"),
            Self::BreakerProbing => out.write_str("is being tried with one task"),
        }
    }
}

/// How welcome a task is on a cluster, with its parts. `total` is
/// `(cpu + memory + gpu) * prefer * idle + affinity`, the enhanced form of the specification.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Free cores times the cluster's weight.
    pub cpu: f64,
    /// Free memory in GiB times 0.1 times the cluster's weight.
    pub memory: f64,
    /// Free GPUs times 5.
    pub gpu: f64,
    /// 1.2 for a preferred cluster, else 1.
    pub prefer: f64,
    /// The share of cores that is not used.
    pub idle: f64,
    /// For each preferred tag that the cluster has, [`Score::TAG`].
    pub affinity: f64,
}

impl Score {
    /// What a preferred tag is worth: more than the free room of any one cluster of common size.
    pub const TAG: f64 = 1_000.0;

    /// The number that clusters are ranked by.
    pub fn total(&self) -> f64 {
        (self.cpu + self.memory + self.gpu) * self.prefer * self.idle + self.affinity
    }
}

impl fmt::Display for Score {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, memory, gpu, prefer, idle, affinity } = self;
        let total = self.total();
        write!(out, "{total:.2} = (cpu {cpu:.2} + memory {memory:.2} + gpu {gpu:.2})")?;
        write!(out, " x prefer {prefer:.1} x idle {idle:.2} + affinity {affinity:.0}")
    }
}

/// Why a task is where it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The task.
    pub task: TaskId,
    /// The short answer.
    pub because: Because,
    /// What each cluster says, best first. Empty for a call, which goes where its actor is.
    pub clusters: Vec<(ClusterName, Verdict)>,
}

/// The short answer to "why does it not run?".
#[derive(Clone, Debug, PartialEq)]
pub enum Because {
    /// It is queued.
    Queued {
        /// Tasks that go before it, counted up to [`AHEAD_MAX`].
        ahead: usize,
    },
    /// No cluster is registered at all.
    NoClusters,
    /// Its actor is not up yet, or answers earlier calls first.
    WaitsForActor(TaskId),
    /// Its last attempt failed, and it waits for the next.
    Delayed {
        /// Until then.
        until: Timestamp,
        /// Why the last attempt failed.
        last: Failure,
    },
    /// It was sent to a cluster and is about to start.
    Assigned(ClusterName),
    /// It runs.
    Running(ClusterName),
    /// It was told to stop, and its cluster has not confirmed it yet.
    Stopping(ClusterName),
    /// Its cluster can't be heard; it may well run.
    Unreachable(ClusterName),
    /// It is over.
    Ended,
}

/// Most tasks that are counted as going before a task.
pub const AHEAD_MAX: usize = 100_000;
