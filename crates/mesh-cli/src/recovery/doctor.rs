//! What is in a state directory, and what is wrong with it, without changing anything.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use mesh_api::convert::blob_text;
use mesh_api::problem::Problem;
use mesh_core::model::task::{Data, Phase};
use mesh_core::{Limits, Mesh};
use mesh_server::state_dir::ServerInfo;
use mesh_store::{
    RESERVE_FILE, Seq, Side, Space, SqliteStore, StoreError, StoreReader, Survey, examine_log,
};
use serde::Serialize;

use super::{blobs, refused};

/// Most findings of one kind that are told one by one.
const FINDINGS_MAX: usize = 100;
/// Below this part of a disk its room is worth a word.
const LOW: f64 = 0.10;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing, and no harm.
    Note,
    /// Some bytes are gone or changed: the tasks that need them fail, all else goes on.
    Loss,
    /// No server starts on this.
    Damage,
}

/// One thing that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is, with file and place.
    pub what: String,
    /// What one can do.
    pub fix: String,
}

/// What is in a state directory.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The directory.
    pub state_dir: String,
    /// The server that runs on it.
    pub served_by: Option<String>,
    /// The format of its file.
    pub format: Option<u32>,
    /// The oldest event in the journal.
    pub oldest: Seq,
    /// The last event.
    pub last: Seq,
    /// The last event that the snapshot includes.
    pub snapshot: Option<Seq>,
    /// Tasks of which there is a record.
    pub tasks: usize,
    /// Tasks that have not ended.
    pub open_tasks: usize,
    /// Pieces of arguments and results in the journal's file.
    pub data: usize,
    /// Pieces of code.
    pub code: usize,
    /// Blobs that something refers to.
    pub blobs: usize,
    /// Bytes that are free on its disk.
    pub disk_free: u64,
    /// What was found.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The worst of the findings.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    /// Takes note of something.
    pub(super) fn find(&mut self, severity: Severity, what: impl Into<String>, fix: &str) {
        self.findings.push(Finding { severity, what: what.into(), fix: fix.into() });
    }

    fn damaged(&mut self, damage: &StoreError) {
        let text = damage.to_string();
        let what = text.split_once("; `schedulemesh").map_or(text.as_str(), |(what, _)| what);
        self.find(
            Severity::Damage,
            what,
            "restore a backup: `schedulemesh restore BACKUP --state-dir NEW`",
        );
    }
}

/// Looks at everything in a state directory. The state that it holds comes along, when it can be
/// read.
pub fn examine(dir: &Path) -> Result<Report, Problem> {
    look(dir).map(|(report, _state)| report)
}

/// What [`examine`] finds, and the state.
pub(super) fn look(dir: &Path) -> Result<(Report, Option<Mesh>), Problem> {
    if !dir.is_dir() {
        return Err(Problem::new(
            "STATE_DIR_UNUSABLE",
            format!("{} is no directory", dir.display()),
            "say which state directory is meant with --state-dir",
        ));
    }
    let mut report = Report {
        state_dir: dir.display().to_string(),
        served_by: holder(dir)?,
        ..Report::default()
    };
    look_at_disk(dir, &mut report)?;
    look_at_secrets(dir, &mut report)?;
    if report.served_by.is_none() && !look_at_log(dir, &mut report)? {
        return Ok((report, None));
    }
    let mesh = match SqliteStore::open_read_only(dir) {
        Ok(Some(reader)) => look_at_store(&reader, &mut report),
        Ok(None) => {
            report.find(
                Severity::Note,
                "there is no journal yet",
                "start the control plane, or say another --state-dir",
            );
            None
        }
        Err(error) => {
            note_unreadable(&mut report, &error);
            None
        }
    };
    if let Some(mesh) = &mesh {
        look_at_blobs(dir, mesh, &mut report)?;
    }
    Ok((report, mesh))
}

