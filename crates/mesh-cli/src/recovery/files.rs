//! Copying and moving files so that they are there whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use mesh_api::problem::Problem;

use super::refused;

/// A directory that gets its name when it is complete; before, it is cleared away when dropped, and
/// its name tells that it is not complete.
#[derive(Debug)]
pub(super) struct Draft {
    path: PathBuf,
    target: PathBuf,
    finished: bool,
}

impl Draft {
    /// Begins beside `target`, which must not be there, or be empty.
    pub(super) fn begin(target: &Path) -> Result<Self, Problem> {
        refuse_full(target)?;
        let target =
            std::path::absolute(target).map_err(|error| refused("find", target, &error))?;
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(".unfinished");
        let path = target.with_file_name(name);
        clear(&path).map_err(|error| refused("clear away", &path, &error))?;
        private_dir(&path).map_err(|error| refused("create", &path, &error))?;
        Ok(Self { path, target, finished: false })
    }

    /// Where it is until it is complete.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its name, durably.
    pub(super) fn finish(mut self) -> Result<(), Problem> {
        let failed = |error: io::Error| refused("finish", &self.target, &error);
        sync_dir(&self.path).map_err(failed)?;
        refuse_full(&self.target)?;
        fs::rename(&self.path, &self.target).map_err(failed)?;
        self.finished = true;
        self.target.parent().map_or(Ok(()), sync_dir).map_err(failed)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.finished {
            // What stays behind has a name that says what it is, and goes at the next try.
            drop(clear(&self.path));
        }
    }
}

/// Refuses a target in which there is something already.
fn refuse_full(target: &Path) -> Result<(), Problem> {
    let mut entries = match fs::read_dir(target) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused("look into", target, &error)),
    };
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(Problem::new(
            "NOT_EMPTY",
            format!("{} is there already, and not empty", target.display()),
            "name a directory that is not there yet, or move this one away",
        )),
    }
}

fn clear(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// A directory that only its owner may look into.
pub(super) fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file that only its owner may read, durably.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Copies a file to one that only its owner may read, durably. `false` when there is none.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<bool> {
    match fs::copy(from, to) {
        Ok(_bytes) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    let file = OpenOptions::new().write(true).open(to)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.sync_all()?;
    Ok(true)
}

/// Makes names in a directory durable.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
