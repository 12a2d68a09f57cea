//! Routes about tasks.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use mesh_api::agent::Question;
use mesh_api::convert::{self, Prepared};
use mesh_api::problem::Problem;
use mesh_api::v1::{
    ExplainView, SpecBody, SubmitAnswer, SubmitBody, SubmitResult, SubmitTaskBody, TaskList,
    TaskView,
};
use mesh_core::model::id::{Key, TaskId};
use mesh_core::model::task::{Kind, Task};
use mesh_core::{Command, Mesh, Rejection};
use serde::Deserialize;

use super::App;
use super::failure::{Answer, Body, Failure, Name, Query};
use super::view;
use crate::handle::{Accept, Payload, Submitted};

/// Most tasks in one submission.
const BATCH_MAX: usize = 100_000;
/// Tasks on one page when nothing is said, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;
/// Tasks looked at in one turn of the driver, so that a filter that matches little stalls nobody.
const LOOK_MAX: usize = 5_000;
/// The longest that one request waits for a task.
const WAIT_MAX: Duration = Duration::from_mins(1);
/// How long an agent may take to answer a question for a log, and how much of one is sent.
const LOGS_WAIT: Duration = Duration::from_secs(10);
const LOGS_MAX: u64 = 1 << 20;

/// Accept tasks: one answer each, in order, once all that was accepted is durable.
///
/// A task of a key that was used before is not accepted twice; the answer is the first one's.
#[utoipa::path(
    post, path = "/v1/tasks", tag = "tasks", operation_id = "submit_tasks",
    request_body = SubmitBody,
    responses(
        (status = 200, description = "What became of each", body = SubmitAnswer),
        (status = "default", description = "Nothing was accepted", body = Problem,
               content_type = "application/problem+json"),
    )
)]
pub(crate) async fn submit(
    State(app): State<App>,
    Body(body): Body<SubmitBody>,
) -> Answer<Json<SubmitAnswer>> {
    if body.tasks.len() > BATCH_MAX {
        let message =
            format!("{} tasks in one submission, {BATCH_MAX} are allowed", body.tasks.len());
        return Err(Problem::new("TOO_LARGE", message, "submit them in several batches").into());
    }
    let specs: Vec<Result<Prepared, Problem>> = body.specs.iter().map(Prepared::read).collect();
    let mut results = Vec::with_capacity(body.tasks.len());
    let mut accepts = Vec::with_capacity(body.tasks.len());
    for task in body.tasks {
        match accept(&app, &specs, task).await {
            Ok(accept) => {
                let key = Some(accept.key.to_string());
                results.push(SubmitResult { key, ..SubmitResult::default() });
                accepts.push(accept);
            }
            Err(problem) => {
                results.push(SubmitResult { error: Some(problem), ..SubmitResult::default() });
            }
        }
    }
    if !accepts.is_empty() {
        let mut answers = app.handle.submit(accepts).await?.into_iter();
        for result in results.iter_mut().filter(|result| result.error.is_none()) {
            fill(result, answers.next());
        }
    }
    mesh_fail::pass("http.submit.before_answer");
    Ok(Json(SubmitAnswer { results }))
}

async fn accept(
    app: &App,
    specs: &[Result<Prepared, Problem>],
    task: SubmitTaskBody,
) -> Result<Accept, Problem> {
    let index = usize::try_from(task.spec).unwrap_or(usize::MAX);
    let spec = specs.get(index).ok_or_else(|| {
        let message = format!("spec {index} is not one of the {} in the body", specs.len());
        Problem::new("INVALID", message, "spec counts from 0")
    })?;
    let mut accept = spec.as_ref().map_err(Clone::clone)?.http(task)?;
    if let Payload::Blob(id, size) = &mut accept.payload {
        *size = app.handle.blobs().size(*id).await?;
    }
    Ok(accept)
}

fn fill(result: &mut SubmitResult, answer: Option<Result<Submitted, Problem>>) {
    match answer {
        Some(Ok(Submitted { task, replayed })) => {
            result.id = Some(task.to_string());
            result.replayed = replayed;
        }
        Some(Err(problem)) => result.error = Some(problem),
        None => result.error = Some(Problem::new("INTERNAL", "no answer for this task", "")),
    }
}

