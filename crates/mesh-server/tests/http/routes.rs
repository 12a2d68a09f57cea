//! Each route: what it answers when all is well, and word for word what it answers when not.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use mesh_api::http_client::TaskQuery;
use mesh_api::v1::{ClusterBody, SpecBody};
use serde_json::{Value, json};

use crate::{Fixture, agent};

pub(crate) fn cluster(name: &str) -> ClusterBody {
    serde_json::from_value(json!({"name": name})).unwrap()
}

pub(crate) fn job() -> SpecBody {
    serde_json::from_value(json!({"work": "job", "wait_for_growth": true})).unwrap()
}

/// The code, message and details of a refusal.
async fn refusal(fixture: &Fixture, method: &str, path: &str, body: &str) -> String {
    let (status, text) = fixture.raw(method, path, body).await;
    let problem: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status} {text}"));
    let details = problem.get("details").and_then(Value::as_array).cloned().unwrap_or_default();
    let details: Vec<&str> = details.iter().filter_map(Value::as_str).collect();
    let word = |key: &str| problem.get(key).and_then(Value::as_str).unwrap_or("-").to_owned();
    format!("{status} {}: {} {details:?}", word("code"), word("message"))
}

#[tokio::test]
async fn the_server_tells_how_it_is() {
    let fixture = Fixture::with(&[("queue-max", "77")]).await;
    let health = fixture.http.health().await.unwrap();
    assert_eq!((health.status.as_str(), health.version.as_str()), ("ok", "0.1.0"));
    let ready = fixture.http.ready().await.unwrap();
    assert_eq!((ready.ready, ready.why), (true, None));
    assert_eq!(ready.tasks.get("queued"), Some(&0));
    let config = fixture.http.config().await.unwrap();
    let queue = config.settings.iter().find(|setting| setting.key == "queue-max").unwrap();
    assert_eq!((queue.value.as_str(), queue.origin.as_str()), ("77", "--queue-max"));
    let metrics = fixture.http.metrics().await.unwrap();
    assert!(metrics.contains("# EOF") && metrics.contains("schedulemesh_"), "{metrics}");
    fixture.stop().await;
}

#[tokio::test]
async fn clusters_are_registered_changed_drained_and_forgotten() {
    let fixture = Fixture::start().await;
    let http = &fixture.http;
    let added = http.add_cluster(&cluster("a")).await.unwrap();
    assert_eq!((added.link.as_str(), added.spec.lost_after_ms), ("connecting", Some(1_000)));
    http.add_cluster(&cluster("a")).await.unwrap();
    let other = ClusterBody { weight: Some(2.0), ..cluster("a") };
    assert_eq!(http.add_cluster(&other).await.unwrap_err().code, "CLUSTER_EXISTS");
    assert_eq!(http.put_cluster(&other).await.unwrap().spec.weight, Some(2.0));
    http.put_cluster(&cluster("北京")).await.unwrap();
    let names: Vec<String> =
        http.clusters().await.unwrap().into_iter().map(|cluster| cluster.spec.name).collect();
    assert_eq!(names, ["a", "北京"]);
    assert!(http.drain_cluster("a", true).await.unwrap().draining);
    assert!(!http.drain_cluster("a", false).await.unwrap().draining);
    let (status, _body) = fixture.raw("POST", "/v1/clusters/a/drain", "").await;
    assert_eq!(status, 200, "an empty body drains");
    assert!(http.cluster("a").await.unwrap().draining);
    assert!(http.cluster_token("北京").await.unwrap().token.starts_with("sma_%"));
    http.remove_cluster("北京", false).await.unwrap();
    assert_eq!(http.cluster("北京").await.unwrap_err().code, "UNKNOWN_CLUSTER");
    fixture.stop().await;
}

#[tokio::test]
async fn a_test_of_a_cluster_tells_what_was_tried() {
    let fixture = Fixture::start().await;
    fixture.http.add_cluster(&cluster("a")).await.unwrap();
    let silent = fixture.http.test_cluster("a").await.unwrap();
    assert!(!silent.ok);
    let check = silent.checks.first().unwrap();
    assert_eq!(check.message, "cluster a has no linked agent at the moment");
    let token = fixture.http.cluster_token("a").await.unwrap().token;
    let _agent = agent::link(fixture.server.url(), &token, "a").await;
    let linked = fixture.http.test_cluster("a").await.unwrap();
    assert_eq!(
        (linked.ok, linked.checks.first().unwrap().message.as_str()),
        (true, "Ray 2.60.0 answers")
    );
    let cluster = fixture.http.cluster("a").await.unwrap();
    assert_eq!(cluster.link, "ready");
    assert_eq!(cluster.total.get("CPU"), Some(&4.0));
    fixture.stop().await;
}

