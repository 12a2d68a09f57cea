//! A whole server: the state directory, the driver, the doors, and what keeps running beside them.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use mesh_api::problem::Problem;
use mesh_core::Limits;
use mesh_core::model::task::BlobId;
use mesh_core::model::time::Span;
use mesh_store::{SnapshotWriter, SqliteStore, Store as _};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::accept::{Bound, Bounds, serve};
use crate::blobs::Blobs;
use crate::config::Config;
use crate::driver::ask::Ask;
use crate::driver::{Settings, StartError, start};
use crate::fold::fold_journal;
use crate::handle::Handle;
use crate::http::{App, router};
use crate::packages;
use crate::state_dir::StateDir;

/// How often blobs that nothing refers to are looked for.
const COLLECT_EVERY: Duration =
    mesh_fail::sooner(Duration::from_mins(10), Duration::from_millis(500));

/// How long after the start they are first looked for.
const COLLECT_AFTER: Duration =
    mesh_fail::sooner(Duration::from_hours(1), Duration::from_millis(200));

/// How a server is started.
#[derive(Debug)]
pub struct Server;

/// A server that runs. Dropped without a shutdown, it stops without a snapshot; nothing that was
/// accepted is lost.
#[derive(Debug)]
pub struct RunningServer {
    url: String,
    app: App,
    admin_token: String,
    tasks: JoinSet<()>,
    driver: Option<JoinHandle<()>>,
    state_dir: StateDir,
}

impl Server {
    /// Starts a server, which listens when this returns. Must be called inside a Tokio runtime with
    /// its timers and I/O on, in which the server then runs.
    pub async fn start(config: Config) -> Result<RunningServer, Problem> {
        let clusters = config.clusters_file.as_deref().map(crate::config::clusters);
        let clusters = clusters.transpose()?.unwrap_or_default();
        let mut state_dir = StateDir::open(&config.state_dir)?;
        let bound = Bound::open(&config).await?;
        let settings = settings(&config);
        let dir = state_dir.path().to_path_buf();
        let folding = dir.clone();
        let opened = tokio::task::spawn_blocking(move || open(&dir, settings)).await;
        let opened = opened.map_err(|error| not_started(state_dir.path(), &error.to_string()))?;
        let (handle, driver, snapshots) =
            opened.map_err(|error| not_started(state_dir.path(), &error.to_string()))?;
        let url = bound.url.clone();
        let app = App::new(handle, state_dir.tokens().clone(), Arc::new(config), &url);
        for body in clusters {
            let (name, spec) = app.read_cluster(body)?;
            app.put_cluster(&name, spec).await?;
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(bound, router(app.clone()), Bounds::default(), app.closing.clone()));
        tasks.spawn(crate::agents::dial_listening_agents(app.handle.clone()));
        tasks.spawn(crate::bootstrap::run(app.clone()));
        tasks.spawn(collect_blobs(app.handle.clone()));
        tasks.spawn(crate::disk::watch(app.handle.clone(), folding.clone()));
        tasks.spawn(fold_journal(app.handle.clone(), folding, settings.limits, snapshots));
        let path = state_dir.path().to_path_buf();
        let embedded = app.config.embedded;
        state_dir
            .announce(&url, embedded)
            .map_err(|error| not_started(&path, &error.to_string()))?;
        let admin_token = crate::state_dir::admin_token(&path)
            .ok_or_else(|| not_started(&path, "its admin token can't be read"))?;
        tracing::info!(url, state_dir = %path.display(), "server started");
        let driver = Some(driver);
        Ok(RunningServer { url, app, admin_token, tasks, driver, state_dir })
    }
}

impl RunningServer {
    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The door to its driver.
    pub fn handle(&self) -> &Handle {
        &self.app.handle
    }

    /// The token that opens everything.
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// Where it keeps everything.
    pub fn state_dir(&self) -> &Path {
        self.state_dir.path()
    }

    /// Waits until it ends by itself, which it does only when something it needs is gone.
    pub async fn wait(&mut self) {
        self.tasks.join_next().await;
    }

    /// Stops as a kill does: no open request is waited for, no snapshot is written. What was accepted
    /// is kept all the same.
    pub async fn kill(mut self) {
        self.app.closing.cancel();
        self.tasks.shutdown().await;
        self.app.handle.clone().kill().await;
        self.join().await;
    }

    /// Stops listening, lets open requests end, makes everything durable, and writes a snapshot.
    pub async fn shutdown(mut self) {
        self.app.closing.cancel();
        self.app.handle.clone().shutdown().await;
        self.join().await;
        while self.tasks.join_next().await.is_some() {}
        tracing::info!(url = self.url, "server stopped");
    }

    async fn join(&mut self) {
        let Some(driver) = self.driver.take() else { return };
        // The thread has said that it is done; joining it takes no time.
        let joined = tokio::task::spawn_blocking(move || driver.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("driver panicked");
        }
    }
}

fn settings(config: &Config) -> Settings {
    let usual = Limits::default();
    let retention = u64::try_from(config.retention.as_micros()).unwrap_or(u64::MAX);
    let limits = Limits {
        queue_max: config.queue_max,
        retention: Span::from_micros(retention),
        ended_max: config.ended_max,
        ..usual
    };
    Settings { limits, heartbeat: config.heartbeat }
}

/// What a server consists of, beside its doors.
type Opened = (Handle, JoinHandle<()>, Box<dyn SnapshotWriter>);

fn open(dir: &Path, settings: Settings) -> Result<Opened, StartError> {
    let store = SqliteStore::open(dir)?;
    let snapshots = store.snapshots();
    let (handle, driver) = start(dir, Box::new(store), settings)?;
    Ok((handle, driver, snapshots))
}

fn not_started(dir: &Path, why: &str) -> Problem {
    Problem::new(
        "STORE_FAILED",
        format!("the server can't start on {}: {why}", dir.display()),
        "mend what is said, or choose another directory with --state-dir",
    )
}

/// Deletes blobs that nothing refers to, now and then, until the driver ends. Not at once: agents may
/// still have to report what they had uploaded before the server was away.
async fn collect_blobs(handle: Handle) {
    let mut wait = COLLECT_AFTER;
    loop {
        tokio::select! {
            () = sleep(wait) => {}
            () = handle.shared.asks.closed() => return,
        }
        match used_blobs(&handle).await {
            Ok(used) => collect(handle.blobs().clone(), used).await,
            // The store is in trouble; then nothing is known to be unused.
            Err(problem) => tracing::debug!(%problem, "unused blobs not looked for"),
        }
        wait = COLLECT_EVERY;
    }
}

/// What the books refer to, and what runtime environments do.
async fn used_blobs(handle: &Handle) -> Result<HashSet<BlobId>, Problem> {
    let mut used = handle.ask(0, |reply| Ask::UsedBlobs { reply }).await?;
    used.extend(handle.read(|mesh, _now| packages::used(mesh)).await?);
    Ok(used)
}

async fn collect(blobs: Blobs, used: HashSet<BlobId>) {
    match tokio::task::spawn_blocking(move || blobs.collect(&used)).await {
        Ok(Ok(0)) => {}
        Ok(Ok(collected)) => tracing::info!(collected, "unused blobs deleted"),
        Ok(Err(error)) => tracing::warn!(%error, "unused blobs not deleted"),
        Err(error) => tracing::error!(%error, "blob collector panicked"),
    }
}
