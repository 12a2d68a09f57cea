//! Looking after a state directory while no server answers for it: what is in it, a copy of it, and
//! putting a copy in its place.

mod backup;
mod blobs;
mod doctor;
mod files;
mod jump;
mod restore;

pub use backup::{Backup, MANIFEST, Manifest, back_up};
pub use doctor::{Finding, Report, Severity, examine};
pub use restore::{Restored, restore};

use mesh_api::problem::Problem;

/// What the system refused while something was done with a file.
fn refused(doing: &str, path: &std::path::Path, error: &std::io::Error) -> Problem {
    Problem::new(
        "STATE_DIR_UNUSABLE",
        format!("cannot {doing} {}: {error}", path.display()),
        "mend what the system says, or name another directory",
    )
}