#[tokio::test]
async fn blobs_and_code_come_back_as_they_went() {
    let fixture = Fixture::start().await;
    let pieces: Vec<Bytes> = (0..40_u8).map(|byte| Bytes::from(vec![byte; 100_000])).collect();
    let sent = stream::iter(pieces.clone().into_iter().map(Ok::<_, std::io::Error>));
    let blob = fixture.http.put_blob(sent).await.unwrap();
    assert_eq!(blob.size, 4_000_000);
    let mut received = Vec::new();
    let mut stream = Box::pin(fixture.http.blob(&blob.id).await.unwrap());
    while let Some(piece) = stream.next().await {
        received.extend_from_slice(&piece.unwrap());
    }
    assert!(received == pieces.concat(), "the bytes differ");
    let digest = fixture.http.put_code(Bytes::from_static(b"code")).await.unwrap();
    assert_eq!(digest, blake3::hash(b"code").to_hex().to_string());
    fixture.stop().await;
}

#[tokio::test]
async fn a_package_is_kept_once_under_its_digest() {
    let fixture = Fixture::start().await;
    let id: String = blake3::hash(b"folder").to_hex().chars().take(32).collect();
    let path = format!("/v1/packages/{id}");
    let absent = refusal(&fixture, "GET", &path, "").await;
    assert_eq!(absent, format!("404 UNKNOWN_BLOB: blob {id} is not here []"));
    let other = refusal(&fixture, "PUT", &path, "another").await;
    assert!(other.starts_with("422 INVALID: the 7 bytes are package "), "{other}");
    for _again in 0..2 {
        let pieces = [Ok::<_, std::io::Error>(Bytes::from_static(b"folder"))];
        let view = fixture.http.put_package(&id, stream::iter(pieces)).await.unwrap();
        assert_eq!((view.id.as_str(), view.size), (id.as_str(), 6));
    }
    assert_eq!(fixture.raw("GET", &path, "").await.0, 200);
    // Agents ask for it as they ask for any blob.
    let mut stream = Box::pin(fixture.http.blob(&id).await.unwrap());
    assert_eq!(stream.next().await.unwrap().unwrap().as_ref(), b"folder");
    fixture.stop().await;
}

#[tokio::test]
async fn tasks_are_listed_in_pages_and_by_what_they_are() {
    let fixture = Fixture::start().await;
    let tasks: Vec<Value> = (0..25)
        .map(|n| json!({"name": format!("n{}", n % 2), "job": {"entrypoint": "true"}}))
        .collect();
    let body = serde_json::from_value(json!({"specs": [job()], "tasks": tasks})).unwrap();
    fixture.http.submit(&body).await.unwrap();
    let query = TaskQuery { limit: Some(10), ..TaskQuery::default() };
    let page = fixture.http.tasks(&query).await.unwrap();
    assert_eq!((page.tasks.len(), page.next.as_deref()), (10, Some("t16")));
    assert_eq!(page.counts.get("queued"), Some(&25));
    let query = TaskQuery { limit: Some(100), before: page.next, ..TaskQuery::default() };
    let rest = fixture.http.tasks(&query).await.unwrap();
    assert_eq!((rest.tasks.len(), rest.next.as_deref()), (15, None));
    fixture.http.cancel("t3").await.unwrap();
    let query =
        TaskQuery { phases: vec!["cancelled".into(), "failed".into()], ..TaskQuery::default() };
    let ended = fixture.http.tasks(&query).await.unwrap().tasks;
    assert_eq!(ended.iter().map(|task| task.id.as_str()).collect::<Vec<_>>(), ["t3"]);
    let query = TaskQuery {
        phases: vec!["active".into()],
        name: Some("n1".into()),
        kind: Some("job".into()),
        ..TaskQuery::default()
    };
    assert_eq!(fixture.http.tasks(&query).await.unwrap().tasks.len(), 12);
    let query = TaskQuery { cluster: Some("nowhere".into()), ..TaskQuery::default() };
    assert_eq!(fixture.http.tasks(&query).await.unwrap().tasks.len(), 0);
    fixture.stop().await;
}

