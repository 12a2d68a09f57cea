//! Submitting a job.

use mesh_api::http_client::HttpClient;
use mesh_api::problem::Problem;
use mesh_api::v1::{SubmitBody, SubmitResult, SubmitTaskBody};

use super::wait::{self, Watched};
use super::{Session, inspect};
use crate::args::SubmitArgs;
use crate::exit::Exit;
use crate::print::{self, explain};

/// Most bytes of a log that is followed from its beginning.
const FOLLOW_TAIL: u64 = 8 << 20;

pub(super) async fn submit(session: &Session, args: &SubmitArgs) -> Result<Exit, Problem> {
    let client = session.client()?;
    if args.dry_run {
        return dry_run(session, &client, args).await;
    }
    let key = args.key.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let accepted = send(&client, args, key).await?;
    let id = accepted.id.clone().unwrap_or_default();
    if !(args.wait || args.follow) {
        session.printer.data(&accepted, |accepted, _paint| {
            let id = accepted.id.clone().unwrap_or_default();
            announce(accepted);
            id
        })?;
        return Ok(Exit::Done);
    }
    announce(&accepted);
    let watched = if args.follow {
        inspect::follow(&client, &id, FOLLOW_TAIL).await?
    } else {
        wait::one(&client, &id, None).await?
    };
    if let Watched::Ended(view) = &watched {
        wait::tell(view);
        if session.printer.is_json() {
            wait::show(session, view)?;
        }
    }
    Ok(watched.into())
}

async fn dry_run(
    session: &Session,
    client: &HttpClient,
    args: &SubmitArgs,
) -> Result<Exit, Problem> {
    let view = client.explain_spec(&args.spec()).await?;
    session.printer.data(&view, explain::explain)?;
    Ok(if view.because == "INFEASIBLE" { Exit::Rejected } else { Exit::Done })
}

/// Submits it under a key, so that whoever repeats the command with that key runs it once.
async fn send(
    client: &HttpClient,
    args: &SubmitArgs,
    key: String,
) -> Result<SubmitResult, Problem> {
    let task = SubmitTaskBody {
        spec: 0,
        key: Some(key),
        name: args.name.clone(),
        payload: None,
        blob: None,
        job: Some(args.job()),
    };
    let body = SubmitBody { specs: vec![args.spec()], tasks: vec![task] };
    let answer = client.submit(&body).await?;
    let result = answer.results.into_iter().next().ok_or_else(|| {
        Problem::new("INTERNAL", "the server answered nothing about the submission", "")
    })?;
    match result.error {
        Some(problem) => Err(problem),
        None => Ok(result),
    }
}

/// Tells the key, which a script that wants to try again needs.
fn announce(accepted: &SubmitResult) {
    let id = accepted.id.as_deref().unwrap_or_default();
    let key = accepted.key.as_deref().unwrap_or_default();
    let word = if accepted.replayed { "accepted before" } else { "accepted" };
    print::say(&format!("{word}: {id} (key {key})"));
}
