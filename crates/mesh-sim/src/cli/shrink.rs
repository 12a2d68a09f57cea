//! `shrink`: the smallest world in which a seed still breaks the same law.

use std::process::ExitCode;

use clap::Args;
use mesh_sim::plan::Plan;
use mesh_sim::{shrink, world};

/// What `shrink` is told.
#[derive(Debug, Args)]
pub(crate) struct Shrink {
    /// The seed that breaks a law
    seed: u64,
}

impl Shrink {
    pub(crate) fn run(&self) -> ExitCode {
        let plan = Plan::new(self.seed);
        let Some(smallest) = shrink::shrink(&plan) else {
            println!("seed {} breaks no law", self.seed);
            return ExitCode::FAILURE;
        };
        let ended = world::run(&smallest, true);
        for line in &ended.story {
            println!("{line}");
        }
        println!("\n{smallest}");
        ExitCode::SUCCESS
    }
}
