//! A copy of a state directory, of one moment, verified, and there whole or not at all.

use std::collections::BTreeMap;
use std::path::Path;

use mesh_api::problem::Problem;
use mesh_core::model::task::BlobId;
use mesh_store::{Seq, SqliteStore};
use serde::{Deserialize, Serialize};

use super::blobs::{self, Used};
use super::doctor::{Finding, Report, Severity, holder, look, unreadable};
use super::files::{self, Draft};
use super::refused;

/// The file that says that a copy is complete, and of what it is a copy.
pub const MANIFEST: &str = "backup.json";
/// What is copied beside the journal and the blobs: tokens and settings.
pub(super) const SMALL_FILES: [&str; 3] = ["admin.token", "secret", "config.toml"];
/// How often a copy is begun again because blobs went while it was made.
const TRIES_MAX: u32 = 3;

/// What a backup says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the program that made it.
    pub version: String,
    /// When it was made.
    pub made_at: String,
    /// Whether a server was running on the directory.
    pub served: bool,
    /// The last event in it.
    pub last: Seq,
    /// Tasks of which there is a record.
    pub tasks: usize,
    /// Blobs in it.
    pub blobs: usize,
}

/// What was done.
#[derive(Clone, Debug, Serialize)]
pub struct Backup {
    /// Where it is.
    pub path: String,
    /// What it says about itself.
    #[serde(flatten)]
    pub manifest: Manifest,
    /// What was lost before the copy was made.
    pub losses: Vec<Finding>,
}

/// Copies the state directory `dir`, which a server may be running on, to `dest`.
pub fn back_up(dir: &Path, dest: &Path) -> Result<Backup, Problem> {
    let served = holder(dir)?.is_some();
    let mut tries = 0;
    loop {
        tries += 1;
        let draft = Draft::begin(dest)?;
        let report = copy(dir, draft.path())?;
        let losses: Vec<_> =
            report.findings.iter().filter(|f| f.severity == Severity::Loss).cloned().collect();
        // A server deletes the blobs of tasks that it forgets: a new copy does not refer to them.
        if served && !losses.is_empty() && tries < TRIES_MAX {
            continue;
        }
        let manifest = Manifest {
            version: env!("CARGO_PKG_VERSION").into(),
            made_at: jiff::Timestamp::now().to_string(),
            served,
            last: report.last,
            tasks: report.tasks,
            blobs: report.blobs,
        };
        write_manifest(draft.path(), &manifest)?;
        draft.finish()?;
        return Ok(Backup { path: dest.display().to_string(), manifest, losses });
    }
}

/// Copies everything, and looks at the copy.
fn copy(dir: &Path, draft: &Path) -> Result<Report, Problem> {
    let reader = SqliteStore::open_read_only(dir).map_err(|error| unreadable(&error))?;
    let Some(reader) = reader else {
        return Err(Problem::new(
            "STATE_DIR_UNUSABLE",
            format!("there is no journal in {}", dir.display()),
            "say which state directory is meant with --state-dir",
        ));
    };
    refuse_torn(dir)?;
    reader.copy_to(draft).map_err(|error| unreadable(&error))?;
    drop(reader);
    copy_small_files(dir, draft)?;
    let (report, mesh) = look(draft)?;
    refuse_damage(&report)?;
    let Some(mesh) = mesh else { return Ok(report) };
    copy_blobs(dir, draft, &blobs::used(&mesh))?;
    let (report, _mesh) = look(draft)?;
    refuse_damage(&report)?;
    Ok(report)
}

/// Refuses a stopped directory whose log SQLite would read in part.
fn refuse_torn(dir: &Path) -> Result<(), Problem> {
    if holder(dir)?.is_some() {
        return Ok(());
    }
    mesh_store::examine_log(dir).map(drop).map_err(|error| unreadable(&error))
}

/// Refuses what no server would start on.
pub(super) fn refuse_damage(report: &Report) -> Result<(), Problem> {
    let damage = report.findings.iter().filter(|f| f.severity == Severity::Damage);
    let details: Vec<_> = damage.map(|finding| finding.what.clone()).collect();
    if details.is_empty() {
        return Ok(());
    }
    let mut problem = Problem::new(
        "STORE_DAMAGED",
        format!("{} is damaged", report.state_dir),
        "`schedulemesh doctor` tells the extent; go on from an earlier backup",
    );
    problem.details = details;
    Err(problem)
}

/// Copies tokens and settings.
pub(super) fn copy_small_files(from: &Path, to: &Path) -> Result<(), Problem> {
    for name in SMALL_FILES {
        let path = from.join(name);
        files::copy(&path, &to.join(name)).map_err(|error| refused("copy", &path, &error))?;
    }
    Ok(())
}

/// Copies blobs. One that is not there is told of when the copy is looked at.
pub(super) fn copy_blobs(
    from: &Path,
    to: &Path,
    used: &BTreeMap<BlobId, Used>,
) -> Result<(), Problem> {
    let folder = blobs::folder(to);
    files::private_dir(&folder).map_err(|error| refused("create", &folder, &error))?;
    for id in used.keys() {
        let path = blobs::file(from, *id);
        files::copy(&path, &blobs::file(to, *id))
            .map_err(|error| refused("copy", &path, &error))?;
    }
    files::sync_dir(&folder).map_err(|error| refused("sync", &folder, &error))
}

fn write_manifest(draft: &Path, manifest: &Manifest) -> Result<(), Problem> {
    let path = draft.join(MANIFEST);
    let text = serde_json::to_vec_pretty(manifest).map_err(|error| {
        Problem::new("INTERNAL", format!("{MANIFEST} cannot be written: {error}"), "")
    })?;
    files::write(&path, &text).map_err(|error| refused("write", &path, &error))
}