/// Who has the directory in use; `None` when nobody does.
pub(super) fn holder(dir: &Path) -> Result<Option<String>, Problem> {
    for name in ["server.lock", "mesh.lock"] {
        let path = dir.join(name);
        let lock = match File::open(&path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(refused("open", &path, &error)),
        };
        // Given back at once: a server that starts meanwhile asks again.
        match lock.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let server = ServerInfo::of_running(dir);
                let who = server.map(|info| format!("{} (pid {})", info.url, info.pid));
                return Ok(Some(who.unwrap_or_else(|| "another process".into())));
            }
            Err(TryLockError::Error(error)) => {
                return Err(refused("ask for the lock", &path, &error));
            }
        }
    }
    Ok(None)
}

fn look_at_disk(dir: &Path, report: &mut Report) -> Result<(), Problem> {
    let space = Space::of(dir).map_err(|error| refused("ask for the room of", dir, &error))?;
    report.disk_free = space.free;
    let percent = space.free_ratio() * 100.0;
    if space.free_ratio() < LOW {
        let what = format!("{percent:.1} % of its disk is free");
        report.find(Severity::Note, what, "free some space before nothing new is accepted");
    }
    if dir.join("mesh.db").exists() && !dir.join(RESERVE_FILE).exists() {
        report.find(
            Severity::Note,
            "no room is kept for a full disk",
            "free some space; the control plane takes it when there is plenty",
        );
    }
    Ok(())
}

