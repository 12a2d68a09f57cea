//! Room that is taken while there is plenty, and given up when the disk is full: what must get
//! through then, gets through.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::space::Space;

/// The name of the file in its directory.
pub const RESERVE_FILE: &str = "reserve";
/// How much room is kept: thousands of cancellations and ends of tasks.
pub const RESERVE_BYTES: u64 = 32 << 20;
/// The part of a small disk that is kept instead.
const PART_OF_DISK: u64 = 8;

/// A file that takes room and holds nothing.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    /// The reserve of a directory, whether it is there or not.
    pub(crate) fn of(dir: &Path) -> Self {
        Self { path: dir.join(RESERVE_FILE) }
    }

    /// Takes the room, unless the disk would be nearly full then. Whether it is taken now.
    pub(crate) fn hold(&self) -> io::Result<bool> {
        let disk = Space::of(self.path.parent().unwrap_or(&self.path))?;
        let bytes = RESERVE_BYTES.min(disk.total / PART_OF_DISK);
        if self.holds(bytes) {
            return Ok(true);
        }
        if disk.free < bytes.saturating_mul(2) {
            return Ok(false);
        }
        mesh_fail::pass("store.reserve.before_hold");
        let taken = private(&self.path).and_then(|file| take_room(&file, bytes));
        if taken.is_err() {
            self.release();
        }
        match taken {
            Err(error) if error.kind() == ErrorKind::StorageFull => Ok(false),
            taken => {
                mesh_fail::pass("store.reserve.after_hold");
                taken.map(|()| self.holds(bytes))
            }
        }
    }

    fn holds(&self, bytes: u64) -> bool {
        // Blocks count, not length: a file may be long and take no room.
        fs::metadata(&self.path).is_ok_and(|file| file.blocks().saturating_mul(512) >= bytes)
    }

    /// Gives the room up. Whether there was any.
    pub(crate) fn release(&self) -> bool {
        let had_room = fs::metadata(&self.path).is_ok_and(|file| file.blocks() > 0);
        mesh_fail::pass("store.reserve.before_release");
        match fs::remove_file(&self.path) {
            Ok(()) => {
                mesh_fail::pass("store.reserve.after_release");
                had_room
            }
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "reserve not given up");
                false
            }
        }
    }
}

fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "taking room without writing has no safe call in std")]
fn take_room(file: &File, bytes: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    // SAFETY: the descriptor is open as long as the file is borrowed.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, bytes) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

#[cfg(not(target_os = "linux"))]
fn take_room(mut file: &File, bytes: u64) -> io::Result<()> {
    let block = vec![0x5a; 1 << 20];
    for _block in 0..bytes >> 20 {
        io::Write::write_all(&mut file, &block)?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_given_up_and_taken_again() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::of(dir.path());
        assert!(!reserve.holds(1) && !reserve.release());
        for _again in 0..2 {
            assert!(reserve.hold().unwrap() && reserve.hold().unwrap());
            assert!(reserve.holds(1 << 20));
            assert!(reserve.release());
            assert!(!reserve.holds(1));
        }
    }

    #[test]
    fn a_long_file_that_takes_no_room_is_no_reserve() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::of(dir.path());
        File::create(dir.path().join(RESERVE_FILE)).unwrap().set_len(RESERVE_BYTES).unwrap();
        assert!(!reserve.holds(1));
        assert!(reserve.hold().unwrap() && reserve.holds(1 << 20));
    }
}
