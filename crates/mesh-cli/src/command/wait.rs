//! Waiting for tasks.

use std::time::{Duration, Instant};

use mesh_api::http_client::HttpClient;
use mesh_api::problem::Problem;
use mesh_api::v1::TaskView;

use super::Session;
use crate::args::WaitArgs;
use crate::exit::Exit;
use crate::print::{self, text, views};

/// How long one question to the server waits at most.
const PIECE: Duration = Duration::from_secs(25);

/// How a wait ended.
#[derive(Debug)]
pub(super) enum Watched {
    /// The task has ended.
    Ended(Box<TaskView>),
    /// The time was over first.
    TimedOut,
    /// Ctrl-C came first.
    Interrupted,
}

impl From<Watched> for Exit {
    fn from(watched: Watched) -> Self {
        match watched {
            Watched::Ended(view) if view.phase == "succeeded" => Self::Done,
            Watched::Ended(_) => Self::Failed,
            Watched::TimedOut => Self::TimedOut,
            Watched::Interrupted => Self::Interrupted,
        }
    }
}

pub(super) async fn wait(session: &Session, args: &WaitArgs) -> Result<Exit, Problem> {
    let client = session.client()?;
    let deadline = args.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut ended = Vec::new();
    let mut worst = Exit::Done;
    for task in &args.tasks.tasks {
        match one(&client, task, deadline).await? {
            Watched::Ended(view) => {
                tell(&view);
                if view.phase != "succeeded" {
                    worst = Exit::Failed;
                }
                ended.push(*view);
            }
            other @ (Watched::TimedOut | Watched::Interrupted) => {
                worst = other.into();
                break;
            }
        }
    }
    if session.printer.is_json() {
        session.printer.data(&ended, |_views, _paint| String::new())?;
    }
    Ok(worst)
}

/// Waits for one task, until `deadline` at most.
pub(super) async fn one(
    client: &HttpClient,
    task: &str,
    deadline: Option<Instant>,
) -> Result<Watched, Problem> {
    loop {
        let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
        let piece = left.map_or(PIECE, |left| left.min(PIECE));
        let view = tokio::select! {
            view = client.wait(task, piece) => view?,
            () = interrupted() => return Ok(detached(task, "wait")),
        };
        if has_ended(&view) {
            return Ok(Watched::Ended(Box::new(view)));
        }
        if left.is_some_and(|left| left <= piece) {
            print::say(&format!(
                "{task} is still {}; the wait is over, the task goes on",
                view.phase
            ));
            return Ok(Watched::TimedOut);
        }
    }
}

/// Says on stderr how a task ended.
pub(super) fn tell(view: &TaskView) {
    let place = view.cluster.as_deref().map(|name| format!(" on {name}")).unwrap_or_default();
    let ran = view.run_ms.map(|millis| crate::units::show_seconds(millis / 1_000.0));
    let ran = ran.map(|time| format!(" after {time}")).unwrap_or_default();
    print::say(&text::harmless(&format!("{} {}{place}{ran}", view.id, view.phase)));
    if let Some(error) = &view.error {
        print::say(&format!("  {}: {}", error.cause, text::harmless(&error.message)));
    }
}

/// Says that the work goes on although nobody watches any more.
pub(super) fn detached(task: &str, how: &str) -> Watched {
    print::say(&format!("\nDetached; {task} goes on. Come back with `schedulemesh {how} {task}`."));
    Watched::Interrupted
}

/// Whether a task will change no more.
pub(super) fn has_ended(view: &TaskView) -> bool {
    matches!(view.phase.as_str(), "succeeded" | "failed" | "cancelled")
}

/// Resolves at Ctrl-C.
pub(super) async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Without signals nobody can interrupt.
        std::future::pending::<()>().await;
    }
}

/// The table of tasks that a wait or a submission ended with.
pub(super) fn show(session: &Session, view: &TaskView) -> Result<(), Problem> {
    session.printer.data(view, views::task)
}
