//! The client link, as the SDK speaks it.

use bytes::Bytes;
use futures_util::StreamExt as _;
use mesh_api::LINK_PROTOCOL;
use mesh_api::agent::{CodeFrame, DataFrame};
use mesh_api::client_link::{Accepted, EndedTask, FromClient, SubmitFrame, SubmitTask, ToClient};
use mesh_server::RunningServer;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::agent::{Agent, Socket, connect, raised, send};
use crate::support::{CODE, PATIENCE, add_cluster, function, serve, serve_with};

/// A client with a link.
struct Client {
    socket: Socket,
}

impl Client {
    async fn link(server: &RunningServer) -> Self {
        let mut socket = connect(server, "/v1/link/client", server.admin_token()).await;
        let version = "0.1.0".into();
        send(&mut socket, &FromClient::Hello { protocol: LINK_PROTOCOL, version }).await;
        let mut client = Self { socket };
        let welcome = client.hear().await;
        assert!(matches!(welcome, Some(ToClient::Welcome { .. })), "{welcome:?}");
        client
    }

    async fn hear(&mut self) -> Option<ToClient> {
        loop {
            let message = timeout(PATIENCE, self.socket.next()).await.expect("a frame in time");
            match message {
                Some(Ok(Message::Binary(bytes))) => match mesh_api::decode(&bytes).unwrap() {
                    ToClient::Heartbeat(_) => {}
                    frame => return Some(frame),
                },
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    async fn submit(&mut self, id: u64, keys: &[&str], payload: &Bytes) -> Vec<Accepted> {
        let digest = mesh_api::convert::digest_of(CODE).to_string();
        let task = |key: &&str| SubmitTask {
            spec: 0,
            key: (*key).into(),
            name: None,
            payload: DataFrame::Inline(payload.clone()),
        };
        let frame = SubmitFrame {
            id,
            specs: vec![function()],
            code: vec![CodeFrame { digest, bytes: CODE.into() }],
            tasks: keys.iter().map(task).collect(),
        };
        send(&mut self.socket, &FromClient::Submit(frame)).await;
        match self.hear().await {
            Some(ToClient::Accepted { id: answered, results }) if answered == id => results,
            other => panic!("{other:?}"),
        }
    }

    async fn ended(&mut self) -> Vec<EndedTask> {
        loop {
            match self.hear().await {
                Some(ToClient::Ended { tasks }) => return tasks,
                Some(ToClient::Started { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

fn number(accepted: &Accepted) -> u64 {
    match accepted {
        Accepted::Task { task, .. } => *task,
        Accepted::Error(problem) => panic!("{problem}"),
    }
}

#[tokio::test]
async fn a_client_is_told_of_results_and_failures_and_of_what_ended_while_it_was_away() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    add_cluster(server.handle(), "a").await;
    let mut agent = Agent::link(&server, "a").await;
    let mut client = Client::link(&server).await;
    let accepted = client.submit(1, &["k1", "k2"], &"x".into()).await;
    agent.echo(1).await;
    let start = agent.start().await;
    agent.report(&start, raised("no such thing")).await;
    let mut ended = client.ended().await;
    while ended.len() < 2 {
        ended.extend(client.ended().await);
    }
    assert_eq!((ended[0].task, ended[0].outcome.as_str()), (number(&accepted[0]), "succeeded"));
    assert_eq!(ended[0].result, DataFrame::Inline("x".into()));
    assert_eq!(ended[0].cluster.as_deref(), Some("a"));
    assert_eq!(ended[1].outcome, "failed");
    assert_eq!(ended[1].error.as_ref().unwrap().traceback, "Traceback (most recent call last)");
    assert_eq!(ended[1].result, DataFrame::Inline("pickle".into()));

    let third = number(&client.submit(2, &["k3"], &"y".into()).await[0]);
    drop(client);
    agent.echo(1).await;
    crate::support::end_of(server.handle(), mesh_core::model::id::TaskId(third)).await;
    let mut client = Client::link(&server).await;
    let tasks = vec![third, 999_999];
    send(&mut client.socket, &FromClient::Watch { tasks }).await;
    let known = client.ended().await;
    assert_eq!((known[0].task, &known[0].result), (third, &DataFrame::Inline("y".into())));
    let unknown = client.ended().await;
    assert_eq!((unknown[0].task, unknown[0].outcome.as_str()), (999_999, "unknown"));
    server.shutdown().await;
}

#[tokio::test]
async fn what_is_submitted_again_after_it_ended_is_answered_with_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    add_cluster(server.handle(), "a").await;
    let mut agent = Agent::link(&server, "a").await;
    let mut client = Client::link(&server).await;
    let first = number(&client.submit(1, &["k"], &"x".into()).await[0]);
    agent.echo(1).await;
    client.ended().await;
    let again = client.submit(2, &["k"], &"x".into()).await;
    assert_eq!(again, [Accepted::Task { task: first, replayed: true }]);
    assert_eq!(client.ended().await[0].result, DataFrame::Inline("x".into()));
    server.shutdown().await;
}

#[tokio::test]
async fn mistakes_are_answered_task_by_task_and_cancellations_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    add_cluster(server.handle(), "a").await;
    let mut client = Client::link(&server).await;
    let results = client.submit(1, &["good", ""], &"x".into()).await;
    let good = number(&results[0]);
    let Accepted::Error(problem) = &results[1] else { panic!("{results:?}") };
    assert_eq!(problem.details, ["key: is empty"]);
    let tasks = vec![good, 77];
    send(&mut client.socket, &FromClient::Cancel { id: 9, tasks }).await;
    let (mut errors, mut ended) = (None, None);
    while errors.is_none() || ended.is_none() {
        match client.hear().await {
            Some(ToClient::Cancelled { id: 9, errors: answered }) => errors = Some(answered),
            Some(ToClient::Ended { tasks }) => ended = Some(tasks),
            other => panic!("{other:?}"),
        }
    }
    let errors = errors.unwrap();
    assert_eq!(errors[0], None);
    assert_eq!(errors[1].as_ref().unwrap().code, "UNKNOWN_TASK");
    assert_eq!(ended.unwrap()[0].outcome, "cancelled");
    server.shutdown().await;
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_every_result_in_the_end() {
    const TASKS: usize = 300;
    let dir = tempfile::tempdir().unwrap();
    // Its agent says nothing for longer than usual.
    let patient = |config: &mut mesh_server::config::Config| config.heartbeat = PATIENCE;
    let server = serve_with(dir.path(), patient).await;
    add_cluster(server.handle(), "a").await;
    let mut agent = Agent::link(&server, "a").await;
    let mut client = Client::link(&server).await;
    let payload = Bytes::from(vec![7; 200 << 10]);
    for n in 0..TASKS / 50 {
        let keys: Vec<String> = (0..50).map(|m| format!("k{n}-{m}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        // Nothing runs yet: the only frames are answers.
        client.submit(u64::try_from(n).unwrap(), &keys, &payload).await;
    }
    // Sixty megabytes of results, while the client reads nothing at all.
    agent.echo(TASKS).await;
    let mut last = 0;
    while last < TASKS {
        last += client.ended().await.iter().map(|ended| check(ended, &payload)).sum::<usize>();
    }
    server.shutdown().await;
}

fn check(ended: &EndedTask, payload: &Bytes) -> usize {
    assert_eq!(ended.outcome, "succeeded");
    assert!(ended.result == DataFrame::Inline(payload.clone()), "the whole result");
    1
}

#[tokio::test]
async fn a_client_that_makes_no_sense_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    let mut socket = connect(&server, "/v1/link/client", server.admin_token()).await;
    send(&mut socket, &FromClient::Watch { tasks: vec![] }).await;
    let mut client = Client { socket };
    let Some(ToClient::Refused(problem)) = client.hear().await else { panic!("a refusal") };
    assert_eq!(problem.message, "the first frame must be a hello");
    assert_eq!(client.hear().await, None, "and the link is closed");
    server.shutdown().await;
}
