//! The server under test: a real process on a real directory.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use mesh_api::http_client::HttpClient;
use mesh_fail::{COUNTS_VARIABLE, ORDERS_VARIABLE};

/// How servers are started.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The binary, built with the feature `failpoints`.
    pub(crate) program: PathBuf,
    pub(crate) state_dir: PathBuf,
    /// The port, so that everybody finds the next one where the last one was.
    pub(crate) port: u16,
    /// Where passes of failpoints are counted.
    pub(crate) counts: PathBuf,
    /// Where its log goes.
    pub(crate) log: PathBuf,
    /// A fault that is planted in it.
    pub(crate) bug: Option<String>,
}

/// A server that was started. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    started: Instant,
    log: PathBuf,
    log_begins: u64,
}

impl Setup {
    /// Starts a server in which something may be ordered to happen.
    pub(crate) fn start(&self, orders: &str) -> std::io::Result<Server> {
        let mut log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let log_begins = log.seek(SeekFrom::End(0))?;
        let mut command = Command::new(&self.program);
        command
            .arg("serve")
            .args(["--heartbeat", "250ms", "--lost-after", "5s"])
            .args(["--log-level", "info"])
            .arg("--listen")
            .arg(format!("127.0.0.1:{}", self.port))
            .arg("--state-dir")
            .arg(&self.state_dir)
            .env(ORDERS_VARIABLE, orders)
            .env(COUNTS_VARIABLE, &self.counts)
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if let Some(bug) = &self.bug {
            command.env("SCHEDULEMESH_BUG", bug);
        }
        let child = command.spawn()?;
        Ok(Server { child, started: Instant::now(), log: self.log.clone(), log_begins })
    }
}

impl Server {
    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until it has ended, but no longer than `patience`.
    pub(crate) async fn wait_ended(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            if tokio::time::Instant::now() >= deadline {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until it answers; whether it does.
    pub(crate) async fn wait_up(&mut self, http: &HttpClient, patience: Duration) -> bool {
        while self.ended().is_none() && self.started.elapsed() < patience {
            let health = tokio::time::timeout(Duration::from_secs(1), http.health()).await;
            if matches!(health, Ok(Ok(_))) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        false
    }

    /// Waits until it takes work, and says how long that took since it was started; nothing when it
    /// ended before, or took longer than `patience`.
    pub(crate) async fn wait_ready(
        &mut self,
        http: &HttpClient,
        patience: Duration,
    ) -> Option<Duration> {
        while self.ended().is_none() && self.started.elapsed() < patience {
            let ready = tokio::time::timeout(Duration::from_secs(1), http.ready()).await;
            if matches!(&ready, Ok(Ok(view)) if view.ready) {
                return Some(self.started.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        None
    }

    /// `kill -9`, and its end.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Sends a signal.
    #[expect(unsafe_code, reason = "sending a signal has no safe call in std")]
    pub(crate) fn signal(&mut self, signal: libc::c_int) {
        if self.ended().is_some() {
            return; // its number may be somebody else's by now
        }
        let Ok(pid) = libc::pid_t::try_from(self.child.id()) else { return };
        // SAFETY: sending a signal touches no memory, and the process was not waited for yet.
        unsafe { libc::kill(pid, signal) };
    }

    /// What it wrote since it was started.
    pub(crate) fn said(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut log = File::open(&self.log)?;
            log.seek(SeekFrom::Start(self.log_begins))?;
            let mut bytes = Vec::new();
            log.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How often each failpoint was passed.
pub(crate) fn passes(counts: &Path) -> Vec<u64> {
    let bytes = std::fs::read(counts).unwrap_or_default();
    let (numbers, _rest) = bytes.as_chunks::<8>();
    let mut passes: Vec<_> = numbers.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    passes.resize(mesh_fail::POINTS.len(), 0);
    passes
}

/// A port that nobody uses at the moment.
pub(crate) fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
