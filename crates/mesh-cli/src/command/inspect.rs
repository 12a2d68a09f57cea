//! Looking at tasks, and stopping them.

use std::time::Duration;

use mesh_api::http_client::{EventStream, HttpClient, TaskQuery};
use mesh_api::problem::Problem;
use mesh_api::v1::TaskView;

use super::Session;
use super::wait::{self, Watched};
use crate::args::{LogsArgs, PsArgs};
use crate::exit::Exit;
use crate::print::{self, explain, text, views};

/// How often a log that is followed is asked for.
const FOLLOW_EVERY: Duration = Duration::from_millis(700);

/// How often a watched list is printed again at most.
const WATCH_EVERY: Duration = Duration::from_millis(300);

pub(super) async fn ps(session: &Session, args: &PsArgs) -> Result<Exit, Problem> {
    let client = session.client()?;
    let active = (!args.all && args.phase.is_none()).then(|| "active".to_owned());
    let query = TaskQuery {
        phases: active.into_iter().chain(args.phase.clone()).collect(),
        cluster: args.cluster.clone(),
        kind: args.kind.clone(),
        name: args.name.clone(),
        limit: Some(args.limit),
        before: None,
    };
    if args.watch {
        return watch(session, &client, &query).await;
    }
    let list = client.tasks(&query).await?;
    session.printer.data(&list, views::tasks)?;
    Ok(Exit::Done)
}

/// Prints the list whenever an event says that something changed.
async fn watch(session: &Session, client: &HttpClient, query: &TaskQuery) -> Result<Exit, Problem> {
    let mut events = client.events(None).await?;
    loop {
        let list = client.tasks(query).await?;
        session.printer.fresh_screen();
        session.printer.data(&list, views::tasks)?;
        tokio::select! {
            changed = next_change(&mut events) => if !changed? {
                events = client.events(None).await?;
            },
            () = wait::interrupted() => return Ok(Exit::Done),
        }
    }
}

/// Waits for an event, then a moment longer, so that a burst of events prints one list.
async fn next_change(events: &mut EventStream) -> Result<bool, Problem> {
    let there = events.next().await?.is_some();
    tokio::time::sleep(WATCH_EVERY).await;
    Ok(there)
}

pub(super) async fn describe(session: &Session, task: &str) -> Result<Exit, Problem> {
    let view = session.client()?.task(task).await?;
    session.printer.data(&view, views::task)?;
    Ok(Exit::Done)
}

pub(super) async fn explain(session: &Session, task: &str) -> Result<Exit, Problem> {
    let view = session.client()?.explain(task).await?;
    session.printer.data(&view, explain::explain)?;
    Ok(Exit::Done)
}

pub(super) async fn status(session: &Session) -> Result<Exit, Problem> {
    let client = session.client()?;
    let ready = client.ready().await?;
    session.printer.data(&ready, |ready, paint| views::status(client.url(), ready, paint))?;
    Ok(if ready.ready { Exit::Done } else { Exit::Unavailable })
}

pub(super) async fn cancel(session: &Session, tasks: &[String]) -> Result<Exit, Problem> {
    let client = session.client()?;
    let mut views: Vec<TaskView> = Vec::new();
    let mut first = None;
    for task in tasks {
        match client.cancel(task).await {
            Ok(view) => views.push(view),
            Err(problem) => {
                print::problem(&problem, session.global.output);
                first.get_or_insert(Exit::from(&problem));
            }
        }
    }
    session.printer.data(&views, |views, _paint| {
        let lines = views.iter().map(|view| format!("{} {}", view.id, view.phase));
        lines.collect::<Vec<_>>().join("\n")
    })?;
    Ok(first.unwrap_or(Exit::Done))
}

pub(super) async fn logs(session: &Session, args: &LogsArgs) -> Result<Exit, Problem> {
    let client = session.client()?;
    let task = &args.task.task;
    if args.follow {
        return follow(&client, task, args.tail).await.map(Exit::from);
    }
    let log = client.logs(task, Some(args.tail)).await?;
    if session.printer.is_json() {
        let data = serde_json::json!({ "task": task, "log": log });
        session.printer.data(&data, |_data, _paint| String::new())?;
    } else {
        print::raw(&text::harmless_lines(&log));
    }
    Ok(Exit::Done)
}

/// Prints what a task prints until it has ended.
pub(super) async fn follow(client: &HttpClient, task: &str, tail: u64) -> Result<Watched, Problem> {
    let mut seen = String::new();
    loop {
        // Asked before the log, so that the last words of a task that ends in between are printed.
        let view = tokio::select! {
            view = client.wait(task, FOLLOW_EVERY) => view?,
            () = wait::interrupted() => return Ok(wait::detached(task, "logs -f")),
        };
        let log = log_so_far(client, &view, tail).await?;
        print::raw(&text::harmless_lines(fresh(&seen, &log)));
        if !log.is_empty() {
            seen = log;
        }
        if wait::has_ended(&view) {
            return Ok(Watched::Ended(Box::new(view)));
        }
    }
}

/// The log, or nothing while there is none: before it started, and while its agent is away.
async fn log_so_far(client: &HttpClient, view: &TaskView, tail: u64) -> Result<String, Problem> {
    if view.attempt == 0 {
        return Ok(String::new());
    }
    match client.logs(&view.id, Some(tail)).await {
        Ok(log) => Ok(log),
        Err(problem) if problem.code == "AGENT_UNREACHABLE" && !wait::has_ended(view) => {
            Ok(String::new())
        }
        Err(problem) => Err(problem),
    }
}

/// What `log` has beyond `seen`. Both are the last bytes of a text that grows, so the beginning of
/// `seen` may have fallen out of `log`.
fn fresh<'a>(seen: &str, log: &'a str) -> &'a str {
    let starts = seen.char_indices().map(|(start, _)| start);
    let overlap =
        starts.filter_map(|start| seen.get(start..)).find_map(|end| log.strip_prefix(end));
    overlap.unwrap_or(log)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_followed_log_is_printed_once() {
        assert_eq!(fresh("", "one\n"), "one\n");
        assert_eq!(fresh("one\n", "one\ntwo\n"), "two\n");
        assert_eq!(fresh("one\ntwo\n", "two\nthree\n"), "three\n", "the window moved");
        assert_eq!(fresh("one\n", "one\n"), "");
        assert_eq!(fresh("one\n", ""), "", "its agent is away");
        assert_eq!(fresh("ä\n", "other\n"), "other\n", "another attempt");
    }
}
