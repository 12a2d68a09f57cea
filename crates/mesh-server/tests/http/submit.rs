//! Submissions over HTTP, from the body to the result.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use mesh_api::client_link::FailureRecord;
use mesh_api::v1::SubmitBody;
use serde_json::{Value, json};

use crate::routes::cluster;
use crate::{Fixture, agent};

const LONG: Duration = Duration::from_secs(20);

fn submission(code: &str, tasks: &[Value]) -> SubmitBody {
    let spec = json!({"work": {"function": {"code": code}}});
    serde_json::from_value(json!({"specs": [spec], "tasks": tasks})).unwrap()
}

async fn linked() -> (Fixture, tokio::task::JoinHandle<()>, String) {
    let fixture = Fixture::start().await;
    fixture.http.add_cluster(&cluster("a")).await.unwrap();
    let token = fixture.http.cluster_token("a").await.unwrap().token;
    let agent = agent::link(fixture.server.url(), &token, "a").await;
    let code = fixture.http.put_code(Bytes::from_static(b"the code")).await.unwrap();
    (fixture, agent, code)
}

#[tokio::test]
async fn a_task_goes_to_its_cluster_and_its_result_comes_back() {
    let (fixture, _agent, code) = linked().await;
    let task = json!({"key": "k1", "name": "first", "payload": STANDARD.encode("arguments")});
    let answer = fixture.http.submit(&submission(&code, &[task])).await.unwrap();
    let accepted = answer.results.first().unwrap();
    assert_eq!((accepted.id.as_deref(), accepted.key.as_deref()), (Some("t1"), Some("k1")));
    let task = fixture.http.wait("t1", LONG).await.unwrap();
    assert_eq!((task.phase.as_str(), task.cluster.as_deref()), ("succeeded", Some("a")));
    assert_eq!((task.kind.as_str(), task.attempt, task.result_bytes), ("function", 1, Some(9)));
    let result = fixture.http.result("key:k1").await.unwrap();
    assert_eq!((result.outcome.as_str(), result.size), ("succeeded", Some(9)));
    assert_eq!(result.bytes().await.unwrap().as_ref(), b"arguments");
    assert_eq!(fixture.http.logs("t1", None).await.unwrap(), "task 1 says hi\n");
    assert_eq!(fixture.http.explain("t1").await.unwrap().because, "ENDED");
    fixture.stop().await;
}

#[tokio::test]
async fn a_failure_comes_back_with_its_traceback() {
    let (fixture, _agent, code) = linked().await;
    let task = json!({"payload": STANDARD.encode("raise")});
    fixture.http.submit(&submission(&code, &[task])).await.unwrap();
    let task = fixture.http.wait("t1", LONG).await.unwrap();
    assert_eq!(task.phase, "failed");
    assert_eq!(task.error.unwrap().cause, "raised");
    let result = fixture.http.result("t1").await.unwrap();
    assert_eq!(result.outcome, "failed");
    let record: FailureRecord = mesh_api::decode(&result.bytes().await.unwrap()).unwrap();
    assert_eq!(record.error.traceback, "Traceback ...");
    assert_eq!(record.pickle.as_ref(), b"pickled");
    fixture.stop().await;
}

#[tokio::test]
async fn large_arguments_and_results_travel_as_blobs() {
    let (fixture, _agent, code) = linked().await;
    let bytes = Bytes::from(vec![7_u8; 3_000_000]);
    let sent = futures_util::stream::iter([Ok::<_, std::io::Error>(bytes.clone())]);
    let blob = fixture.http.put_blob(sent).await.unwrap();
    fixture.http.submit(&submission(&code, &[json!({"blob": blob.id})])).await.unwrap();
    let task = fixture.http.wait("t1", LONG).await.unwrap();
    assert_eq!((task.payload_bytes, task.result_bytes), (3_000_000, Some(3_000_000)));
    let result = fixture.http.result("t1").await.unwrap();
    assert_eq!(result.size, Some(3_000_000));
    assert!(result.bytes().await.unwrap() == bytes, "the bytes differ");
    fixture.stop().await;
}

#[tokio::test]
async fn in_a_batch_each_task_has_its_own_answer() {
    let (fixture, _agent, code) = linked().await;
    let tasks = [
        json!({"key": "same"}),
        json!({"key": "same"}),
        json!({"key": "same", "payload": STANDARD.encode("other")}),
        json!({"spec": 7}),
        json!({"payload": "not base64"}),
        json!({"blob": "00000000000000000000000000000000"}),
        json!({"key": "last"}),
    ];
    let answer = fixture.http.submit(&submission(&code, &tasks)).await.unwrap();
    let told: Vec<String> = answer
        .results
        .iter()
        .map(|result| match (&result.id, &result.error) {
            (Some(id), None) => format!("{id} replayed={}", result.replayed),
            (None, Some(problem)) => problem.code.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        "t1 replayed=false",
        "t1 replayed=true",
        "KEY_CONFLICT",
        "INVALID",
        "INVALID",
        "UNKNOWN_BLOB",
        "t2 replayed=false",
    ];
    assert_eq!(told, expected);
    fixture.stop().await;
}

#[tokio::test]
async fn code_that_was_not_uploaded_is_asked_for() {
    let (fixture, _agent, _code) = linked().await;
    let unknown = blake3::hash(b"never uploaded").to_hex();
    let answer = fixture.http.submit(&submission(&unknown, &[json!({})])).await.unwrap();
    let problem = answer.results.first().unwrap().error.clone().unwrap();
    assert_eq!(problem.code, "UNKNOWN_CODE");
    fixture.stop().await;
}