/// Which tasks are listed.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// Phases, separated by commas; `active` stands for all that have not ended.
    phase: Option<String>,
    /// The cluster that they are, or were last, assigned to.
    cluster: Option<String>,
    /// `function`, `actor`, `call` or `job`.
    kind: Option<String>,
    /// Their name, exactly.
    name: Option<String>,
    /// At most so many: 100 when nothing is said, 1,000 at most.
    limit: Option<usize>,
    /// Only those older than this task: `next` of the page before.
    before: Option<String>,
}

/// The tasks of which there is a record, newest first.
#[utoipa::path(
    get, path = "/v1/tasks", tag = "tasks", operation_id = "list_tasks", params(ListQuery),
    responses((status = 200, description = "A page of them", body = TaskList),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json"))
)]
pub(crate) async fn list(
    State(app): State<App>,
    Query(query): Query<ListQuery>,
) -> Answer<Json<TaskList>> {
    let filter = std::sync::Arc::new(Filter::read(&query)?);
    let limit = query.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let mut bound = query.before.as_deref().map(convert::task_id).transpose()?;
    let mut tasks: Vec<TaskView> = Vec::new();
    loop {
        let (room, sought) = (limit - tasks.len(), std::sync::Arc::clone(&filter));
        let look = move |mesh: &Mesh, _now| look(mesh, &sought, bound, room);
        let (mut found, last) = app.handle.read(look).await?;
        tasks.append(&mut found);
        bound = last;
        if bound.is_none() || tasks.len() >= limit {
            break;
        }
    }
    let counts = app.handle.read(|mesh, _now| view::counts(mesh)).await?;
    Ok(Json(TaskList { tasks, next: bound.map(|id| id.to_string()), counts }))
}

/// What a list is narrowed to.
struct Filter {
    phases: Vec<&'static str>,
    cluster: Option<String>,
    kind: Option<&'static str>,
    name: Option<String>,
}

const ACTIVE: [&str; 5] = ["queued", "delayed", "assigned", "running", "stopping"];
const ENDED: [&str; 3] = ["succeeded", "failed", "cancelled"];

impl Filter {
    fn read(query: &ListQuery) -> Result<Self, Problem> {
        let mut phases = Vec::new();
        let words = query.phase.as_deref().unwrap_or_default().split(',').map(str::trim);
        for word in words.filter(|word| !word.is_empty()) {
            if word == "active" {
                phases.extend(ACTIVE);
                continue;
            }
            let known = ACTIVE.iter().chain(&ENDED).find(|phase| **phase == word);
            phases.push(*known.ok_or_else(|| {
                let known = [&ACTIVE[..], &ENDED[..]].concat().join(", ");
                unknown_word("phase", word, &format!("active, {known}"))
            })?);
        }
        let kinds = [Kind::Function, Kind::Actor, Kind::Call, Kind::Job].map(view::kind_word);
        let kind = query.kind.as_deref().map(|word| {
            let known = kinds.into_iter().find(|kind| *kind == word);
            known.ok_or_else(|| unknown_word("kind", word, &kinds.join(", ")))
        });
        Ok(Self {
            phases,
            cluster: query.cluster.clone(),
            kind: kind.transpose()?,
            name: query.name.clone(),
        })
    }

    fn holds(&self, mesh: &Mesh, task: &Task) -> bool {
        let phase =
            || self.phases.is_empty() || self.phases.contains(&view::phase_word(&task.phase));
        let name = || {
            let title = || mesh.spec(task.spec).and_then(|spec| spec.title.as_deref());
            self.name.is_none() || self.name.as_deref() == task.name.as_deref().or_else(title)
        };
        let kind = || {
            let known = || mesh.spec(task.spec).map(|spec| view::kind_word(spec.shape.kind));
            self.kind.is_none() || known() == self.kind
        };
        let cluster = || {
            self.cluster.as_deref().is_none_or(|wanted| {
                let cluster = mesh.cluster_of(task.id).and_then(|id| mesh.cluster_by_id(id));
                cluster.is_some_and(|cluster| cluster.name.as_str() == wanted)
            })
        };
        phase() && name() && kind() && cluster()
    }
}

