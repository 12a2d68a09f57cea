//! The commands that are Python programs: the agent, and `up`.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use mesh_api::problem::Problem;

use super::Session;
use crate::args::{AgentArgs, UpArgs};
use crate::exit::Exit;

pub(super) fn agent(session: &Session, args: &AgentArgs) -> Result<Exit, Problem> {
    become_python(session, "schedulemesh.agent", &args.args)
}

pub(super) fn up(session: &Session, args: &UpArgs) -> Result<Exit, Problem> {
    become_python(session, "schedulemesh.up", &args.args)
}

/// Becomes the Python program, so that signals and the exit code are its own. Comes back only when
/// that failed.
fn become_python(session: &Session, module: &str, args: &[String]) -> Result<Exit, Problem> {
    let python = python();
    let mut command = Command::new(&python);
    command.args(["-m", module]).args(args);
    let global = &session.global;
    let settings = [
        ("SCHEDULEMESH_URL", global.url.clone().map(Into::into)),
        ("SCHEDULEMESH_TOKEN", global.token.clone().map(Into::into)),
        ("SCHEDULEMESH_STATE_DIR", global.state_dir.clone().map(PathBuf::into_os_string)),
    ];
    for (name, value) in settings {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    let error = command.exec();
    Err(Problem::new(
        "UNAVAILABLE",
        format!("{} cannot be started: {error}", python.display()),
        "install schedulemesh into a Python environment with pip, and use its `schedulemesh`",
    ))
}

/// The Python of the environment that this program is installed in, else the one on the path.
fn python() -> PathBuf {
    let mine = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("python3")));
    mine.filter(|python| python.exists()).unwrap_or_else(|| PathBuf::from("python3"))
}
