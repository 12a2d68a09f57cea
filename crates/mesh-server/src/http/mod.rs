//! The HTTP door: who may come in, which route leads where, and the OpenAPI document that is
//! generated from the routes.

mod admin;
mod clusters;
mod data;
mod events;
mod failure;
mod links;
mod tasks;
mod view;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use mesh_api::problem::Problem;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::{RequestBodyDeadlineLayer, RequestBodyTimeoutLayer};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Tag};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{self, Claim, Tokens};
use crate::config::Config;
use crate::handle::Handle;
use crate::hosts::Hosts;
use failure::{Failure, no_such_route, panicked};

/// How long a client may take to send a body that is read whole.
const BODY_DEADLINE: Duration = Duration::from_secs(30);
/// How long a client that streams a body may pause.
const BODY_PAUSE: Duration = Duration::from_secs(30);

/// What every handler needs.
#[derive(Clone, Debug)]
pub struct App {
    /// The door to the driver.
    pub handle: Handle,
    /// Who may come in.
    pub tokens: Tokens,
    /// The names under which the server may be called.
    pub hosts: Hosts,
    /// How the server was set up.
    pub config: Arc<Config>,
    /// When it started.
    pub started: Instant,
    /// Ends streams and waiting requests when the server stops.
    pub closing: CancellationToken,
    /// The address under which agents reach it.
    pub advertised: Arc<str>,
    /// Told when a cluster was registered, changed or forgotten.
    pub clusters_changed: Arc<Notify>,
}

impl App {
    /// What handlers need of a server that was set up like this.
    /// `url` is where it listens.
    pub fn new(handle: Handle, tokens: Tokens, config: Arc<Config>, url: &str) -> Self {
        let advertised = config.advertise_url.as_deref().unwrap_or(url).into();
        let hosts = Hosts::new(&config.allowed_hosts, config.advertise_url.as_deref());
        Self {
            handle,
            tokens,
            hosts,
            config,
            started: Instant::now(),
            closing: CancellationToken::new(),
            advertised,
            clusters_changed: Arc::new(Notify::new()),
        }
    }
}

/// Every route, behind every check.
pub fn router(app: App) -> Router {
    let (whole, streamed, _document) = parts();
    let whole = whole
        .layer(DefaultBodyLimit::max(app.config.body_max))
        .layer(RequestBodyDeadlineLayer::new(BODY_DEADLINE));
    let streamed =
        streamed.layer(DefaultBodyLimit::disable()).layer(RequestBodyTimeoutLayer::new(BODY_PAUSE));
    whole
        .merge(streamed)
        .fallback(missing)
        .method_not_allowed_fallback(missing)
        .layer(axum::middleware::from_fn_with_state(app.clone(), guard))
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(app)
}

/// The OpenAPI document.
pub fn document() -> OpenApi {
    parts().2
}

/// Routes that read their body whole, routes that stream it, and the document of both.
fn parts() -> (Router<App>, Router<App>, OpenApi) {
    let (whole, document) = OpenApiRouter::<App>::with_openapi(head())
        .merge(server_routes())
        .merge(task_routes())
        .merge(cluster_routes())
        .split_for_parts();
    let (streamed, rest) = OpenApiRouter::<App>::new().merge(streamed_routes()).split_for_parts();
    (whole, streamed, document.merge_from(rest))
}

fn server_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(admin::health))
        .routes(routes!(admin::ready))
        .routes(routes!(admin::metrics))
        .routes(routes!(admin::openapi))
        .routes(routes!(admin::config))
        .routes(routes!(events::events))
        .routes(routes!(links::agent))
        .routes(routes!(links::client))
}

/// Looking for a package is beside bringing it: a path belongs to one router.
fn streamed_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(data::put_blob))
        .routes(routes!(data::get_package, data::put_package))
}

fn task_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(tasks::submit, tasks::list))
        .routes(routes!(tasks::dry_run))
        .routes(routes!(tasks::get))
        .routes(routes!(tasks::explain))
        .routes(routes!(tasks::wait))
        .routes(routes!(tasks::logs))
        .routes(routes!(tasks::cancel))
        .routes(routes!(data::result))
        .routes(routes!(data::get_blob))
        .routes(routes!(data::put_code))
}

fn cluster_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(clusters::list, clusters::add))
        .routes(routes!(clusters::get, clusters::put, clusters::remove))
        .routes(routes!(clusters::drain))
        .routes(routes!(clusters::test))
        .routes(routes!(clusters::token))
}

fn head() -> OpenApi {
    let about = "Submit work, follow it, and look after clusters. Every route but /health needs \
                 `Authorization: Bearer TOKEN`. Whatever goes wrong is answered with a Problem. \
                 Times are Unix seconds, durations milliseconds, memory bytes.";
    let info = InfoBuilder::new()
        .title("ScheduleMesh")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(about))
        .build();
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let components = ComponentsBuilder::new().security_scheme("token", bearer).build();
    let needed = utoipa::openapi::SecurityRequirement::new::<_, [&str; 0], &str>("token", []);
    let tags = ["tasks", "clusters", "data", "server", "links"].map(Tag::new);
    OpenApiBuilder::new()
        .info(info)
        .components(Some(components))
        .security(Some([needed]))
        .tags(Some(tags))
        .build()
}

/// Lets in who calls the server by its name and may do what he asks.
async fn guard(State(app): State<App>, mut request: Request, next: Next) -> Response {
    match admit(&app, &request) {
        Ok(claim) => {
            if let Some(claim) = claim {
                request.extensions_mut().insert(claim);
            }
            next.run(request).await
        }
        Err(problem) => Failure(problem).into_response(),
    }
}

/// Who calls; nobody for a route that is open to all.
fn admit(app: &App, request: &Request) -> Result<Option<Claim>, Problem> {
    app.hosts.check(request)?;
    let path = request.uri().path();
    if path == "/health" {
        return Ok(None);
    }
    let header = request.headers().get(axum::http::header::AUTHORIZATION);
    let token = auth::bearer(header.map(axum::http::HeaderValue::as_bytes))?;
    let claim = app.tokens.who(token);
    let claim =
        claim.ok_or_else(|| auth::unauthenticated("this server does not know that token"))?;
    if path != links::AGENT_PATH {
        claim.require_admin()?;
    }
    Ok(Some(claim))
}

async fn missing(request: Request) -> Failure {
    Failure(no_such_route(request.method(), request.uri().path()))
}
