//! The commands that look after a state directory.

use std::path::PathBuf;

use clap::Args;

/// `schedulemesh doctor`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
It changes nothing, and may look while a server runs. It looks at the lock, the write-ahead log, every \
checksum of journal, snapshot, arguments, results and code, at gaps in the numbers of events, at \
whether snapshot and journal lead to a state that makes sense, and at blobs and room on the disk.

Exit code 0: nothing is lost (there may be notes). 1: something is lost or damaged.

Examples:
  schedulemesh doctor
  schedulemesh doctor --state-dir /var/lib/schedulemesh -o json | jq .findings")]
pub struct DoctorArgs {}

/// `schedulemesh backup`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The copy is of one moment, whether or not a server runs: journal, snapshot, arguments, results, code, \
the blobs that something refers to, tokens and config.toml. It is checked as `schedulemesh doctor` does \
before it gets its name; until then that ends in .unfinished. It holds secrets: only you may read it.

Example:
  schedulemesh backup /backups/mesh-$(date +%F)")]
pub struct BackupArgs {
    /// Where to: a directory that is not there yet
    #[arg(value_name = "DEST")]
    pub dest: PathBuf,
}

/// `schedulemesh restore`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
What happened after the backup is forgotten, and agents may still speak of it. So no number is given \
out twice: tasks, attempts, grants and events go on far beyond those of the backup, and what ran at its \
time is taken back from the agents, which stop it when they link: it is tried again or fails, as each \
task says. With --as-is all of that stays as it is: only for a backup that was made after the server had \
stopped for the last time, for example in order to move to another machine.

Example:
  schedulemesh restore /backups/mesh-2026-11-23 --state-dir /var/lib/schedulemesh")]
pub struct RestoreArgs {
    /// A directory that `schedulemesh backup` has made
    #[arg(value_name = "BACKUP")]
    pub source: PathBuf,
    /// Nothing happened after the backup: leave with the agents what runs there
    #[arg(long)]
    pub as_is: bool,
}
