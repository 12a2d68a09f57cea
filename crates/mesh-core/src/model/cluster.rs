//! Clusters and their nodes, as they were registered and as they were last seen.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::amount::{Amount, Resources};
use super::id::{NodeName, Tag};
use super::label::Labels;
use super::task::PythonVersion;
use super::time::{Span, Timestamp};

/// What the owner of a cluster says about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// Multiplies its score; 1 is neutral.
    pub weight: Amount,
    /// Multiplies its score by 1.2.
    pub prefer: bool,
    /// Words that tasks may require, prefer or avoid.
    pub tags: BTreeSet<Tag>,
    /// Labels that all of its nodes have.
    pub labels: Labels,
    /// No new work while CPU, GPU or memory are used above this share; 1 is no limit.
    pub max_utilisation: Amount,
    /// Most top-level tasks at once; 1 is serial mode.
    pub max_tasks: Option<u32>,
    /// Least time between the starts of two jobs.
    pub job_interval: Span,
    /// How long its agent may be silent before it counts as lost.
    pub lost_after: Span,
    /// Failures in a row to start work after which it gets none for a while.
    pub breaker_failures: u32,
    /// For how long.
    pub breaker_recovery: Span,
    /// How the shell reaches it, as the shell wrote it; the core does not read this.
    pub reach: Box<str>,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            weight: Amount::whole(1),
            prefer: false,
            tags: BTreeSet::new(),
            labels: Labels::new(),
            max_utilisation: Amount::whole(1),
            max_tasks: None,
            job_interval: Span::ZERO,
            lost_after: Span::from_secs(30),
            breaker_failures: 5,
            breaker_recovery: Span::from_secs(60),
            reach: "".into(),
        }
    }
}

/// What an agent says about itself and its cluster when it links.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentFacts {
    /// The life of the agent process: another one means that what the agent owned is gone.
    pub incarnation: u128,
    /// The Python that runs in the cluster.
    pub python: PythonVersion,
    /// The Ray that runs there.
    pub ray: Box<str>,
    /// The agent's own version.
    pub version: Box<str>,
}

/// Whether a cluster can be talked to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Link {
    /// Registered; no agent has linked yet.
    Awaited {
        /// Since then.
        since: Timestamp,
    },
    /// Its agent is there.
    Up {
        /// Since then.
        since: Timestamp,
    },
    /// Its agent fell silent. What runs there may well go on: nothing is started again yet.
    Suspect {
        /// Since then.
        since: Timestamp,
    },
    /// Its agent was silent too long. What ran there was replaced, failed, or waits, as it says.
    Lost {
        /// Since then.
        since: Timestamp,
    },
}

impl Link {
    /// One word for people and metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Awaited { .. } => "connecting",
            Self::Up { .. } => "ready",
            Self::Suspect { .. } => "suspect",
            Self::Lost { .. } => "lost",
        }
    }

    /// Since when it is so.
    pub fn since(&self) -> Timestamp {
        match self {
            Self::Awaited { since }
            | Self::Up { since }
            | Self::Suspect { since }
            | Self::Lost { since } => *since,
        }
    }
}

/// A node as an agent sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Ray's id of it.
    pub name: NodeName,
    /// Its address, for people.
    pub address: Box<str>,
    /// Its Ray labels, without those that are unique to each node.
    pub labels: Labels,
    /// What it has, without Ray's internal resources.
    pub total: Resources,
    /// What others than ScheduleMesh use of it.
    pub foreign: Resources,
}

/// A breaker keeps work away from a cluster that fails to start it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Breaker {
    /// Work flows, and the last start succeeded.
    #[default]
    Closed,
    /// So many starts failed in a row, fewer than the limit.
    Counting {
        /// In a row.
        failures: u32,
    },
    /// No work goes there.
    Open {
        /// Until then.
        until: Timestamp,
    },
    /// One task was let through to see whether the cluster works again.
    Probing {
        /// That task.
        task: super::id::TaskId,
    },
    /// The next task is let through.
    HalfOpen,
}

impl Breaker {
    /// Waits longer by so much.
    pub(crate) fn put_off(&mut self, span: Span) {
        if let Self::Open { until } = self {
            *until = until.after(span);
        }
    }
}
