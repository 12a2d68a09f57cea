//! Tasks, from submission to result.

use mesh_core::Command;
use mesh_core::model::task::{Cause, Data, Outcome};
use mesh_store::Side;

use crate::agent::{Agent, finished, hello, raised};
use crate::support::{
    CODE, add_cluster, end_of, function, put_code, serve, serve_with, submit, submit_function, task,
};

#[tokio::test]
async fn a_function_runs_and_its_result_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    let handle = server.handle().clone();
    add_cluster(&handle, "a").await;
    let digest = put_code(&handle).await;
    let mut agent = Agent::link(&server, "a").await;

    let id = submit_function(&handle, "k1", "arguments").await;
    let start = agent.start().await;
    assert_eq!((start.task, start.attempt), (id.0, 1));
    assert_eq!(agent.code(&digest).unwrap().as_ref(), CODE);
    agent.report_durably(&start, finished("value")).await;

    let end = end_of(&handle, id).await;
    assert_eq!((end.outcome, end.result), (Outcome::Succeeded, Data::Inline(5)));
    let result = handle.data(id, Side::Result).await.unwrap().unwrap();
    assert_eq!(result.as_ref(), b"value");
    assert_eq!(handle.data(id, Side::Payload).await.unwrap(), None, "arguments are given up");
    server.shutdown().await;
}

#[tokio::test]
async fn the_same_key_is_the_same_task_and_another_body_is_a_conflict() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    let handle = server.handle().clone();
    add_cluster(&handle, "a").await;
    put_code(&handle).await;
    let first = submit(&handle, task(&function(), "k", "x")).await;
    let again = submit(&handle, task(&function(), "k", "x")).await;
    assert_eq!((again.task, first.replayed, again.replayed), (first.task, false, true));
    let other = handle.submit(vec![task(&function(), "k", "y")]).await.unwrap().remove(0);
    assert_eq!(other.unwrap_err().code, "KEY_CONFLICT");
    server.shutdown().await;
}

#[tokio::test]
async fn a_failure_carries_its_traceback_and_is_not_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    let handle = server.handle().clone();
    add_cluster(&handle, "a").await;
    put_code(&handle).await;
    let mut agent = Agent::link(&server, "a").await;
    let id = submit_function(&handle, "k", "x").await;
    let start = agent.start().await;
    agent.report(&start, raised("no such thing")).await;
    let Outcome::Failed(failure) = end_of(&handle, id).await.outcome else { panic!("it failed") };
    assert_eq!(failure.cause, Cause::Raised);
    assert_eq!(failure.message.as_ref(), "ValueError: no such thing");
    let record = handle.data(id, Side::Result).await.unwrap().unwrap();
    let record: mesh_api::client_link::FailureRecord = mesh_api::decode(&record).unwrap();
    assert_eq!(record.pickle.as_ref(), b"pickle");
    assert_eq!(record.error.traceback, "Traceback (most recent call last)");
    server.shutdown().await;
}

#[tokio::test]
async fn a_cancelled_task_is_stopped_where_it_runs_or_never_starts() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    let handle = server.handle().clone();
    add_cluster(&handle, "a").await;
    put_code(&handle).await;
    let queued = submit_function(&handle, "never", "x").await;
    handle.command(Command::Cancel(queued)).await.unwrap();
    assert_eq!(end_of(&handle, queued).await.outcome, Outcome::Cancelled);

    let mut agent = Agent::link(&server, "a").await;
    let running = submit_function(&handle, "running", "x").await;
    let start = agent.start().await;
    assert_eq!(start.task, running.0, "the cancelled one was not sent");
    agent.report_durably(&start, mesh_api::agent::Happened::Started).await;
    handle.command(Command::Cancel(running)).await.unwrap();
    let stop = agent.stop().await;
    assert_eq!((stop.task, stop.attempt), (start.task, start.attempt));
    agent.report(&start, mesh_api::agent::Happened::Stopped { run_us: 5 }).await;
    assert_eq!(end_of(&handle, running).await.outcome, Outcome::Cancelled);
    server.shutdown().await;
}

#[tokio::test]
async fn code_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    let refused = server.handle().submit(vec![task(&function(), "k", "x")]).await.unwrap();
    let problem = refused.into_iter().next().unwrap().unwrap_err();
    let digest = mesh_api::convert::digest_of(CODE);
    assert_eq!(problem.code, "UNKNOWN_CODE");
    assert_eq!(problem.message, format!("the code {digest} is not here"));
    server.shutdown().await;
}

#[tokio::test]
async fn a_thousand_submitters_at_once_are_each_answered_with_their_own_task() {
    const SUBMITTERS: usize = 1_000;
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    let handle = server.handle().clone();
    add_cluster(&handle, "a").await;
    put_code(&handle).await;
    let submitted: Vec<_> = (0..SUBMITTERS)
        .map(|n| {
            let handle = handle.clone();
            tokio::spawn(async move {
                (n, submit_function(&handle, &format!("k{n}"), &format!("value {n}")).await)
            })
        })
        .collect();
    let mut agent = Agent::link(&server, "a").await;
    agent.echo(SUBMITTERS).await;
    let mut ids = std::collections::BTreeSet::new();
    for submitted in submitted {
        let (n, id) = submitted.await.unwrap();
        assert_eq!(end_of(&handle, id).await.outcome, Outcome::Succeeded);
        let result = handle.data(id, Side::Result).await.unwrap().unwrap();
        assert_eq!(result.as_ref(), format!("value {n}").as_bytes());
        ids.insert(id);
    }
    assert_eq!(ids.len(), SUBMITTERS);
    server.shutdown().await;
}

#[tokio::test]
async fn a_lease_keeps_its_resources_when_its_first_task_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve_with(dir.path(), |config| config.ended_max = 1).await;
    let handle = server.handle().clone();
    add_cluster(&handle, "a").await;
    put_code(&handle).await;
    let mut agent = Agent::link_as(&server, hello("a", 1.0)).await.unwrap();
    let titled = |title: &str| mesh_api::v1::SpecBody { title: Some(title.into()), ..function() };
    let (first, rest) = (titled("first"), titled("rest"));
    let warm = submit(&handle, task(&first, "warm", "x")).await.task;
    agent.echo(1).await;
    end_of(&handle, warm).await; // from now on it is known how long such tasks run
    submit(&handle, task(&first, "first", "x")).await;
    let mut busy = agent.start().await;
    let lease = busy.lease;
    for n in 0..5 {
        // Handed out behind the one that is busy, so that the lease goes on when that one ends. The
        // agent of this test looks at the resources of every lease that it is sent.
        submit(&handle, task(&rest, &format!("k{n}"), "x")).await;
        let next = agent.start().await;
        assert_eq!(next.lease, lease, "they share a lease");
        agent.report_durably(&busy, finished("x")).await;
        busy = next;
    }
    server.shutdown().await;
}
