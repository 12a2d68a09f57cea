//! The blobs of a state directory: which are referred to, and whether they are what they were.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use mesh_api::convert::{blob_id, blob_text};
use mesh_api::package;
use mesh_core::Mesh;
use mesh_core::model::id::TaskId;
use mesh_core::model::task::{BlobId, Data, Phase, Task};
use mesh_server::packages;

/// Where the blobs of a state directory are.
pub(super) fn folder(dir: &Path) -> PathBuf {
    dir.join("blobs")
}

/// The file of a blob.
pub(super) fn file(dir: &Path, id: BlobId) -> PathBuf {
    folder(dir).join(blob_text(id))
}

/// What refers to a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Used {
    /// A task, which also says how large it is: for its arguments until it ends, then its result.
    By(TaskId, u64),
    /// A runtime environment, as a package of somebody's files.
    Package,
}

/// The blobs that something refers to.
pub(super) fn used(mesh: &Mesh) -> BTreeMap<BlobId, Used> {
    let referred = |task: &Task| match &task.phase {
        Phase::Ended(end) => end.result,
        _ => task.payload,
    };
    let of_tasks = mesh.tasks_before(None).filter_map(|task| match referred(task) {
        Data::Blob(id, size) => Some((id, Used::By(task.id, size))),
        Data::None | Data::Inline(_) => None,
    });
    let packages: BTreeSet<_> = packages::used(mesh).into_iter().collect();
    packages.into_iter().map(|id| (id, Used::Package)).chain(of_tasks).collect()
}

/// What is wrong with a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// There is no such file.
    Missing,
    /// It has another size, or another content, than what was uploaded.
    Changed,
}

/// Whether a blob is what was uploaded: half of its id is a digest of its bytes, and all of it when
/// it is a package.
pub(super) fn check(dir: &Path, id: BlobId, used: &Used) -> io::Result<Result<(), Fault>> {
    let mut file = match File::open(file(dir, id)) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Err(Fault::Missing)),
        Err(error) => return Err(error),
    };
    let mut hasher = blake3::Hasher::new();
    let read = io::copy(&mut file, &mut hasher)?;
    let same = match used {
        Used::By(_, size) => {
            let mut digest = [0; 8];
            hasher.finalize_xof().fill(&mut digest);
            let expected = id.0 & u128::from(u64::MAX);
            read == *size && u128::from(u64::from_be_bytes(digest)) == expected
        }
        Used::Package => package::id_of(&hasher.finalize()) == id,
    };
    Ok(if same { Ok(()) } else { Err(Fault::Changed) })
}

/// The blobs that are there.
pub(super) fn present(dir: &Path) -> io::Result<Vec<BlobId>> {
    let entries = match std::fs::read_dir(folder(dir)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        found.extend(entry?.file_name().to_str().and_then(|name| blob_id(name).ok()));
    }
    Ok(found)
}
