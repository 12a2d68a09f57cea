//! The directory in which a server keeps everything: who may use it, its tokens, and who runs it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use mesh_api::problem::Problem;
use serde::{Deserialize, Serialize};

use crate::auth::Tokens;
use crate::clock::Mark;

/// The file that holds the token of whoever administers the server.
pub const ADMIN_TOKEN_FILE: &str = "admin.token";

/// The file that says where the running server is.
const SERVER_FILE: &str = "server.json";

/// The file that the running server holds a lock on, so that there is never a second one.
const LOCK_FILE: &str = "server.lock";

/// The file by which the next server can tell how much time has passed, though clocks were set.
const CLOCK_FILE: &str = "clock.json";

/// The file from which the tokens of agents are derived.
const SECRET_FILE: &str = "secret";

/// The failpoints of a file that is written whole.
type Points = [&'static str; 3];
const TOKEN_POINTS: Points =
    ["state.token.before_sync", "state.token.before_rename", "state.token.after_rename"];
const SECRET_POINTS: Points =
    ["state.secret.before_sync", "state.secret.before_rename", "state.secret.after_rename"];
const ANNOUNCE_POINTS: Points =
    ["state.announce.before_sync", "state.announce.before_rename", "state.announce.after_rename"];

/// What the running server says about itself, in `DIR/server.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerInfo {
    /// Where it listens.
    pub url: String,
    /// Its process.
    pub pid: u32,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// Whether it lives in somebody's program, and ends with that.
    #[serde(default)]
    pub embedded: bool,
}

impl ServerInfo {
    /// The server that runs on this directory now; `None` when none does, whatever a file of one
    /// that was killed may say.
    pub fn of_running(dir: &Path) -> Option<Self> {
        let text = fs::read(dir.join(SERVER_FILE)).ok()?;
        let info: Self = serde_json::from_slice(&text).ok()?;
        is_alive(info.pid).then_some(info)
    }
}

/// The token of whoever administers the server of this directory; `None` when there is no such
/// file, or it can't be read.
pub fn admin_token(dir: &Path) -> Option<String> {
    let text = fs::read_to_string(dir.join(ADMIN_TOKEN_FILE)).ok()?;
    Some(text.trim().to_owned()).filter(|token| !token.is_empty())
}

/// What the server before left for telling the time; nothing when it left nothing that can be read.
pub(crate) fn clock_mark(dir: &Path) -> Option<Mark> {
    serde_json::from_slice(&fs::read(dir.join(CLOCK_FILE)).ok()?).ok()
}

/// Leaves for the next server what it needs to tell the time. Without it, it goes by the wall clock.
pub(crate) fn keep_clock_mark(dir: &Path, mark: Option<&Mark>) {
    let path = dir.join(CLOCK_FILE);
    let kept = match mark.map(serde_json::to_vec) {
        Some(Ok(text)) => fs::write(&path, text),
        Some(Err(_)) | None => fs::remove_file(&path),
    };
    if let Err(error) = kept.or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }) {
        tracing::warn!(%error, path = %path.display(), "the time was not noted for the next start");
    }
}

/// A state directory that this process owns until the value is dropped.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    tokens: Tokens,
    announced: bool,
    _lock: File,
}

