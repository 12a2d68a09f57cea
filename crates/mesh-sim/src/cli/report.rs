//! `report`: the page about what was run, and what it found.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use mesh_sim::page;

/// What `report` is told.
#[derive(Debug, Args)]
pub(crate) struct Report {
    /// The folder with what the runs have left: simulated.json, bugs.json, crashes.json
    #[arg(value_name = "DIR")]
    from: PathBuf,
    /// The page
    #[arg(long, default_value = "docs/reliability-report.md", value_name = "FILE")]
    out: PathBuf,
}

impl Report {
    pub(crate) fn run(&self) -> ExitCode {
        let written = page::page(&self.from).and_then(|page| std::fs::write(&self.out, page));
        match written {
            Ok(()) => {
                println!("wrote {}", self.out.display());
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("{}: {error}", self.from.display());
                ExitCode::FAILURE
            }
        }
    }
}
