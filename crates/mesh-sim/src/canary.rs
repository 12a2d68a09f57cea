//! Tests the tests: a fault that was put in on purpose must be noticed.

use std::fmt;

use mesh_core::bug::Bug;
use serde::{Deserialize, Serialize};

use crate::history::Violation;
#[cfg(feature = "bugs")]
use crate::{plan::Plan, world};

/// Whether a fault was noticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// The fault.
    pub bug: String,
    /// The first seed that showed it, counted from 0.
    pub seed: Option<u64>,
    /// The law that was broken, and how.
    pub broken: String,
    /// How many seeds were allowed.
    pub within: u64,
}

impl Canary {
    /// What came of the hunt for a fault.
    pub fn new(bug: Bug, found: Option<(u64, Violation)>, within: u64) -> Self {
        let (seed, broken) = found.map(|(seed, broken)| (seed, broken.to_string())).unzip();
        let first = broken.unwrap_or_default().lines().next().unwrap_or_default().to_owned();
        Self { bug: bug.word().into(), seed, broken: first, within }
    }
}

/// Plants a fault, and lives through seeds until one breaks a law.
#[cfg(feature = "bugs")]
pub fn hunt(bug: Bug, within: u64) -> Canary {
    mesh_core::bug::plant(Some(bug));
    let found = (0..within).find_map(|seed| {
        let verdict = world::run(&Plan::new(seed), false).verdict;
        verdict.err().map(|broken| (seed, broken))
    });
    mesh_core::bug::plant(None);
    Canary::new(bug, found, within)
}

impl fmt::Display for Canary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seed {
            Some(seed) => {
                write!(out, "{:<24} noticed by seed {seed}: {:.120}", self.bug, self.broken)
            }
            None => write!(out, "{:<24} NOT NOTICED within {} seeds", self.bug, self.within),
        }
    }
}