impl StateDir {
    /// Takes a directory into use: creates it when needed, locks it, and makes its tokens at the
    /// first start.
    pub fn open(path: &Path) -> Result<Self, Problem> {
        let failed = |what: &str, error: &io::Error| unusable(path, what, error);
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(path).map_err(|error| failed("can't be created", &error))?;
        let path = path.canonicalize().map_err(|error| failed("can't be found", &error))?;
        let lock = lock(&path)?;
        let admin = secret_line(&path.join(ADMIN_TOKEN_FILE), "smt_", TOKEN_POINTS);
        let admin = admin.map_err(|error| failed("can't hold a token", &error))?;
        let secret = secret_line(&path.join(SECRET_FILE), "", SECRET_POINTS);
        let secret = secret.map_err(|error| failed("can't hold a secret", &error))?;
        Ok(Self { tokens: Tokens::new(&admin, &secret), path, announced: false, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tokens that it knows.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The journal's file.
    pub fn database(&self) -> PathBuf {
        self.path.join("mesh.db")
    }

    /// The folder of blobs.
    pub fn blobs(&self) -> PathBuf {
        self.path.join("blobs")
    }

    /// Says where the server is, to command lines and programs on this machine. Call it once the
    /// server listens.
    pub fn announce(&mut self, url: &str, embedded: bool) -> io::Result<()> {
        let info = ServerInfo {
            url: url.to_owned(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            embedded,
        };
        let text = serde_json::to_vec(&info).map_err(io::Error::other)?;
        write_whole(&self.path.join(SERVER_FILE), &text, ANNOUNCE_POINTS)?;
        self.announced = true;
        Ok(())
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        if self.announced {
            // A file that stays behind does no harm: its process is found to be gone.
            drop(fs::remove_file(self.path.join(SERVER_FILE)));
        }
    }
}

fn lock(path: &Path) -> Result<File, Problem> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path.join(LOCK_FILE))
        .map_err(|error| unusable(path, "can't be written", &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::Error(error)) => Err(unusable(path, "can't be locked", &error)),
        Err(TryLockError::WouldBlock) => Err(in_use(path)),
    }
}

fn in_use(path: &Path) -> Problem {
    let who = ServerInfo::of_running(path).map_or_else(
        || "another process".into(),
        |info| format!("{} (pid {})", info.url, info.pid),
    );
    Problem::new(
        "STATE_DIR_IN_USE",
        format!("the state directory {} is in use by {who}", path.display()),
        "use that server, stop it first, or choose another directory with --state-dir",
    )
}

fn unusable(path: &Path, what: &str, error: &io::Error) -> Problem {
    Problem::new(
        "STATE_DIR_UNUSABLE",
        format!("the state directory {} {what}: {error}", path.display()),
        "choose a directory of your own with --state-dir or SCHEDULEMESH_STATE_DIR",
    )
}

/// Reads the one line of a file, or makes it up at random and keeps it.
fn secret_line(path: &Path, prefix: &str, points: Points) -> io::Result<String> {
    match fs::read_to_string(path) {
        Ok(text) if text.trim().len() >= 64 => return Ok(text.trim().to_owned()),
        Ok(_short) => {
            let what = format!("{} holds no token; remove it to make a new one", path.display());
            return Err(io::Error::other(what));
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_not_found) => {}
    }
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let hex = blake3::Hash::from_bytes(random).to_hex();
    let line = format!("{prefix}{hex}");
    write_whole(path, format!("{line}\n").as_bytes(), points)?;
    Ok(line)
}

/// Writes a file that only its owner may read, whole or not at all, and durably.
fn write_whole(path: &Path, bytes: &[u8], points: Points) -> io::Result<()> {
    let [before_sync, before_rename, after_rename] = points;
    let aside = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&aside)?;
    file.write_all(bytes)?;
    mesh_fail::pass(before_sync);
    file.sync_all()?;
    mesh_fail::pass(before_rename);
    fs::rename(&aside, path)?;
    mesh_fail::pass(after_rename);
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[expect(unsafe_code, reason = "asking whether a process exists has no safe call in std")]
fn is_alive(pid: u32) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return false };
    if pid <= 0 {
        return false;
    }
    // SAFETY: signal 0 sends nothing; it only asks.
    let answer = unsafe { libc::kill(pid, 0) };
    answer == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_first_start_makes_tokens_and_later_ones_keep_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/state");
        let first = StateDir::open(&path).unwrap();
        let token = admin_token(&path).unwrap();
        assert!(token.starts_with("smt_") && token.len() == 68, "{token}");
        assert_eq!(mode(&path), 0o700);
        for file in [ADMIN_TOKEN_FILE, SECRET_FILE, LOCK_FILE] {
            assert_eq!(mode(&path.join(file)), 0o600, "{file}");
        }
        let agent = first.tokens().agent(&"a".parse().unwrap());
        drop(first);
        let second = StateDir::open(&path).unwrap();
        assert_eq!(admin_token(&path).unwrap(), token);
        assert_eq!(second.tokens().agent(&"a".parse().unwrap()), agent);
    }

    #[test]
    fn a_directory_has_one_server_at_a_time_and_the_second_is_told_where_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = StateDir::open(dir.path()).unwrap();
        assert_eq!(ServerInfo::of_running(dir.path()), None);
        first.announce("http://127.0.0.1:7420", false).unwrap();
        let problem = StateDir::open(dir.path()).unwrap_err();
        assert_eq!(problem.code, "STATE_DIR_IN_USE");
        let who = format!("in use by http://127.0.0.1:7420 (pid {})", std::process::id());
        assert!(problem.message.ends_with(&who), "{}", problem.message);
        drop(first);
        assert_eq!(ServerInfo::of_running(dir.path()), None);
        StateDir::open(dir.path()).unwrap();
    }

    #[test]
    fn a_server_inside_a_program_says_so_and_a_file_that_does_not_say_means_no() {
        let dir = tempfile::tempdir().unwrap();
        let mut owner = StateDir::open(dir.path()).unwrap();
        owner.announce("http://127.0.0.1:7420", true).unwrap();
        assert!(ServerInfo::of_running(dir.path()).unwrap().embedded);
        let text =
            format!(r#"{{"url":"http://a","pid":{},"version":"0.1.0"}}"#, std::process::id());
        fs::write(dir.path().join(SERVER_FILE), text).unwrap();
        assert!(!ServerInfo::of_running(dir.path()).unwrap().embedded);
    }

    #[test]
    fn a_file_of_a_killed_server_is_no_server() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"url":"http://127.0.0.1:1","pid":4194305,"version":"0.1.0"}"#;
        fs::write(dir.path().join(SERVER_FILE), text).unwrap();
        assert_eq!(ServerInfo::of_running(dir.path()), None);
    }

    #[test]
    fn a_file_is_no_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let problem = StateDir::open(file.path()).unwrap_err();
        assert_eq!(problem.code, "STATE_DIR_UNUSABLE");
    }

    #[test]
    fn an_emptied_token_file_is_no_token() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(ADMIN_TOKEN_FILE), "\n").unwrap();
        let problem = StateDir::open(dir.path()).unwrap_err();
        assert!(problem.message.contains("holds no token"), "{}", problem.message);
    }
}
