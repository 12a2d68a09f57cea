//! What the runs have shown, as files that `docs/reliability-report.md` is made of.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::sweep::Outcome;

/// A run of the simulator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Simulated {
    /// The first seed.
    pub from: u64,
    /// How many seeds.
    pub seeds: u64,
    /// Seeds that broke a law.
    pub broken: u64,
    /// Things that were due, one after the other.
    pub steps: u64,
    /// Time that passed in the worlds.
    pub hours: u64,
    /// Time that it took, in seconds.
    pub took_s: f64,
    /// Starts of the control plane.
    pub lives: u64,
    /// Events of the journal that were judged.
    pub events: u64,
    /// Tasks that were accepted.
    pub tasks: u64,
    /// Acknowledgements that were judged.
    pub acknowledged: u64,
    /// Faults, by kind.
    pub faults: BTreeMap<String, u64>,
}

impl Simulated {
    /// A run, in numbers.
    pub fn of(from: u64, seeds: u64, outcome: &Outcome) -> Self {
        let stats = &outcome.stats;
        let faults = stats.faults.iter().map(|(fault, count)| (fault.word().to_owned(), *count));
        Self {
            from,
            seeds,
            broken: u64::try_from(outcome.broken.len()).unwrap_or(u64::MAX),
            steps: stats.steps,
            hours: stats.time.micros() / 3_600_000_000,
            took_s: outcome.took.as_secs_f64(),
            lives: stats.lives,
            events: stats.events,
            tasks: stats.tasks,
            acknowledged: stats.acknowledged,
            faults: faults.collect(),
        }
    }
}

/// Writes what a run has shown to a file.
pub fn write(file: &Path, shown: &impl Serialize) -> io::Result<()> {
    std::fs::write(file, serde_json::to_vec_pretty(shown)?)
}

impl fmt::Display for Simulated {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: u64 = self.faults.values().sum();
        writeln!(
            out,
            "{} seeds: {} broke a law; {} steps, {} hours of simulated time, {faults} faults, \
             {} starts of the control plane, {} tasks, {} events and {} acknowledgements judged",
            self.seeds,
            self.broken,
            self.steps,
            self.hours,
            self.lives,
            self.tasks,
            self.events,
            self.acknowledged
        )?;
        #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "for people")]
        let rate = |count: u64| (count as f64 / self.took_s.max(0.001)).round();
        write!(
            out,
            "{:.1} s: {} steps and {} simulated seconds per second",
            self.took_s,
            rate(self.steps),
            rate(self.hours * 3_600)
        )
    }
}