fn look_at_secrets(dir: &Path, report: &mut Report) -> Result<(), Problem> {
    for name in ["admin.token", "secret", "mesh.db"] {
        let path = dir.join(name);
        match fs::metadata(&path) {
            Ok(file) if file.permissions().mode() & 0o077 != 0 => {
                let what = format!("{} can be read by others", path.display());
                report.find(Severity::Note, what, "`chmod 600` it");
            }
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(refused("look at", &path, &error));
            }
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

/// Whether the write-ahead log of a stopped server can be read.
fn look_at_log(dir: &Path, report: &mut Report) -> Result<bool, Problem> {
    match examine_log(dir) {
        Ok(end) => {
            if let Some(offset) = end.torn_at {
                let what = format!(
                    "{}/mesh.db-wal ends at byte {offset} in a commit that was never finished, and \
                     of which nobody was told",
                    dir.display()
                );
                report.find(Severity::Note, what, "nothing: the next start cuts it off");
            }
            Ok(true)
        }
        Err(damage @ StoreError::Corrupt { .. }) => {
            report.damaged(&damage);
            Ok(false)
        }
        Err(error) => Err(unreadable(&error)),
    }
}

fn note_unreadable(report: &mut Report, error: &StoreError) {
    match error {
        StoreError::Corrupt { .. } => report.damaged(error),
        error => report.find(Severity::Damage, error.to_string(), "see what it says"),
    }
}

/// What the store holds, and the state that it leads to.
fn look_at_store(reader: &StoreReader, report: &mut Report) -> Option<Mesh> {
    let looked = reader.at_one_moment(|reader| -> Result<_, StoreError> {
        let survey = reader.survey()?;
        Ok((survey, reader.format()?, replayed(reader)))
    });
    let (survey, format, mesh) = match looked.and_then(|looked| looked) {
        Ok(found) => found,
        Err(error) => {
            note_unreadable(report, &error);
            return None;
        }
    };
    report.format = Some(format);
    report.snapshot = survey.snapshot;
    (report.oldest, report.last) = (survey.oldest, survey.last.max(survey.snapshot.unwrap_or(0)));
    (report.data, report.code) = (survey.data.len(), survey.code.len());
    note_survey(report, &survey);
    let mesh = match mesh {
        Ok(mesh) => mesh,
        Err(StoreError::Corrupt { .. }) if report.worst() == Some(Severity::Damage) => {
            return None;
        }
        Err(error) => {
            note_unreadable(report, &error);
            return None;
        }
    };
    for what in mesh.check().err().unwrap_or_default().into_iter().take(FINDINGS_MAX) {
        let what = format!("the journal contradicts itself: {what}");
        report.find(Severity::Damage, what, "restore a backup, and report this: it is a bug");
    }
    note_missing_bytes(report, &mesh, &survey);
    (report.tasks, report.open_tasks) = (mesh.len(), open_tasks(&mesh));
    Some(mesh)
}

/// The state that the newest snapshot and what followed it lead to.
fn replayed(reader: &StoreReader) -> Result<Mesh, StoreError> {
    let (after, mut mesh) = match reader.load_snapshot()? {
        Some((seq, snapshot)) => (seq, Mesh::restore(snapshot, Limits::default())),
        None => (0, Mesh::new(Limits::default())),
    };
    reader.replay(after, &mut |entry| {
        entry.events.iter().for_each(|event| mesh.apply(entry.at, event));
        mesh.take_changes();
        true
    })?;
    Ok(mesh)
}

fn note_survey(report: &mut Report, survey: &Survey) {
    for damage in &survey.damage {
        let of_one_task = matches!(
            damage,
            StoreError::Corrupt {
                place: mesh_store::Place::Data(..) | mesh_store::Place::Code(..),
                ..
            }
        );
        if of_one_task {
            let text = damage.to_string();
            let what = text.split_once("; `schedulemesh").map_or(text.as_str(), |(what, _)| what);
            report.find(Severity::Loss, what, "submit the task again, or restore a backup");
        } else {
            report.damaged(damage);
        }
    }
    if survey.loose_parts > 0 {
        let what = format!("{} parts of a snapshot that was never finished", survey.loose_parts);
        report.find(Severity::Note, what, "nothing: the next start clears them away");
    }
}

/// Arguments, results and code that tasks refer to and that are not there.
fn note_missing_bytes(report: &mut Report, mesh: &Mesh, survey: &Survey) {
    let data: BTreeSet<_> = survey.data.iter().copied().collect();
    let code: BTreeSet<_> = survey.code.iter().copied().collect();
    let mut missing = Vec::new();
    for task in mesh.tasks_before(None) {
        let (kept, side, what) = match &task.phase {
            Phase::Ended(end) => (end.result, Side::Result, "result"),
            _ => (task.payload, Side::Payload, "arguments"),
        };
        if matches!(kept, Data::Inline(_)) && !data.contains(&(task.id, side)) {
            missing.push(format!("the {what} of {} are not there", task.id));
        }
        let spec = mesh.spec(task.spec).filter(|_| !matches!(task.phase, Phase::Ended(_)));
        if let Some(digest) = spec.and_then(|spec| spec.work.code())
            && !code.contains(&digest)
        {
            missing.push(format!("the code {digest} of {} is not there", task.id));
        }
        if missing.len() >= FINDINGS_MAX {
            break;
        }
    }
    for what in missing {
        report.find(Severity::Loss, what, "submit the task again, or restore a backup");
    }
}

fn open_tasks(mesh: &Mesh) -> usize {
    mesh.tasks_before(None).filter(|task| !matches!(task.phase, Phase::Ended(_))).count()
}

fn look_at_blobs(dir: &Path, mesh: &Mesh, report: &mut Report) -> Result<(), Problem> {
    let used = blobs::used(mesh);
    report.blobs = used.len();
    for (id, user) in &used {
        let path = blobs::file(dir, *id);
        let checked =
            blobs::check(dir, *id, user).map_err(|error| refused("read", &path, &error))?;
        let what = match checked {
            Ok(()) => continue,
            Err(blobs::Fault::Missing) => "is missing",
            Err(blobs::Fault::Changed) => "is not what was uploaded",
        };
        let (of, fix) = match user {
            blobs::Used::By(task, _) => (format!(" of {task}"), "submit the task again"),
            blobs::Used::Package => (String::new(), "upload the package again"),
        };
        let what = format!("{}{of} {what}", path.display());
        report.find(Severity::Loss, what, &format!("{fix}, or restore a backup"));
    }
    let present = blobs::present(dir).map_err(|error| refused("read", dir, &error))?;
    let orphans: Vec<_> = present.into_iter().filter(|id| !used.contains_key(id)).collect();
    if let Some(first) = orphans.first() {
        let (count, first) = (orphans.len(), blob_text(*first));
        let what = format!("{count} blobs that nothing refers to, such as {first}");
        report.find(Severity::Note, what, "nothing: the control plane deletes them after an hour");
    }
    Ok(())
}

/// What stands in the way of looking.
pub(super) fn unreadable(error: &StoreError) -> Problem {
    Problem::new(
        "STORE_FAILED",
        error.to_string(),
        "see what it says; `schedulemesh doctor` looks at everything",
    )
}
