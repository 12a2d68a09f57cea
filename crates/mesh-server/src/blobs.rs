//! Files for bytes that are too many to keep beside the journal. A blob is written once, under a
//! temporary name, and is there when it is durable. Its id is half chance, so that it can't be
//! guessed, and half digest, so that equal bytes can be told. A package is a blob whose id is all
//! digest, so that whoever has its bytes can name it.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use mesh_api::convert::blob_text;
use mesh_api::package;
use mesh_api::problem::Problem;
use mesh_core::model::task::BlobId;
use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

/// How long a blob that nothing refers to is kept: long enough to be submitted after its upload.
const UNUSED_FOR: Duration = mesh_fail::sooner(Duration::from_hours(1), Duration::from_secs(20));
/// Where blobs are written until they are complete.
const UNFINISHED: &str = "tmp";

/// The blobs of a state directory.
#[derive(Clone, Debug)]
pub struct Blobs {
    dir: PathBuf,
}

/// A blob that is being written. Dropped unfinished, it is gone.
#[derive(Debug)]
pub struct BlobWriter {
    dir: PathBuf,
    path: PathBuf,
    file: File,
    hasher: blake3::Hasher,
    size: u64,
    finished: bool,
}

/// A blob that is being read.
#[derive(Debug)]
pub struct BlobReader {
    file: File,
    size: u64,
}

impl Blobs {
    /// Opens the folder, and clears away what was never finished.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let dir = state_dir.join("blobs");
        let unfinished = dir.join(UNFINISHED);
        match std::fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => std::fs::create_dir_all(&unfinished)?,
        }
        Ok(Self { dir })
    }

    /// Begins a blob.
    pub async fn create(&self) -> Result<BlobWriter, Problem> {
        let name = format!("{:016x}", chance()?);
        let path = self.dir.join(UNFINISHED).join(name);
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path).await;
        let file = file.map_err(|error| failed("begin", &error))?;
        mesh_fail::pass("blob.create");
        let hasher = blake3::Hasher::new();
        Ok(BlobWriter { dir: self.dir.clone(), path, file, hasher, size: 0, finished: false })
    }

    /// Opens a blob at an offset.
    pub async fn read(&self, id: BlobId, offset: u64) -> Result<BlobReader, Problem> {
        let file = File::open(self.path(id)).await;
        let mut file = file.map_err(|error| missing(id, &error))?;
        let size = file.metadata().await.map_err(|error| failed("read", &error))?.len();
        if offset > 0 {
            let seek = file.seek(io::SeekFrom::Start(offset)).await;
            seek.map_err(|error| failed("read", &error))?;
        }
        Ok(BlobReader { file, size })
    }

    /// The size of a blob.
    pub async fn size(&self, id: BlobId) -> Result<u64, Problem> {
        let metadata = fs::metadata(self.path(id)).await;
        metadata.map(|metadata| metadata.len()).map_err(|error| missing(id, &error))
    }

    /// The size of a blob that is about to be referred to; it counts as fresh from now on, so that it
    /// is not collected before it is.
    #[expect(clippy::disallowed_methods, reason = "compared with the file system's own times")]
    pub(crate) async fn claim(&self, id: BlobId) -> Result<u64, Problem> {
        let file = fs::OpenOptions::new().write(true).open(self.path(id)).await;
        let file = file.map_err(|error| missing(id, &error))?.into_std().await;
        let size = file.metadata().map_err(|error| failed("read", &error))?.len();
        mesh_fail::pass("blob.claim");
        let touched = file.set_modified(std::time::SystemTime::now());
        touched.map(|()| size).map_err(|error| failed("claim", &error))
    }

    /// Deletes a blob; one that is gone already is fine.
    pub async fn delete(&self, id: BlobId) -> Result<(), Problem> {
        match fs::remove_file(self.path(id)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("delete", &error)),
            _ => Ok(()),
        }
    }

    /// Deletes what nothing refers to and what is older than an hour; how many.
    pub(crate) fn collect(&self, used: &HashSet<BlobId>) -> io::Result<usize> {
        let mut collected = 0;
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| mesh_api::convert::blob_id(name).ok());
            let Some(id) = id.filter(|id| !used.contains(id)) else { continue };
            let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
            if age > UNUSED_FOR {
                mesh_fail::pass("blob.collect.before_delete");
                std::fs::remove_file(self.path(id))?;
                mesh_fail::pass("blob.collect.after_delete");
                collected += 1;
            }
        }
        Ok(collected)
    }

    fn path(&self, id: BlobId) -> PathBuf {
        self.dir.join(blob_text(id))
    }
}

impl BlobWriter {
    /// Appends bytes.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        self.hasher.update(bytes);
        mesh_fail::fault("blob.write").map_err(|error| failed("write", &error))?;
        self.file.write_all(bytes).await.map_err(|error| failed("write", &error))?;
        self.size += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// How many bytes were written.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Makes the blob durable.
    pub async fn finish(self) -> Result<(BlobId, u64), Problem> {
        let id = new_id(&self.hasher)?;
        self.finish_as(id).await
    }

