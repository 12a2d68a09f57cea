//! `crash`: kills of the real server.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use mesh_sim::crash::{self, Options};
use mesh_sim::history::Law;

/// What `crash` is told.
#[derive(Debug, Args)]
pub(crate) struct Crash {
    /// How often the server is killed
    #[arg(long, default_value_t = 200, value_name = "N")]
    kills: u64,
    /// What is drawn follows from it; the time when not given
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// The server: `schedulemesh`, built with the feature `failpoints`
    #[arg(long, default_value = "target/failpoints/debug/schedulemesh", value_name = "PATH")]
    server: PathBuf,
    /// Fill up a small disk as well (mounts a tmpfs, which takes the rights to)
    #[arg(long)]
    tmpfs: bool,
    /// Plant a fault in the server, which must be built with the feature `bugs` too
    #[arg(long, value_name = "BUG")]
    bug: Option<String>,
    /// Write what was done to a file, for `report`
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Crash {
    pub(crate) fn run(self) -> ExitCode {
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
        println!("seed {seed}");
        let options = Options {
            kills: self.kills,
            seed,
            server: self.server,
            tmpfs: self.tmpfs,
            bug: self.bug,
        };
        let ended = match crash::run(&options, &|line| eprintln!("{line}")) {
            Ok(ended) => ended,
            Err(error) => {
                eprintln!("{}: {error}", options.server.display());
                return ExitCode::FAILURE;
            }
        };
        let mut report = ended.report;
        if let Some((violation, dir)) = &ended.broken {
            match violation.law {
                Law::AcknowledgedIsDurable | Law::ResultAsStored => report.lost += 1,
                Law::OneTaskForOneKey | Law::OneEnd | Law::OneCurrentAttempt => report.doubled += 1,
                _ => {}
            }
            println!("BROKEN {violation}");
            println!("  see {} (state, server.log), seed {seed}", dir.display());
        }
        println!("{report}");
        if let Some(file) = &self.json
            && let Err(error) = report.write(file)
        {
            eprintln!("{}: {error}", file.display());
            return ExitCode::FAILURE;
        }
        if ended.broken.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
