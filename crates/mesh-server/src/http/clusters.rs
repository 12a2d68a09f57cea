//! Routes about clusters.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use mesh_api::agent::Question;
use mesh_api::convert;
use mesh_api::problem::Problem;
use mesh_api::v1::{AgentToken, CheckView, ClusterBody, ClusterTest, ClusterView, DrainBody};
use mesh_core::model::cluster::ClusterSpec;
use mesh_core::model::id::ClusterName;
use mesh_core::{ClusterState, Command, Rejection};
use serde::Deserialize;

use super::App;
use super::failure::{Answer, Body, MaybeBody, Name, Query};
use super::view;
use crate::bootstrap::jobs::JobsApi;

/// How long an agent or a dashboard may take to answer a test.
const TEST_WAIT: Duration = Duration::from_secs(5);

/// Every cluster, in the order of registration.
#[utoipa::path(
    get, path = "/v1/clusters", tag = "clusters", operation_id = "list_clusters",
    responses((status = 200, description = "The clusters", body = Vec<ClusterView>),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json"))
)]
pub(crate) async fn list(State(app): State<App>) -> Answer<Json<Vec<ClusterView>>> {
    let door = app.handle.clone();
    let clusters = app.handle.read(move |mesh, _now| {
        let show = |state: &ClusterState| {
            view::cluster(mesh, state, door.shared.agents.trouble(&state.name))
        };
        mesh.clusters().map(show).collect()
    });
    Ok(Json(clusters.await?))
}

/// A cluster.
#[utoipa::path(
    get, path = "/v1/clusters/{name}", tag = "clusters", operation_id = "get_cluster",
    params(("name" = String, Path)),
    responses((status = 200, description = "The cluster", body = ClusterView),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json"))
)]
pub(crate) async fn get(State(app): State<App>, Name(name): Name) -> Answer<Json<ClusterView>> {
    Ok(Json(fetch(&app, parse(&name)?).await?))
}

/// Register a cluster. The same entry again changes nothing; another entry of the same name is refused.
#[utoipa::path(
    post, path = "/v1/clusters", tag = "clusters", operation_id = "add_cluster",
    request_body = ClusterBody,
    responses((status = 200, description = "The cluster", body = ClusterView),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json"))
)]
pub(crate) async fn add(
    State(app): State<App>,
    Body(body): Body<ClusterBody>,
) -> Answer<Json<ClusterView>> {
    let (name, spec) = app.read_cluster(body)?;
    app.handle.command(Command::AddCluster(name.clone(), Box::new(spec))).await?;
    app.clusters_changed.notify_one();
    Ok(Json(fetch(&app, name).await?))
}

/// Register a cluster, or change what was said about it.
#[utoipa::path(
    put, path = "/v1/clusters/{name}", tag = "clusters", operation_id = "put_cluster",
    params(("name" = String, Path)),
    request_body = ClusterBody,
    responses((status = 200, description = "The cluster", body = ClusterView),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json"))
)]
pub(crate) async fn put(
    State(app): State<App>,
    Name(name): Name,
    Body(body): Body<ClusterBody>,
) -> Answer<Json<ClusterView>> {
    if body.name != name {
        let message = format!("the address names cluster {name:?}, the body {:?}", body.name);
        return Err(Problem::new("INVALID", message, "name the same cluster in both").into());
    }
    let (name, spec) = app.read_cluster(body)?;
    app.put_cluster(&name, spec).await?;
    Ok(Json(fetch(&app, name).await?))
}

impl App {
    /// Reads the entry of a cluster, with the defaults of this server.
    pub(crate) fn read_cluster(
        &self,
        mut body: ClusterBody,
    ) -> Result<(ClusterName, ClusterSpec), Problem> {
        let lost_after = u64::try_from(self.config.lost_after.as_millis()).unwrap_or(u64::MAX);
        body.lost_after_ms.get_or_insert(lost_after);
        convert::cluster(&body)
    }

    /// Registers a cluster, or changes it.
    pub(crate) async fn put_cluster(
        &self,
        name: &ClusterName,
        spec: ClusterSpec,
    ) -> Result<(), Problem> {
        let sought = name.clone();
        let known = self.handle.read(move |mesh, _now| mesh.cluster(&sought).is_some()).await?;
        let (name, spec) = (name.clone(), Box::new(spec));
        let command = if known {
            Command::ChangeCluster(name, spec)
        } else {
            Command::AddCluster(name, spec)
        };
        self.handle.command(command).await?;
        self.clusters_changed.notify_one();
        Ok(())
    }
}

