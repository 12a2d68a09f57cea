//! The stream of events: nothing is missed, wherever it is taken up again.

use mesh_api::http_client::EventStream;
use mesh_api::v1::EventView;
use serde_json::json;

use crate::Fixture;
use crate::routes::{cluster, job};

async fn take(stream: &mut EventStream, count: usize) -> Vec<EventView> {
    let mut events = Vec::new();
    while events.len() < count {
        events.push(stream.next().await.unwrap().unwrap());
    }
    events
}

async fn submit(fixture: &Fixture, count: usize) {
    let tasks = vec![json!({"job": {"entrypoint": "true"}}); count];
    let body = serde_json::from_value(json!({"specs": [job()], "tasks": tasks})).unwrap();
    fixture.http.submit(&body).await.unwrap();
}

#[tokio::test]
async fn a_stream_is_resumed_after_any_event_without_a_gap() {
    let fixture = Fixture::start().await;
    fixture.http.add_cluster(&cluster("a")).await.unwrap();
    submit(&fixture, 50).await;
    let last = usize::try_from(fixture.http.ready().await.unwrap().seq).unwrap();
    let mut all = fixture.http.events(Some(0)).await.unwrap();
    let whole = take(&mut all, last).await;
    let first = whole.first().unwrap();
    assert_eq!(
        (first.kind.as_str(), first.message.as_str()),
        ("cluster_added", "cluster a was registered")
    );
    assert!(whole.iter().map(|event| event.seq).eq(1..=fixture.http.ready().await.unwrap().seq));
    for after in [1, 2, 17, last - 1] {
        let mut resumed = fixture.http.events(Some(u64::try_from(after).unwrap())).await.unwrap();
        let rest = take(&mut resumed, last - after).await;
        assert_eq!(Some(rest.as_slice()), whole.get(after..));
    }
    // What comes later comes to a stream that is open.
    submit(&fixture, 1).await;
    let next = take(&mut all, 1).await;
    assert_eq!(next.first().map(|event| event.seq), Some(u64::try_from(last).unwrap() + 1));
    fixture.stop().await;
}

#[tokio::test]
async fn a_restarted_server_continues_the_stream() {
    let fixture = Fixture::start().await;
    submit(&fixture, 5).await;
    let seq = fixture.http.ready().await.unwrap().seq;
    let Fixture { dir, server, http: _ } = fixture;
    server.shutdown().await;
    let server = mesh_server::Server::start(crate::config(dir.path(), &[])).await.unwrap();
    let http =
        mesh_api::http_client::HttpClient::new(server.url(), Some(server.admin_token())).unwrap();
    let mut events = http.events(Some(seq - 1)).await.unwrap();
    assert_eq!(take(&mut events, 1).await.first().map(|event| event.seq), Some(seq));
    server.shutdown().await;
    // A server that stops ends its streams rather than leaving them hanging.
    while let Ok(Some(_later)) = events.next().await {}
}

#[tokio::test]
async fn last_event_id_counts_more_than_the_query() {
    let fixture = Fixture::start().await;
    submit(&fixture, 5).await;
    let answer = crate::plain()
        .get(format!("{}/v1/events?after=0", fixture.server.url()))
        .bearer_auth(fixture.server.admin_token())
        .header("last-event-id", "3")
        .send();
    let mut answer = answer.await.unwrap();
    assert_eq!(answer.headers().get("content-type").unwrap(), "text/event-stream");
    let mut text = String::new();
    while !text.contains("\n\n") {
        text.push_str(&String::from_utf8_lossy(&answer.chunk().await.unwrap().unwrap()));
    }
    assert!(text.starts_with("id: 4\n"), "{text}");
    drop(answer);
    fixture.stop().await;
}
