//! Agents are started through the Jobs API: against a small dashboard that behaves like Ray's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use mesh_api::v1::{ClusterBody, ClusterView};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::routes::cluster;
use crate::{Fixture, agent};

/// A dashboard whose jobs link an agent, or end at once with this line in their log.
#[derive(Default)]
struct Dashboard {
    packages: BTreeMap<String, Bytes>,
    jobs: Vec<Value>,
    stopped: Vec<String>,
    fails_with: Option<String>,
    token: Option<String>,
}

#[derive(Clone)]
struct Fake {
    state: Arc<Mutex<Dashboard>>,
    changed: watch::Sender<usize>,
}

impl Fake {
    async fn start(state: Dashboard) -> (String, Self) {
        let fake = Self { state: Arc::new(Mutex::new(state)), changed: watch::Sender::new(0) };
        let router = Router::new()
            .route("/api/version", get(version))
            .route("/api/jobs/", get(list).post(submit))
            .route("/api/jobs/{id}/logs", get(logs))
            .route("/api/jobs/{id}/stop", post(stop))
            .route("/api/packages/gcs/{name}", get(known).put(upload))
            .layer(axum::middleware::from_fn_with_state(fake.clone(), check))
            .with_state(fake.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (url, fake)
    }

    /// Waits until so many jobs were submitted.
    async fn submitted(&self, count: usize) -> Vec<Value> {
        self.changed.subscribe().wait_for(|jobs| *jobs >= count).await.unwrap();
        self.state.lock().unwrap().jobs.clone()
    }
}

async fn check(
    State(fake): State<Fake>,
    headers: HeaderMap,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Result<axum::response::Response, (StatusCode, &'static str)> {
    let needed = fake.state.lock().unwrap().token.clone().map(|token| format!("Bearer {token}"));
    let given = headers.get("x-ray-authorization").and_then(|value| value.to_str().ok());
    match needed {
        Some(needed) if given != Some(&needed) => Err((StatusCode::UNAUTHORIZED, "no token")),
        _ => Ok(next.run(request).await),
    }
}

async fn version() -> Json<Value> {
    Json(json!({"version": "4", "ray_version": "2.60.0", "session_name": "s"}))
}

async fn list(State(fake): State<Fake>) -> Json<Value> {
    let mut jobs = fake.state.lock().unwrap().jobs.clone();
    jobs.push(
        json!({"type": "DRIVER", "submission_id": null, "status": "RUNNING", "entrypoint": ""}),
    );
    Json(Value::Array(jobs))
}

async fn submit(
    State(fake): State<Fake>,
    Json(mut job): Json<Value>,
) -> Result<Json<Value>, (StatusCode, &'static str)> {
    let text =
        |job: &Value, path: &str| job.pointer(path).and_then(Value::as_str).unwrap().to_owned();
    let package = text(&job, "/runtime_env/working_dir");
    let entrypoint = text(&job, "/entrypoint");
    let token = text(&job, "/runtime_env/env_vars/SCHEDULEMESH_TOKEN");
    let mut state = fake.state.lock().unwrap();
    if !state.packages.contains_key(package.trim_start_matches("gcs://")) {
        return Err((StatusCode::INTERNAL_SERVER_ERROR, "no such package"));
    }
    let fails = state.fails_with.is_some();
    let words: Vec<String> = entrypoint.split(' ').map(str::to_owned).collect();
    let after = |flag: &str| {
        let at = words.iter().position(|word| word == flag).unwrap();
        words[at + 1].clone()
    };
    let (server, name) = (after("--server"), after("--cluster"));
    job["status"] = json!(if fails { "FAILED" } else { "RUNNING" });
    state.jobs.push(job);
    let count = state.jobs.len();
    drop(state);
    fake.changed.send_replace(count);
    if !fails {
        tokio::spawn(async move { drop(agent::link(&server, &token, &name).await) });
    }
    Ok(Json(json!({"submission_id": "as said"})))
}

async fn logs(State(fake): State<Fake>, Path(_id): Path<String>) -> Json<Value> {
    let line = fake.state.lock().unwrap().fails_with.clone().unwrap_or_default();
    Json(json!({"logs": format!("first line\n{line}\n")}))
}

async fn stop(State(fake): State<Fake>, Path(id): Path<String>) -> Json<Value> {
    let mut state = fake.state.lock().unwrap();
    for job in state.jobs.iter_mut().filter(|job| job["submission_id"] == id.as_str()) {
        job["status"] = json!("STOPPED");
    }
    state.stopped.push(id);
    Json(json!({"stopped": true}))
}

async fn known(State(fake): State<Fake>, Path(name): Path<String>) -> (StatusCode, Bytes) {
    match fake.state.lock().unwrap().packages.get(&name) {
        Some(bytes) => (StatusCode::OK, bytes.clone()),
        None => (StatusCode::NOT_FOUND, Bytes::new()),
    }
}

async fn upload(State(fake): State<Fake>, Path(name): Path<String>, bytes: Bytes) {
    fake.state.lock().unwrap().packages.insert(name, bytes);
}

fn with_dashboard(name: &str, dashboard: &str) -> ClusterBody {
    ClusterBody { dashboard: Some(dashboard.to_owned()), ..cluster(name) }
}

/// The cluster, as soon as it is as wanted: told by the stream of events, or by looking again.
async fn until(
    fixture: &Fixture,
    name: &str,
    wanted: impl Fn(&ClusterView) -> bool,
) -> ClusterView {
    let looked = async {
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(20));
        loop {
            tick.tick().await;
            let view = fixture.http.cluster(name).await.unwrap();
            if wanted(&view) {
                return view;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), looked).await.unwrap()
}

#[tokio::test]
async fn a_cluster_with_a_dashboard_is_given_an_agent() {
    let (url, fake) = Fake::start(Dashboard::default()).await;
    let fixture = Fixture::start().await;
    fixture.http.add_cluster(&with_dashboard("east/1", &url)).await.unwrap();
    let jobs = fake.submitted(1).await;
    let job = jobs.first().unwrap();
    let id = job["submission_id"].as_str().unwrap();
    assert!(id.starts_with("sm-agent-east-1-") && id.ends_with("-1"), "{id}");
    let server = fixture.server.url();
    let expected = format!(
        "python -m schedulemesh.agent --server {server} --cluster east/1 --ray-address auto"
    );
    assert_eq!(job["entrypoint"], expected);
    let linked = until(&fixture, "east/1", |cluster| cluster.link == "ready").await;
    assert_eq!(linked.trouble, None);
    let test = fixture.http.test_cluster("east/1").await.unwrap();
    let told: Vec<&str> = test.checks.iter().map(|check| check.message.as_str()).collect();
    assert_eq!(told, [&format!("Ray 2.60.0 at {url}"), "Ray 2.60.0 answers"]);
    assert_eq!(fake.state.lock().unwrap().jobs.len(), 1, "one agent is enough");
    fixture.stop().await;
}

#[tokio::test]
async fn an_agent_that_ends_is_started_again_and_its_last_words_are_shown() {
    let last = "No module named ray";
    let state = Dashboard { fails_with: Some(last.to_owned()), ..Dashboard::default() };
    let (url, fake) = Fake::start(state).await;
    let fixture = Fixture::start().await;
    fixture.http.add_cluster(&with_dashboard("a", &url)).await.unwrap();
    let shown = until(&fixture, "a", |cluster| cluster.trouble.is_some()).await.trouble.unwrap();
    assert!(shown.contains("-1 ended as FAILED: No module named ray; see its log"), "{shown}");
    fake.state.lock().unwrap().fails_with = None;
    let jobs = fake.submitted(2).await;
    assert!(jobs.last().unwrap()["submission_id"].as_str().unwrap().ends_with("-2"));
    let linked = until(&fixture, "a", |cluster| cluster.link == "ready").await;
    assert!(
        linked.trouble.is_none()
            || until(&fixture, "a", |c| c.trouble.is_none()).await.trouble.is_none()
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_server_that_moved_starts_its_agent_anew_and_stops_the_one_that_dials_the_old_place() {
    let (url, fake) = Fake::start(Dashboard::default()).await;
    let fixture = Fixture::start().await;
    fixture.http.add_cluster(&with_dashboard("a", &url)).await.unwrap();
    let first = fake.submitted(1).await;
    until(&fixture, "a", |cluster| cluster.link == "ready").await;
    let Fixture { dir, server, http: _ } = fixture;
    server.shutdown().await;
    let server = mesh_server::Server::start(crate::config(dir.path(), &[])).await.unwrap();
    let jobs = fake.submitted(2).await;
    let moved = jobs.last().unwrap()["entrypoint"].as_str().unwrap().to_owned();
    assert!(moved.contains(server.url()), "{moved}");
    let stopped = fake.state.lock().unwrap().stopped.clone();
    assert_eq!(stopped, [first.first().unwrap()["submission_id"].as_str().unwrap()]);
    server.shutdown().await;
}

#[tokio::test]
async fn a_dashboard_that_wants_a_token_is_given_it_and_its_absence_is_explained() {
    let state = Dashboard { token: Some("ray-secret".to_owned()), ..Dashboard::default() };
    let (url, fake) = Fake::start(state).await;
    let fixture = Fixture::start().await;
    fixture.http.add_cluster(&with_dashboard("a", &url)).await.unwrap();
    let shown = until(&fixture, "a", |cluster| cluster.trouble.is_some()).await.trouble.unwrap();
    assert!(
        shown.contains("answered 401 Unauthorized: no token; say where Ray's token is"),
        "{shown}"
    );
    let file = fixture.dir.path().join("ray-token");
    std::fs::write(&file, "ray-secret\n").unwrap();
    let token = Some(format!("file:{}", file.display()));
    let body = ClusterBody { token, ..with_dashboard("a", &url) };
    fixture.http.put_cluster(&body).await.unwrap();
    fake.submitted(1).await;
    until(&fixture, "a", |cluster| cluster.link == "ready").await;
    fixture.stop().await;
}

#[tokio::test]
async fn a_dashboard_that_is_not_there_is_named() {
    let fixture = Fixture::start().await;
    fixture.http.add_cluster(&with_dashboard("a", "http://127.0.0.1:1")).await.unwrap();
    let shown = until(&fixture, "a", |cluster| cluster.trouble.is_some()).await.trouble.unwrap();
    assert!(shown.starts_with("dashboard http://127.0.0.1:1/ does not answer: "), "{shown}");
    fixture.stop().await;
}

#[tokio::test]
async fn the_agent_of_a_removed_cluster_is_stopped() {
    let (url, fake) = Fake::start(Dashboard::default()).await;
    let fixture = Fixture::start().await;
    fixture.http.add_cluster(&with_dashboard("a", &url)).await.unwrap();
    until(&fixture, "a", |cluster| cluster.link == "ready").await;
    let jobs = fake.submitted(1).await;
    fixture.http.remove_cluster("a", true).await.unwrap();
    let stopped = async {
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(50));
        while fake.state.lock().unwrap().stopped.is_empty() {
            tick.tick().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), stopped).await.unwrap();
    let stopped = fake.state.lock().unwrap().stopped.clone();
    assert_eq!(stopped, [jobs.first().unwrap()["submission_id"].as_str().unwrap()]);
    fixture.stop().await;
}