fn unknown_word(field: &str, word: &str, known: &str) -> Problem {
    Problem::new("INVALID", format!("{field} {word:?} is unknown"), format!("use one of {known}"))
}

/// Up to `room` matches among the next tasks, and where to look on; `None` at the end.
fn look(
    mesh: &Mesh,
    filter: &Filter,
    bound: Option<TaskId>,
    room: usize,
) -> (Vec<TaskView>, Option<TaskId>) {
    let mut found = Vec::new();
    for (looked, task) in mesh.tasks_before(bound).enumerate() {
        if filter.holds(mesh, task) {
            found.extend(view::task(mesh, task));
        }
        if found.len() == room || looked + 1 == LOOK_MAX {
            let more = mesh.tasks_before(Some(task.id)).next().is_some();
            return (found, more.then_some(task.id));
        }
    }
    (found, None)
}

/// A task by its id, or by `key:` and its key.
#[utoipa::path(
    get, path = "/v1/tasks/{id}", tag = "tasks", operation_id = "get_task",
    params(("id" = String, Path, description = "Such as `t42` or `key:train-00`")),
    responses((status = 200, description = "The task", body = TaskView),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json"))
)]
pub(crate) async fn get(State(app): State<App>, Name(id): Name) -> Answer<Json<TaskView>> {
    Ok(Json(fetch(&app, Wanted::read(&id)?).await?))
}

/// How a caller names a task.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    Id(TaskId),
    Key(Key),
}

impl Wanted {
    pub(crate) fn read(text: &str) -> Result<Self, Problem> {
        let Some(key) = text.strip_prefix("key:") else {
            return convert::task_id(text).map(Self::Id);
        };
        let key = key.parse().map_err(|error| {
            Problem::new("INVALID", format!("the key {error}"), "use the key that was submitted")
        });
        key.map(Self::Key)
    }

    pub(crate) fn find<'a>(&self, mesh: &'a Mesh) -> Result<&'a Task, Problem> {
        let found = match self {
            Self::Id(id) => mesh.task(*id),
            Self::Key(key) => mesh.task_by_key(key),
        };
        found.ok_or_else(|| match self {
            Self::Id(id) => (&Rejection::UnknownTask(*id)).into(),
            Self::Key(key) => Problem::new(
                "UNKNOWN_TASK",
                format!("no task of the key {key} is known here"),
                "check the key; ended tasks are kept for a limited time",
            ),
        })
    }
}

async fn fetch(app: &App, wanted: Wanted) -> Result<TaskView, Problem> {
    app.handle
        .read(move |mesh, _now| {
            let task = wanted.find(mesh)?;
            view::task(mesh, task).ok_or_else(|| (&Rejection::UnknownTask(task.id)).into())
        })
        .await?
}

/// The number of a task, and nothing else of it.
pub(crate) async fn number(app: &App, text: &str) -> Result<TaskId, Problem> {
    match Wanted::read(text)? {
        Wanted::Id(id) => Ok(id),
        wanted @ Wanted::Key(_) => {
            app.handle.read(move |mesh, _now| wanted.find(mesh).map(|task| task.id)).await?
        }
    }
}

/// Why a task is where it is, and what each cluster says about it.
#[utoipa::path(
    get, path = "/v1/tasks/{id}/explain", tag = "tasks", operation_id = "explain_task",
    params(("id" = String, Path)),
    responses((status = 200, description = "The reasons", body = ExplainView),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json"))
)]
pub(crate) async fn explain(State(app): State<App>, Name(id): Name) -> Answer<Json<ExplainView>> {
    let id = number(&app, &id).await?;
    let explained = app.handle.read(move |mesh, now| view::explanation(mesh, now, id)).await?;
    let unknown = || Failure((&Rejection::UnknownTask(id)).into());
    explained.map(Json).ok_or_else(unknown)
}

