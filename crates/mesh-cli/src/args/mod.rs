//! The whole command line, as types.

#![expect(clippy::doc_markdown, reason = "these texts are read in a terminal")]

mod cluster;
mod recovery;
mod serve;
mod submit;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use cluster::{AddArgs, ClusterCommand};
pub use recovery::{BackupArgs, DoctorArgs, RestoreArgs};
pub use serve::{AgentArgs, ServeArgs, UpArgs};
pub use submit::SubmitArgs;

/// One scheduler above every Ray cluster you own.
#[derive(Debug, Parser)]
#[command(
    name = "schedulemesh",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "\
Try it out:
  schedulemesh up                          a control plane and two local Ray clusters
  schedulemesh submit --wait -- python -c 'print(42)'
  schedulemesh ps                          what runs, what waits
  schedulemesh explain t1                  why it is where it is

Exit codes: 0 done, 1 the task failed, 2 wrong usage, 3 not found, 4 not allowed, 5 conflict,
6 rejected, 7 unavailable (try again), 8 timed out waiting, 130 interrupted (the work goes on)."
)]
pub struct Cli {
    /// What applies to every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What applies to every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Where the control plane is; else the one that runs on the state directory
    #[arg(
        long,
        global = true,
        env = "SCHEDULEMESH_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub url: Option<String>,
    /// The token to show; else the one in the state directory
    #[arg(
        long,
        global = true,
        env = "SCHEDULEMESH_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub token: Option<String>,
    /// The state directory [default: ~/.local/state/schedulemesh]
    #[arg(
        long,
        global = true,
        env = "SCHEDULEMESH_STATE_DIR",
        hide_env_values = true,
        value_name = "DIR"
    )]
    pub state_dir: Option<PathBuf>,
    /// How to print
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// How to print what was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Table,
    /// For programs: the bodies of the HTTP API
    Json,
}

/// The commands, in the order in which a newcomer meets them.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Try it out: a control plane and local Ray clusters, ended by Ctrl-C
    Up(UpArgs),
    /// Run the control plane
    Serve(Box<ServeArgs>),
    /// Run the agent of a Ray cluster, on one of its nodes
    Agent(AgentArgs),
    /// Submit a Ray job
    Submit(Box<SubmitArgs>),
    /// List tasks, newest first
    Ps(PsArgs),
    /// Show everything about a task
    Describe(TaskArg),
    /// Say, cluster by cluster and in numbers, why a task is where it is
    Explain(TaskArg),
    /// Show what a task printed
    Logs(LogsArgs),
    /// Wait until tasks have ended
    Wait(WaitArgs),
    /// Stop tasks, or never start them
    Cancel(TasksArg),
    /// Register, change and look at clusters
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Show whether work is accepted, and how much there is of it
    Status,
    /// Look at a state directory, and say what is wrong with it
    Doctor(DoctorArgs),
    /// Copy a state directory, also while a server runs on it
    Backup(BackupArgs),
    /// Make a state directory from a backup
    Restore(RestoreArgs),
    /// Explain an error code, or list them all
    Why(WhyArgs),
    /// Print a completion script
    #[command(after_help = "\
Examples:
  schedulemesh completion bash > ~/.local/share/bash-completion/completions/schedulemesh
  schedulemesh completion zsh > \"${fpath[1]}/_schedulemesh\"")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the version of this program, and of the control plane if one is reachable
    Version,
}

/// One task.
#[derive(Clone, Debug, Args)]
pub struct TaskArg {
    /// Its id, such as t42, or key:KEY
    #[arg(value_name = "TASK")]
    pub task: String,
}

/// Some tasks.
#[derive(Clone, Debug, Args)]
pub struct TasksArg {
    /// Their ids, such as t42, or key:KEY
    #[arg(value_name = "TASK", required = true)]
    pub tasks: Vec<String>,
}

/// `schedulemesh ps`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  schedulemesh ps                          what has not ended
  schedulemesh ps --all --cluster mac      everything that is or was on one cluster
  schedulemesh ps -w                       keep watching
  schedulemesh ps -o json | jq '.tasks[].id'")]
pub struct PsArgs {
    /// Show ended tasks too
    #[arg(short, long)]
    pub all: bool,
    /// Only this phase: queued, delayed, assigned, running, stopping, succeeded, failed, cancelled
    #[arg(long, value_name = "PHASE")]
    pub phase: Option<String>,
    /// Only what is, or was last, on this cluster
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// Only this kind: function, actor, call or job
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
    /// Only tasks of this name
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Most tasks to list
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    pub limit: u32,
    /// Print again whenever something changed, until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
}

/// `schedulemesh logs`.
#[derive(Clone, Debug, Args)]
pub struct LogsArgs {
    /// The task.
    #[command(flatten)]
    pub task: TaskArg,
    /// Go on printing until the task has ended
    #[arg(short, long)]
    pub follow: bool,
    /// Most bytes, counted from the end, such as 64KiB
    #[arg(long, value_name = "SIZE", default_value = "256KiB", value_parser = crate::units::size)]
    pub tail: u64,
}

/// `schedulemesh wait`.
#[derive(Clone, Debug, Args)]
pub struct WaitArgs {
    /// The tasks.
    #[command(flatten)]
    pub tasks: TasksArg,
    /// Give up after so long, with exit code 8, such as 90s or 5m
    #[arg(long, value_name = "TIME", value_parser = crate::units::duration)]
    pub timeout: Option<std::time::Duration>,
}

/// `schedulemesh why`.
#[derive(Clone, Debug, Args)]
pub struct WhyArgs {
    /// Such as NO_ROOM; all codes when nothing is said
    #[arg(value_name = "CODE")]
    pub code: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
