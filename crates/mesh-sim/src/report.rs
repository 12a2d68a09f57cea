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

/// A run of the crash loop.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Crashed {
    /// The seed.
    pub seed: u64,
    /// How often the server was killed.
    pub kills: u64,
    /// The same, by what it was doing.
    pub kinds: BTreeMap<String, u64>,
    /// How often it was asked to end instead, and ended in peace.
    pub peaceful: u64,
    /// How often each failpoint was passed.
    pub points: BTreeMap<String, u64>,
    /// At how many failpoints it was killed.
    pub killed_at: u64,
    /// Tasks that were accepted.
    pub tasks: u64,
    /// Events of the journal that were judged.
    pub events: u64,
    /// Acknowledgements that were judged: submissions, cancellations, ends, reports and results.
    pub acknowledged: u64,
    /// Acknowledged things that were not there afterwards.
    pub lost: u64,
    /// Things that happened twice.
    pub doubled: u64,
    /// Results that were compared, byte for byte, with what the agent had reported.
    pub results: u64,
    /// Events that followers saw, and that were compared with the journal.
    pub followed: u64,
    /// Attempts that agents were told to start, and that were looked for in the journal.
    pub dispatched: u64,
    /// Snapshots that were compared with what the journal leads to.
    pub snapshots: u64,
    /// The time from a start until work is taken: the middle one, in milliseconds.
    pub restart_p50_ms: u64,
    /// The longest.
    pub restart_max_ms: u64,
    /// Whether a small disk was filled, and how often the server was killed on it.
    pub full_disk_kills: u64,
    /// Cancellations that a full disk let through.
    pub full_disk_cancels: u64,
    /// Time that it took, in seconds.
    pub took_s: f64,
}

impl Crashed {
    /// Failpoints that were passed at least so often.
    pub fn reached(&self, times: u64) -> usize {
        self.points.values().filter(|passes| **passes >= times).count()
    }

    /// Writes it to a file.
    pub fn write(&self, file: &Path) -> io::Result<()> {
        std::fs::write(file, serde_json::to_vec_pretty(self)?)
    }
}

impl fmt::Display for Crashed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{} kills in {:.0} s:", self.kills, self.took_s)?;
        for (kind, count) in &self.kinds {
            writeln!(out, "  {count:5} {kind}")?;
        }
        writeln!(out, "  {:5} peaceful ends beside them", self.peaceful)?;
        writeln!(
            out,
            "failpoints: {} of {} passed at least 3 times, killed at {}",
            self.reached(3),
            self.points.len(),
            self.killed_at
        )?;
        for (point, passes) in self.points.iter().filter(|(_, passes)| **passes < 3) {
            writeln!(out, "  {point} was passed {passes} times")?;
        }
        writeln!(
            out,
            "{} tasks, {} events, {} acknowledgements, {} results, {} starts and {} followed events \
             judged, {} snapshots compared",
            self.tasks,
            self.events,
            self.acknowledged,
            self.results,
            self.dispatched,
            self.followed,
            self.snapshots
        )?;
        if self.full_disk_kills > 0 {
            let (kills, cancels) = (self.full_disk_kills, self.full_disk_cancels);
            writeln!(out, "a full disk: {kills} kills, {cancels} cancellations let through")?;
        }
        write!(
            out,
            "lost: {}, doubled: {}; restart: middle {} ms, longest {} ms",
            self.lost, self.doubled, self.restart_p50_ms, self.restart_max_ms
        )
    }
}
