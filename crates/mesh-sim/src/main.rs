//! `schedulemesh-sim`: the tests of the promises, from the command line.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for terminals")]

mod cli;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    cli::Cli::parse().run()
}