/// Whether to remove a cluster that is in use.
#[derive(Clone, Copy, Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RemoveQuery {
    /// Treat what runs there as lost.
    #[serde(default)]
    force: bool,
}

/// Forget a cluster. Refused while work runs there, unless forced.
#[utoipa::path(
    delete, path = "/v1/clusters/{name}", tag = "clusters", operation_id = "remove_cluster",
    params(("name" = String, Path), RemoveQuery),
    responses((status = 204, description = "It is forgotten"),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json"))
)]
pub(crate) async fn remove(
    State(app): State<App>,
    Name(name): Name,
    Query(query): Query<RemoveQuery>,
) -> Answer<StatusCode> {
    let name = parse(&name)?;
    app.handle.command(Command::RemoveCluster { name, force: query.force }).await?;
    app.clusters_changed.notify_one();
    Ok(StatusCode::NO_CONTENT)
}

/// Send no new work to a cluster, or send work again.
#[utoipa::path(
    post, path = "/v1/clusters/{name}/drain", tag = "clusters", operation_id = "drain_cluster",
    params(("name" = String, Path)),
    request_body = Option<DrainBody>,
    responses((status = 200, description = "The cluster", body = ClusterView),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json"))
)]
pub(crate) async fn drain(
    State(app): State<App>,
    Name(name): Name,
    MaybeBody(body): MaybeBody<DrainBody>,
) -> Answer<Json<ClusterView>> {
    let name = parse(&name)?;
    let draining = body.is_none_or(|body| body.draining);
    app.handle.command(Command::DrainCluster(name.clone(), draining)).await?;
    Ok(Json(fetch(&app, name).await?))
}

/// The token with which the agent of a cluster introduces itself.
#[utoipa::path(
    post, path = "/v1/clusters/{name}/token", tag = "clusters", operation_id = "cluster_token",
    params(("name" = String, Path)),
    responses((status = 200, description = "The token", body = AgentToken),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json"))
)]
pub(crate) async fn token(State(app): State<App>, Name(name): Name) -> Answer<Json<AgentToken>> {
    let name = parse(&name)?;
    fetch(&app, name.clone()).await?;
    let token = app.tokens.agent(&name);
    Ok(Json(AgentToken { cluster: name.to_string(), token }))
}

/// Ask the agent of a cluster, and its dashboard when it is known, whether they answer, now.
#[utoipa::path(
    post, path = "/v1/clusters/{name}/test", tag = "clusters", operation_id = "test_cluster",
    params(("name" = String, Path)),
    responses((status = 200, description = "What was tried", body = ClusterTest),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json"))
)]
pub(crate) async fn test(State(app): State<App>, Name(name): Name) -> Answer<Json<ClusterTest>> {
    let name = parse(&name)?;
    let cluster = fetch(&app, name.clone()).await?;
    let mut checks = Vec::new();
    if let Some(dashboard) = &cluster.spec.dashboard {
        let found = async {
            let api = JobsApi::new(dashboard, cluster.spec.token.as_deref())?;
            api.version().await.map(|version| format!("Ray {version} at {dashboard}"))
        };
        checks.push(check("dashboard", found).await);
    }
    let asked = app.handle.ask_agent(name.clone(), Question::Health, TEST_WAIT);
    checks.push(check("agent", asked).await);
    let ok = checks.iter().all(|check| check.ok);
    Ok(Json(ClusterTest { cluster: name.to_string(), ok, checks }))
}

async fn check(name: &str, tried: impl Future<Output = Result<String, Problem>>) -> CheckView {
    let start = Instant::now();
    let outcome = tokio::time::timeout(TEST_WAIT, tried).await;
    let outcome = outcome.unwrap_or_else(|_late| {
        let message = format!("no answer within {} s", TEST_WAIT.as_secs());
        Err(Problem::new("TIMED_OUT", message, ""))
    });
    CheckView {
        name: name.to_owned(),
        ok: outcome.is_ok(),
        message: outcome.unwrap_or_else(|problem| problem.message),
        took_ms: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

fn parse(name: &str) -> Result<ClusterName, Problem> {
    name.parse().map_err(|error| {
        let message = format!("the cluster's name {name:?} {error}");
        Problem::new("INVALID", message, "see `schedulemesh cluster ls`")
    })
}

async fn fetch(app: &App, name: ClusterName) -> Result<ClusterView, Problem> {
    let trouble = app.handle.shared.agents.trouble(&name);
    app.handle
        .read(move |mesh, _now| match mesh.cluster(&name) {
            Some(state) => Ok(view::cluster(mesh, state, trouble)),
            None => Err((&Rejection::UnknownCluster(name)).into()),
        })
        .await?
}
