//! The `schedulemesh` command line: it parses, asks the control plane, prints, and ends with an exit
//! code. It knows terminals and nothing of the domain; `serve` starts the server of `mesh-server`.
//!
//! A library and a thin program, so that tests can make the reference pages from the same types.

pub mod args;
pub mod codes;
pub mod command;
pub mod context;
pub mod exit;
pub mod print;
pub mod recovery;
pub mod units;

use std::process::ExitCode;

use clap::Parser as _;
use mesh_api::problem::Problem;

/// The program.
pub fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let output = cli.global.output;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(command::run(cli)),
        Err(error) => Err(Problem::new(
            "INTERNAL",
            format!("no threads can be started: {error}"),
            "look at the limits of this user (`ulimit -u`)",
        )),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(problem) => {
            print::problem(&problem, output);
            exit::Exit::from(&problem).into()
        }
    }
}
