//! Looking after a state directory. These commands read and write files, and ask no server.

use mesh_api::problem::Problem;

use super::Session;
use crate::args::{BackupArgs, RestoreArgs};
use crate::exit::Exit;
use crate::print::recovery as print;
use crate::recovery::{Severity, back_up, examine, restore as put_back};
use crate::{context, print as printer};

pub(super) fn doctor(session: &Session) -> Result<Exit, Problem> {
    let report = examine(&context::state_dir(&session.global))?;
    session.printer.data(&report, print::report)?;
    let is_whole = report.worst().is_none_or(|worst| worst == Severity::Note);
    Ok(if is_whole { Exit::Done } else { Exit::Failed })
}

pub(super) fn backup(session: &Session, args: &BackupArgs) -> Result<Exit, Problem> {
    let done = back_up(&context::state_dir(&session.global), &args.dest)?;
    session.printer.data(&done, print::backup)?;
    Ok(Exit::Done)
}

pub(super) fn restore(session: &Session, args: &RestoreArgs) -> Result<Exit, Problem> {
    // Never a directory that nobody named: it would be easy to restore in the wrong place.
    let Some(dir) = session.global.state_dir.as_deref() else {
        return Err(Problem::new(
            "INVALID",
            "it is not said where the backup should be restored",
            "name a directory that is not there yet with --state-dir",
        ));
    };
    let done = put_back(&args.source, dir, args.as_is)?;
    session.printer.data(&done, print::restored)?;
    printer::say(&format!("start it with `schedulemesh serve --state-dir {}`", dir.display()));
    Ok(Exit::Done)
}
