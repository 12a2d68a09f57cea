//! How much room a disk has.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The room of the disk that a path is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that this user may still write.
    pub free: u64,
    /// Bytes in all, without those that only the administrator may use.
    pub total: u64,
}

impl Space {
    /// Asks the system.
    #[expect(unsafe_code, reason = "asking for the room on a disk has no safe call in std")]
    pub fn of(path: &Path) -> io::Result<Self> {
        let name = CString::new(path.as_os_str().as_bytes())?;
        let mut told = MaybeUninit::<libc::statvfs>::zeroed();
        // SAFETY: the name ends with a zero, and the system fills what it is given.
        let answer = unsafe { libc::statvfs(name.as_ptr(), told.as_mut_ptr()) };
        if answer != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: all zeros are a valid value, and the system has filled it.
        let told = unsafe { told.assume_init() };
        let (free, all_free, all) = (told.f_bavail, told.f_bfree, told.f_blocks);
        let usable = all.saturating_sub(all_free.saturating_sub(free));
        let bytes = |blocks: u64| blocks.saturating_mul(told.f_frsize);
        Ok(Self { free: bytes(free), total: bytes(usable) })
    }

    /// The part that is free, from 0 to 1.
    #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "a ratio for people")]
    pub fn free_ratio(&self) -> f64 {
        if self.total == 0 { 0.0 } else { self.free as f64 / self.total as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_no_more_free_than_it_has() {
        let space = Space::of(Path::new("/")).unwrap();
        assert!(space.total > 0 && space.free <= space.total, "{space:?}");
        assert!((0.0..=1.0).contains(&space.free_ratio()));
        assert!(Space::of(Path::new("/no/such/place")).is_err());
    }
}
