//! Routes about the server itself.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use mesh_api::problem::Problem;
use mesh_api::v1::{ConfigView, HealthView, ReadyView};

use super::App;
use super::failure::Answer;
use super::view;

/// Whether the server runs at all. The only route that needs no token.
#[utoipa::path(
    get, path = "/health", tag = "server", security(()),
    responses((status = 200, description = "It runs", body = HealthView))
)]
pub(crate) async fn health(State(app): State<App>) -> Json<HealthView> {
    Json(HealthView {
        status: "ok".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_s: app.started.elapsed().as_secs_f64(),
    })
}

/// Whether work is accepted, and how much there is.
#[utoipa::path(
    get, path = "/ready", tag = "server",
    responses((status = 200, description = "Work is accepted", body = ReadyView),
              (status = 503, description = "It is not, and why", body = ReadyView),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json"))
)]
pub(crate) async fn ready(State(app): State<App>) -> Answer<(StatusCode, Json<ReadyView>)> {
    let (tasks, clusters) = app
        .handle
        .read(|mesh, _now| {
            let mut clusters = BTreeMap::new();
            for cluster in mesh.clusters() {
                *clusters.entry(cluster.link.word().to_owned()).or_insert(0) += 1;
            }
            (view::counts(mesh), clusters)
        })
        .await?;
    let status = app.handle.status();
    let code = match status.trouble {
        None => StatusCode::OK,
        Some(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let ready = status.trouble.is_none();
    let view = ReadyView { ready, why: status.trouble, seq: status.seq, tasks, clusters };
    Ok((code, Json(view)))
}

/// How the server was set up, and where each value came from.
#[utoipa::path(
    get, path = "/v1/config", tag = "server",
    responses((status = 200, description = "The settings", body = ConfigView),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json"))
)]
pub(crate) async fn config(State(app): State<App>) -> Json<ConfigView> {
    Json(app.config.view())
}

/// The metrics, for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "server",
    responses((status = 200, description = "The text format of OpenMetrics", body = String,
               content_type = "application/openmetrics-text"),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json"))
)]
pub(crate) async fn metrics(State(app): State<App>) -> Answer<impl IntoResponse> {
    let form = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, form)], app.handle.metrics().await?))
}

/// This document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "server",
    responses((status = 200, description = "The OpenAPI document", body = Object))
)]
pub(crate) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(super::document())
}
