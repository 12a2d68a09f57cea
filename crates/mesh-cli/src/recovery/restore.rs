//! Putting a backup in the place of a state directory.

use std::path::Path;

use mesh_api::problem::Problem;
use mesh_store::{Seq, SqliteStore};
use serde::Serialize;

use super::backup::{MANIFEST, Manifest, copy_blobs, copy_small_files, refuse_damage};
use super::doctor::{Finding, Severity, look, unreadable};
use super::files::{self, Draft};
use super::{blobs, jump, refused};

/// What was done.
#[derive(Clone, Debug, Serialize)]
pub struct Restored {
    /// The state directory.
    pub state_dir: String,
    /// The backup that it was made from.
    pub backup: Manifest,
    /// The number of the last event.
    pub last: Seq,
    /// Whether what ran is left with the agents, under the numbers that they know.
    pub as_is: bool,
    /// What was lost before the backup was made.
    pub losses: Vec<Finding>,
}

/// Makes a state directory from a backup. Unless the backup is said to be the last state that there
/// was (`as_is`), what ran is taken back from the agents, and every number goes on far beyond what may
/// have been given out since.
pub fn restore(source: &Path, dir: &Path, as_is: bool) -> Result<Restored, Problem> {
    let backup = read_manifest(source)?;
    let (report, mesh) = look(source)?;
    refuse_damage(&report)?;
    let draft = Draft::begin(dir)?;
    let path = draft.path();
    let (from, to) = (source.join("mesh.db"), path.join("mesh.db"));
    files::copy(&from, &to).map_err(|error| refused("copy", &from, &error))?;
    copy_small_files(source, path)?;
    let used = mesh.as_ref().map(blobs::used).unwrap_or_default();
    copy_blobs(source, path, &used)?;
    let mut last = report.last;
    if let Some(mesh) = mesh.filter(|_| !as_is) {
        let (seq, snapshot) = jump::skip_ahead(mesh, last);
        let mut store = SqliteStore::open(path).map_err(|error| unreadable(&error))?;
        store.start_over(seq, &snapshot).map_err(|error| unreadable(&error))?;
        last = seq;
    }
    let (report, _mesh) = look(path)?;
    refuse_damage(&report)?;
    draft.finish()?;
    let losses = report.findings.into_iter().filter(|f| f.severity == Severity::Loss).collect();
    Ok(Restored { state_dir: dir.display().to_string(), backup, last, as_is, losses })
}

fn read_manifest(source: &Path) -> Result<Manifest, Problem> {
    let path = source.join(MANIFEST);
    let no_backup = |why: &dyn std::fmt::Display| {
        Problem::new(
            "NO_BACKUP",
            format!("{} is no complete backup: {why}", source.display()),
            "name a directory that `schedulemesh backup` has made",
        )
    };
    let text =
        std::fs::read(&path).map_err(|error| no_backup(&format!("{}: {error}", path.display())))?;
    serde_json::from_slice(&text).map_err(|error| no_backup(&error))
}
