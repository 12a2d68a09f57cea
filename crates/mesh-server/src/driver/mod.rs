//! The one thread that owns the state. It takes what waits, decides, makes everything durable in one
//! commit, and only then lets anybody know.

pub mod ask;
mod books;
mod dispatch;
mod engine;
mod recover;
mod turn;
mod watch;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use mesh_core::Limits;
use mesh_core::model::time::Span;
use mesh_store::{Store, StoreError};
use tokio::sync::{Semaphore, mpsc};

use self::ask::Queued;
pub(crate) use self::engine::EVENTS_KEPT;
pub use self::engine::Engine;
use crate::blobs::Blobs;
use crate::clock::Clock;
use crate::handle::{Handle, Shared, WAITING_ASKS_MAX, all_permits};
use crate::state_dir;

/// Most questions that one commit answers.
const TURN_MAX: usize = 4_096;
/// What a driver needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What the mesh may hold.
    pub limits: Limits,
    /// How often both sides of a link say something.
    pub heartbeat: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { limits: Limits::default(), heartbeat: Duration::from_secs(2) }
    }
}

/// Why a driver could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store could not be opened or read.
    #[error("the store can't be read: {0}")]
    Store(#[from] StoreError),
    /// The blobs could not be opened.
    #[error("the blobs can't be opened: {0}")]
    Blobs(io::Error),
    /// The thread could not be started.
    #[error("the driver can't be started: {0}")]
    Thread(io::Error),
    /// What was read contradicts itself.
    #[error("the journal contradicts itself: {}", .0.join("; "))]
    Contradiction(Vec<String>),
}

/// Starts a driver on a store, with everything as it was when the last one ended.
pub fn start(
    dir: &Path,
    store: Box<dyn Store>,
    settings: Settings,
) -> Result<(Handle, JoinHandle<()>), StartError> {
    let mut engine = Engine::open(store, settings)?;
    let blobs = Blobs::open(dir).map_err(StartError::Blobs)?;
    let (asks, waiting) = mpsc::channel(WAITING_ASKS_MAX);
    let mark = state_dir::clock_mark(dir);
    let (clock, skipped) = Clock::resume(engine.mesh().at(), mark.as_ref());
    if skipped > Span::ZERO {
        tracing::warn!(?skipped, "the wall clock was set forward: timers are put off by as much");
    }
    let clock = Arc::new(clock);
    let dir = dir.to_owned();
    let shared = Shared {
        asks,
        room: Arc::new(Semaphore::new(all_permits())),
        tail: Arc::clone(engine.tail()),
        blobs,
        agents: Arc::clone(engine.links()),
        clock: Arc::clone(&clock),
        metrics: Arc::clone(engine.metrics()),
        heartbeat: settings.heartbeat,
    };
    let timers = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let timers = timers.map_err(StartError::Thread)?;
    let thread = std::thread::Builder::new().name("driver".into());
    let thread = thread
        .spawn(move || {
            engine.begin(clock.now(), skipped);
            if engine.has_told_time() {
                state_dir::keep_clock_mark(&dir, clock.mark().as_ref());
            }
            run(engine, waiting, &clock, &timers);
        })
        .map_err(StartError::Thread)?;
    Ok((Handle { shared: Arc::new(shared) }, thread))
}

/// Puts the fault into this thread that `SCHEDULEMESH_BUG` names, in a build that tests the tests.
#[cfg_attr(
    feature = "bugs",
    expect(clippy::disallowed_methods, reason = "a planted fault is no setting of the server")
)]
fn plant_bug() {
    #[cfg(feature = "bugs")]
    if let Ok(word) = std::env::var("SCHEDULEMESH_BUG") {
        match word.parse() {
            Ok(bug) => mesh_core::bug::plant(Some(bug)),
            Err(unknown) => tracing::error!(%unknown, "no fault planted"),
        }
    }
}

/// The thread: waits for what is asked or due, and has the engine take its turns.
fn run(
    mut engine: Engine,
    mut waiting: mpsc::Receiver<Queued>,
    clock: &Clock,
    timers: &tokio::runtime::Runtime,
) {
    plant_bug();
    let mut queued = Vec::with_capacity(TURN_MAX);
    let mut goodbye = None;
    while goodbye.is_none() {
        let wait = engine.wait(clock.now()).map(|span| Duration::from_micros(span.micros()));
        let open = timers.block_on(async {
            let received = waiting.recv_many(&mut queued, TURN_MAX);
            match wait {
                None => received.await > 0,
                Some(wait) => tokio::time::timeout(wait, received).await != Ok(0),
            }
        });
        let mut rooms = Vec::with_capacity(queued.len()); // given back when the turn is over
        let asks = queued.drain(..).map(|Queued { ask, room }| {
            rooms.push(room);
            ask
        });
        goodbye = engine.turn(clock.now(), asks);
        drop(rooms);
        if !open {
            break;
        }
    }
    drop(waiting);
    engine.links().close_all();
    if goodbye.as_ref().is_none_or(|(snapshot, _)| *snapshot) {
        engine.fold();
    }
    if let Some((_, goodbye)) = goodbye {
        drop(engine); // its store is closed before anybody is told that it is
        let _hung_up: Result<(), ()> = goodbye.send(());
    }
}
