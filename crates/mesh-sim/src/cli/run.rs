//! `run`: many seeds, or the story of one.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use mesh_sim::plan::Plan;
use mesh_sim::report::{self, Simulated};
use mesh_sim::{sweep, world};

/// What `run` is told.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// How many seeds
    #[arg(long, default_value_t = 200, value_name = "N")]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0, value_name = "S")]
    from: u64,
    /// One seed only
    #[arg(long, value_name = "S", conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// With --seed: print everything that happens
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Threads; as many as there are cores when not given
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Write what was done to a file, for `report`
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Run {
    pub(crate) fn run(self) -> ExitCode {
        match self.seed {
            Some(seed) => one(seed, self.trace),
            None => self.many(),
        }
    }

    fn many(&self) -> ExitCode {
        let outcome = sweep::sweep(self.from, self.seeds, self.jobs, &|done, of| {
            eprintln!("{done} of {of} seeds");
        });
        for (seed, broken) in &outcome.broken {
            println!("seed {seed} breaks {broken}");
            println!("  see: schedulemesh-sim shrink {seed}");
        }
        let simulated = Simulated::of(self.from, self.seeds, &outcome);
        println!("{simulated}");
        if let Some(file) = &self.json
            && let Err(error) = report::write(file, &simulated)
        {
            eprintln!("{}: {error}", file.display());
            return ExitCode::FAILURE;
        }
        if outcome.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn one(seed: u64, trace: bool) -> ExitCode {
    let plan = Plan::new(seed);
    println!("{plan}");
    let ended = world::run(&plan, trace);
    for line in &ended.story {
        println!("{line}");
    }
    let stats = &ended.stats;
    println!(
        "{} steps in {} of simulated time, {} tasks, {} events; fingerprint {:016x}",
        stats.steps, stats.time, stats.tasks, stats.events, ended.fingerprint
    );
    match ended.verdict {
        Ok(()) => ExitCode::SUCCESS,
        Err(broken) => {
            println!("BROKEN {broken}");
            ExitCode::FAILURE
        }
    }
}
