//! `bugs`: whether the simulator notices faults that were put in on purpose.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use mesh_core::bug::Bug;

/// What `bugs` is told.
#[derive(Debug, Args)]
pub(crate) struct Bugs {
    /// The faults; all of them when none is named
    #[arg(value_name = "BUG")]
    names: Vec<Bug>,
    /// Most seeds until a fault must have been noticed
    #[arg(long, default_value_t = 200, value_name = "N")]
    within: u64,
    /// Write what was noticed to a file, for `report`
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[cfg(feature = "bugs")]
impl Bugs {
    pub(crate) fn run(&self) -> ExitCode {
        use mesh_sim::canary;

        let bugs = if self.names.is_empty() { Bug::ALL } else { &self.names };
        let caught: Vec<_> = bugs.iter().map(|bug| canary::hunt(*bug, self.within)).collect();
        for canary in &caught {
            println!("{canary}");
        }
        let missed = caught.iter().filter(|canary| canary.seed.is_none()).count();
        println!("{} of {} faults were noticed", caught.len() - missed, caught.len());
        if let Some(file) = &self.json
            && let Err(error) = mesh_sim::report::write(file, &caught)
        {
            eprintln!("{}: {error}", file.display());
            return ExitCode::FAILURE;
        }
        if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

#[cfg(not(feature = "bugs"))]
impl Bugs {
    pub(crate) fn run(&self) -> ExitCode {
        eprintln!(
            "this build has no faults to plant ({:?}, within {} seeds, {:?}); build it with \
             `cargo build -p mesh-sim --features bugs`",
            self.names, self.within, self.json
        );
        ExitCode::FAILURE
    }
}
