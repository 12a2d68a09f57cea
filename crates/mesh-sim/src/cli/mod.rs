//! The command line: one file for each command.

mod bugs;
mod check;
mod crash;
mod report;
mod run;
mod shrink;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tests the promises of ScheduleMesh: whole worlds of faults from seeds, and kills of the real server.
#[derive(Debug, Parser)]
#[command(name = "schedulemesh-sim", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Live through the worlds of many seeds, or through that of one
    Run(run::Run),
    /// Plant faults, one after the other, and count the seeds until each is noticed
    Bugs(bugs::Bugs),
    /// Write the reliability report from what runs have left
    Report(report::Report),
    /// Find the smallest world in which a seed still breaks a law, and tell its story
    Shrink(shrink::Shrink),
    /// Judge what a real server left in its state directory, and what it told its clients
    Check(check::Check),
    /// Kill the real server again and again while it is worked with, and judge what it kept
    Crash(crash::Crash),
}

impl Cli {
    /// Does what was asked.
    pub(crate) fn run(self) -> ExitCode {
        match self.command {
            Command::Run(run) => run.run(),
            Command::Bugs(bugs) => bugs.run(),
            Command::Report(report) => report.run(),
            Command::Shrink(shrink) => shrink.run(),
            Command::Check(check) => check.run(),
            Command::Crash(crash) => crash.run(),
        }
    }
}