#[tokio::test]
async fn a_dry_run_says_where_a_task_would_go_and_changes_nothing() {
    let fixture = Fixture::start().await;
    let view = fixture.http.explain_spec(&job()).await.unwrap();
    assert_eq!((view.because.as_str(), view.clusters.len()), ("NO_CLUSTERS", 0));
    fixture.http.add_cluster(&cluster("a")).await.unwrap();
    let token = fixture.http.cluster_token("a").await.unwrap().token;
    let _agent = agent::link(fixture.server.url(), &token, "a").await;
    let view = fixture.http.explain_spec(&job()).await.unwrap();
    assert_eq!(view.message, "would start on cluster a now");
    let verdict = view.clusters.first().unwrap();
    assert!(verdict.fits && verdict.score.is_some(), "{verdict:?}");
    let big = SpecBody { resources: Some([("CPU".to_owned(), 64.0)].into()), ..job() };
    let view = fixture.http.explain_spec(&big).await.unwrap();
    assert_eq!(view.because, "INFEASIBLE");
    assert_eq!(
        view.clusters.first().unwrap().message,
        "its best node has CPU=4 in all: CPU=60 short"
    );
    assert_eq!(fixture.http.ready().await.unwrap().tasks.get("queued"), Some(&0));
    fixture.stop().await;
}