/// Where a task would go, without submitting it.
#[utoipa::path(
    post, path = "/v1/explain", tag = "tasks", operation_id = "explain_spec",
    request_body = SpecBody,
    responses((status = 200, description = "What each cluster says", body = ExplainView),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json"))
)]
pub(crate) async fn dry_run(
    State(app): State<App>,
    Body(spec): Body<SpecBody>,
) -> Answer<Json<ExplainView>> {
    let spec = convert::task_spec(&spec)?;
    Ok(Json(app.handle.read(move |mesh, now| view::dry_run(mesh, now, &spec)).await?))
}

/// How long to wait.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct WaitQuery {
    /// In milliseconds; 30,000 when nothing is said, 60,000 at most.
    timeout_ms: Option<u64>,
}

/// The task, as soon as it ended or when the time is over, whichever is first.
#[utoipa::path(
    get, path = "/v1/tasks/{id}/wait", tag = "tasks", operation_id = "wait_for_task",
    params(("id" = String, Path), WaitQuery),
    responses((status = 200, description = "The task as it is then", body = TaskView),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json"))
)]
pub(crate) async fn wait(
    State(app): State<App>,
    Name(id): Name,
    Query(query): Query<WaitQuery>,
) -> Answer<Json<TaskView>> {
    let id = number(&app, &id).await?;
    let task = fetch(&app, Wanted::Id(id)).await?;
    if task.ended_at.is_some() {
        return Ok(Json(task));
    }
    let timeout = Duration::from_millis(query.timeout_ms.unwrap_or(30_000)).min(WAIT_MAX);
    tokio::select! {
        ended = app.handle.wait_ended(id, timeout) => { ended?; }
        () = app.closing.cancelled() => {}
    }
    Ok(Json(fetch(&app, Wanted::Id(id)).await?))
}

/// How much of a log.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LogsQuery {
    /// At most so many bytes, counted from the end: 64 KiB when nothing is said, 1 MiB at most.
    tail_bytes: Option<u64>,
}

/// What a task printed.
#[utoipa::path(
    get, path = "/v1/tasks/{id}/logs", tag = "tasks", operation_id = "task_logs",
    params(("id" = String, Path), LogsQuery),
    responses((status = 200, description = "The text", body = String, content_type = "text/plain"),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json"))
)]
pub(crate) async fn logs(
    State(app): State<App>,
    Name(id): Name,
    Query(query): Query<LogsQuery>,
) -> Answer<String> {
    let wanted = Wanted::read(&id)?;
    let place = move |mesh: &Mesh, _now| {
        let task = wanted.find(mesh)?;
        let cluster = mesh.cluster_of(task.id).and_then(|id| mesh.cluster_by_id(id));
        Ok::<_, Problem>((task.id, task.attempt, cluster.map(|cluster| cluster.name.clone())))
    };
    let (task, attempt, cluster) = app.handle.read(place).await??;
    // What has not started anywhere, or was put back into the queue, has no log.
    let Some(cluster) = cluster else { return Ok(String::new()) };
    let tail_bytes = query.tail_bytes.unwrap_or(64 << 10).min(LOGS_MAX);
    let question = Question::Logs { task: task.0, attempt: attempt.0, tail_bytes };
    Ok(app.handle.ask_agent(cluster, question, LOGS_WAIT).await?)
}

/// Stop a task, or never start it. One that has ended stays as it is.
#[utoipa::path(
    post, path = "/v1/tasks/{id}/cancel", tag = "tasks", operation_id = "cancel_task",
    params(("id" = String, Path)),
    responses((status = 200, description = "The task as it is then", body = TaskView),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json"))
)]
pub(crate) async fn cancel(State(app): State<App>, Name(id): Name) -> Answer<Json<TaskView>> {
    let id = number(&app, &id).await?;
    app.handle.command(Command::Cancel(id)).await?;
    mesh_fail::pass("http.cancel.before_answer");
    Ok(Json(fetch(&app, Wanted::Id(id)).await?))
}