    /// Makes a package durable: a blob whose id is the digest of its bytes.
    pub async fn finish_package(self, said: BlobId) -> Result<(BlobId, u64), Problem> {
        let found = package::id_of(&self.hasher.finalize());
        if found != said {
            let (found, size) = (blob_text(found), self.size);
            let message = format!("the {size} bytes are package {found}, not {}", blob_text(said));
            return Err(Problem::new("INVALID", message, "send the bytes whole and unchanged"));
        }
        self.finish_as(said).await
    }

    async fn finish_as(mut self, id: BlobId) -> Result<(BlobId, u64), Problem> {
        let failed = |error: &io::Error| failed("finish", error);
        self.file.flush().await.map_err(|error| failed(&error))?;
        mesh_fail::fault("blob.before_sync").map_err(|error| failed(&error))?;
        self.file.sync_all().await.map_err(|error| failed(&error))?;
        mesh_fail::pass("blob.before_rename");
        let path = self.dir.join(blob_text(id));
        fs::rename(&self.path, path).await.map_err(|error| failed(&error))?;
        self.finished = true;
        mesh_fail::pass("blob.before_dir_sync");
        let dir = File::open(&self.dir).await.map_err(|error| failed(&error))?;
        dir.sync_all().await.map_err(|error| failed(&error))?;
        mesh_fail::pass("blob.after_dir_sync");
        Ok((id, self.size))
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::debug!(%error, path = %self.path.display(), "unfinished blob not removed");
        }
    }
}

impl BlobReader {
    /// The size of the whole blob.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The next bytes, at most `max`; empty at the end.
    pub async fn next(&mut self, max: usize) -> Result<Bytes, Problem> {
        let mut bytes = Vec::with_capacity(max);
        let limit = u64::try_from(max).unwrap_or(u64::MAX);
        let read = (&mut self.file).take(limit).read_to_end(&mut bytes).await;
        read.map_err(|error| failed("read", &error))?;
        Ok(bytes.into())
    }
}

fn new_id(hasher: &blake3::Hasher) -> Result<BlobId, Problem> {
    let mut digest = [0; 8];
    hasher.finalize_xof().fill(&mut digest);
    let (high, low) = (u128::from(chance()?), u128::from(u64::from_be_bytes(digest)));
    Ok(BlobId(high << 64 | low))
}

fn chance() -> Result<u64, Problem> {
    getrandom::u64().map_err(|error| {
        Problem::new("INTERNAL", format!("the system gives no random numbers: {error}"), "")
    })
}

fn missing(id: BlobId, error: &io::Error) -> Problem {
    if error.kind() == io::ErrorKind::NotFound {
        return Problem::new(
            "UNKNOWN_BLOB",
            format!("blob {} is not here", blob_text(id)),
            "upload it again; a blob that no task refers to is kept for an hour",
        );
    }
    failed("open", error)
}

fn failed(what: &str, error: &io::Error) -> Problem {
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return Problem::new(
            "STORE_FULL",
            format!("could not {what} a blob: {error}"),
            "free some space on the disk of the state directory",
        );
    }
    Problem::new(
        "STORE_FAILED",
        format!("could not {what} a blob: {error}"),
        "see the server's log and the health of its disk",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn written(blobs: &Blobs, bytes: &[u8]) -> BlobId {
        let mut writer = blobs.create().await.unwrap();
        for part in bytes.chunks(3) {
            writer.write(part).await.unwrap();
        }
        let (id, size) = writer.finish().await.unwrap();
        assert_eq!(size, u64::try_from(bytes.len()).unwrap());
        id
    }

    #[tokio::test]
    async fn a_blob_reads_back_from_any_offset() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let id = written(&blobs, b"hello world").await;
        let mut reader = blobs.read(id, 6).await.unwrap();
        assert_eq!((reader.size(), reader.next(3).await.unwrap().as_ref()), (11, &b"wor"[..]));
        assert_eq!(reader.next(100).await.unwrap().as_ref(), b"ld");
        assert!(reader.next(100).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn equal_bytes_share_half_of_their_ids() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let (BlobId(one), BlobId(two)) =
            (written(&blobs, b"same").await, written(&blobs, b"same").await);
        assert_ne!(one, two);
        assert_eq!(one & u128::from(u64::MAX), two & u128::from(u64::MAX));
    }

    #[tokio::test]
    async fn what_is_not_finished_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let mut writer = blobs.create().await.unwrap();
        writer.write(b"half").await.unwrap();
        drop(writer);
        let left = std::fs::read_dir(dir.path().join("blobs/tmp")).unwrap().count();
        assert_eq!(left, 0);
        let unknown = blobs.size(BlobId(7)).await.unwrap_err();
        assert_eq!(unknown.code, "UNKNOWN_BLOB");
    }

    #[tokio::test]
    async fn a_fresh_blob_is_not_collected_though_nothing_refers_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let id = written(&blobs, b"fresh").await;
        assert_eq!(blobs.collect(&HashSet::new()).unwrap(), 0);
        let old = std::time::SystemTime::UNIX_EPOCH;
        let file = std::fs::File::options().write(true).open(blobs.path(id)).unwrap();
        file.set_modified(old).unwrap();
        assert_eq!(blobs.collect(&HashSet::from([id])).unwrap(), 0, "it is in use");
        assert_eq!(blobs.collect(&HashSet::new()).unwrap(), 1);
    }
}