#[tokio::test]
async fn waiting_for_a_task_that_goes_on_ends_when_the_time_is_over() {
    let fixture = Fixture::start().await;
    let task = json!({"job": {"entrypoint": "true"}, "key": "k"});
    let body = serde_json::from_value(json!({"specs": [job()], "tasks": [task]})).unwrap();
    fixture.http.submit(&body).await.unwrap();
    let task = fixture.http.wait("key:k", Duration::from_millis(20)).await.unwrap();
    assert_eq!(task.phase, "queued");
    let problem = fixture.http.result("t1").await.unwrap_err();
    assert_eq!(problem.message, "task t1 has not ended, it is queued");
    fixture.stop().await;
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn bad_inputs_are_refused_with_the_exact_reason() {
    let fixture = Fixture::start().await;
    let cases = [
        ("GET", "/v1/nothing", "", "404 NO_SUCH_ROUTE: there is no GET /v1/nothing []"),
        ("DELETE", "/v1/tasks", "", "404 NO_SUCH_ROUTE: there is no DELETE /v1/tasks []"),
        ("GET", "/v1//tasks", "", "404 NO_SUCH_ROUTE: there is no GET /v1//tasks []"),
        ("GET", "/v1/tasks/t9", "", "404 UNKNOWN_TASK: task t9 is not known here []"),
        ("GET", "/v1/tasks/key:x", "", "404 UNKNOWN_TASK: no task of the key x is known here []"),
        ("GET", "/v1/tasks/x9", "", "422 INVALID: \"x9\": a task id looks like t42 []"),
        ("GET", "/v1/tasks/t9/explain", "", "404 UNKNOWN_TASK: task t9 is not known here []"),
        ("GET", "/v1/tasks/t9/result", "", "404 UNKNOWN_TASK: task t9 is not known here []"),
        ("GET", "/v1/tasks/t9/wait", "", "404 UNKNOWN_TASK: task t9 is not known here []"),
        ("GET", "/v1/tasks/t9/logs", "", "404 UNKNOWN_TASK: task t9 is not known here []"),
        ("POST", "/v1/tasks/t9/cancel", "", "404 UNKNOWN_TASK: task t9 is not known here []"),
        ("GET", "/v1/tasks?phase=lost", "", "422 INVALID: phase \"lost\" is unknown []"),
        ("GET", "/v1/tasks?kind=x", "", "422 INVALID: kind \"x\" is unknown []"),
        (
            "GET",
            "/v1/tasks?limit=x",
            "",
            "422 INVALID: the query is not what this route reads [\"limit: invalid digit found in string\"]",
        ),
        (
            "GET",
            "/v1/tasks?lmit=1",
            "",
            "422 INVALID: the query is not what this route reads [\"lmit: unknown field `lmit`, expected one \
          of `phase`, `cluster`, `kind`, `name`, `limit`, `before`\"]",
        ),
        (
            "POST",
            "/v1/tasks",
            "{",
            "422 INVALID: the body is not what this route reads [\"EOF while \
          parsing an object at line 1 column 1\"]",
        ),
        (
            "POST",
            "/v1/tasks",
            r#"{"specs": [{"work": "job", "retries": {"lost": -1}}], "tasks": []}"#,
            "422 INVALID: the body is not what this route reads [\"specs[0].retries.lost: invalid \
          value: integer `-1`, expected u16 at line 1 column 49\"]",
        ),
        (
            "POST",
            "/v1/clusters",
            r#"{"nam": "a"}"#,
            "422 INVALID: the body is not what this route reads [\"nam: unknown field `nam`, expected \
          one of `name`, `dashboard`, `agent`, `token`, `weight`, `prefer`, `tags`, `labels`, \
          `runtime_env`, `max_utilisation`, `max_tasks`, `job_interval_ms`, `lost_after_ms`, \
          `breaker_failures`, `breaker_recovery_ms` at line 1 column 6\"]",
        ),
        (
            "PUT",
            "/v1/clusters/a",
            r#"{"name": "b"}"#,
            "422 INVALID: the address names cluster \"a\", the body \"b\" []",
        ),
        ("GET", "/v1/clusters/x", "", "404 UNKNOWN_CLUSTER: cluster x is not registered []"),
        ("DELETE", "/v1/clusters/x", "", "404 UNKNOWN_CLUSTER: cluster x is not registered []"),
        ("POST", "/v1/clusters/x/drain", "", "404 UNKNOWN_CLUSTER: cluster x is not registered []"),
        ("POST", "/v1/clusters/x/test", "", "404 UNKNOWN_CLUSTER: cluster x is not registered []"),
        ("POST", "/v1/clusters/x/token", "", "404 UNKNOWN_CLUSTER: cluster x is not registered []"),
        (
            "GET",
            "/v1/clusters/a%1bb",
            "",
            "422 INVALID: the cluster's name \"a\\u{1b}b\" holds '\\u{1b}'; letters, digits and . _ - : \
          / are allowed []",
        ),
        ("GET", "/v1/blobs/x", "", "404 UNKNOWN_BLOB: \"x\" is not the id of a blob []"),
        ("PUT", "/v1/code/x", "", "422 INVALID: \"x\" is not a BLAKE3 digest []"),
        (
            "GET",
            "/v1/events?after=99",
            "",
            "422 INVALID: event 99 has not happened yet, the last one is 0 []",
        ),
        (
            "GET",
            "/v1/link/client",
            "",
            "422 INVALID: Connection header did not include 'upgrade' []",
        ),
    ];
    let mut wrong = Vec::new();
    for (method, path, body, expected) in cases {
        let found = refusal(&fixture, method, path, body).await;
        if found != expected {
            wrong.push(format!("{method} {path}\n  expected {expected}\n  found    {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let digest = blake3::hash(b"one").to_hex();
    let found = refusal(&fixture, "PUT", &format!("/v1/code/{digest}"), "two").await;
    assert!(found.starts_with("422 INVALID: the digest of the 3 bytes is "), "{found}");
    let large = "x".repeat(mesh_api::CODE_MAX + 1);
    let found = refusal(&fixture, "PUT", &format!("/v1/code/{digest}"), &large).await;
    assert!(found.starts_with("413 TOO_LARGE: the code has 8388609 bytes, 8388608 are"), "{found}");
    fixture.stop().await;
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused_and_a_blob_has_none() {
    let fixture = Fixture::with(&[("body-max", "1KiB")]).await;
    let large = "x".repeat(2_000);
    let found = refusal(&fixture, "POST", "/v1/tasks", &large).await;
    assert_eq!(found, "413 TOO_LARGE: the body is larger than body-max allows []");
    let (status, _answer) = fixture.raw("PUT", "/v1/blobs", &large).await;
    assert_eq!(status, 200);
    fixture.stop().await;
}

#[tokio::test]
async fn names_of_strangers_are_not_answered_to() {
    let fixture = Fixture::with(&[("allowed-hosts", "mesh.internal")]).await;
    let ask = |host: &'static str| {
        let request = crate::plain().get(format!("{}/health", fixture.server.url()));
        async move { request.header("host", host).send().await.unwrap().status().as_u16() }
    };
    assert_eq!(ask("evil.example").await, 403);
    assert_eq!(ask("mesh.internal:7420").await, 200);
    assert_eq!(ask("localhost").await, 200);
    fixture.stop().await;
}

#[tokio::test]
async fn clusters_of_a_file_are_there_from_the_start() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "clusters:\n  - {name: east, tags: [a]}\n  - name: west\n")
        .unwrap();
    let fixture = Fixture::with(&[("clusters-file", file.path().to_str().unwrap())]).await;
    let clusters = fixture.http.clusters().await.unwrap();
    let names: Vec<&str> = clusters.iter().map(|cluster| cluster.spec.name.as_str()).collect();
    assert_eq!(names, ["east", "west"]);
    std::fs::write(file.path(), "clusters:\n  - {name: east, tags: [b]}\n").unwrap();
    let Fixture { dir, server, http: _ } = fixture;
    server.shutdown().await;
    let flags = [("clusters-file", file.path().to_str().unwrap())];
    let server = mesh_server::Server::start(crate::config(dir.path(), &flags)).await.unwrap();
    let http =
        mesh_api::http_client::HttpClient::new(server.url(), Some(server.admin_token())).unwrap();
    assert_eq!(http.cluster("east").await.unwrap().spec.tags, ["b"], "the file's word counts");
    assert_eq!(http.clusters().await.unwrap().len(), 2, "what the file leaves out stays");
    server.shutdown().await;
}
