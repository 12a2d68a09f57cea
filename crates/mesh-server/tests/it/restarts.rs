//! What is accepted survives the end of the control plane.

use mesh_core::model::task::{Cause, Outcome};
use mesh_store::Side;

use crate::agent::{Agent, finished, held};
use crate::support::{add_cluster, end_of, put_code, serve, submit_function, until};

/// Ends a server as a kill does: no snapshot, no goodbye, only what was committed.
async fn kill(server: mesh_server::RunningServer) {
    server.kill().await;
}

#[tokio::test]
async fn what_was_accepted_is_there_after_a_kill_and_runs() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    add_cluster(server.handle(), "a").await;
    put_code(server.handle()).await;
    let id = submit_function(server.handle(), "k", "arguments").await;
    kill(server).await;

    let server = serve(dir.path()).await;
    let handle = server.handle().clone();
    let mut agent = Agent::link(&server, "a").await;
    agent.echo(1).await;
    assert_eq!(end_of(&handle, id).await.outcome, Outcome::Succeeded);
    let result = handle.data(id, Side::Result).await.unwrap().unwrap();
    assert_eq!(result.as_ref(), b"arguments", "read back from the store");
    server.shutdown().await;
}

#[tokio::test]
async fn a_task_that_runs_while_the_control_plane_is_away_is_not_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    add_cluster(server.handle(), "a").await;
    put_code(server.handle()).await;
    let mut agent = Agent::link(&server, "a").await;
    let id = submit_function(server.handle(), "k", "x").await;
    let start = agent.start().await;
    agent.report_durably(&start, mesh_api::agent::Happened::Started).await;
    kill(server).await;

    let server = serve(dir.path()).await;
    let handle = server.handle().clone();
    let mut hello = agent.vanish();
    hello.held = vec![held(&start)];
    let mut agent = Agent::link_as(&server, hello).await.unwrap();
    assert_eq!(agent.welcome.acked, 0, "a new control plane asks for every report that is kept");
    agent.report_durably(&start, finished("value")).await;
    let end = end_of(&handle, id).await;
    assert_eq!(end.outcome, Outcome::Succeeded);
    let attempt = handle.read(move |mesh, _| mesh.task(id).map(|task| task.attempt.0)).await;
    assert_eq!(attempt.unwrap(), Some(1));
    server.shutdown().await;
}

#[tokio::test]
async fn results_and_keys_survive_a_clean_restart_from_the_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    add_cluster(server.handle(), "a").await;
    put_code(server.handle()).await;
    let mut agent = Agent::link(&server, "a").await;
    let id = submit_function(server.handle(), "k", "x").await;
    agent.echo(1).await;
    end_of(server.handle(), id).await;
    server.shutdown().await;

    let server = serve(dir.path()).await;
    let handle = server.handle().clone();
    assert_eq!(submit_function(&handle, "k", "x").await, id, "the key is remembered");
    let result = handle.data(id, Side::Result).await.unwrap().unwrap();
    assert_eq!(result.as_ref(), b"x");
    until(&handle, "the cluster is suspect", |mesh| {
        mesh.clusters().all(|cluster| cluster.link.word() == "suspect")
    })
    .await;
    server.shutdown().await;
}

#[tokio::test]
async fn a_task_whose_arguments_are_gone_fails_and_never_runs_without_them() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    put_code(server.handle()).await;
    add_cluster(server.handle(), "a").await;
    let lost = submit_function(server.handle(), "lost", "x").await;
    server.shutdown().await;
    let database = rusqlite::Connection::open(dir.path().join("mesh.db")).unwrap();
    assert_eq!(database.execute("DELETE FROM data", []).unwrap(), 1);
    drop(database);

    let server = serve(dir.path()).await;
    let mut agent = Agent::link(&server, "a").await;
    let end = end_of(server.handle(), lost).await;
    let Outcome::Failed(failure) = end.outcome else { panic!("{:?}", end.outcome) };
    assert_eq!(failure.cause, Cause::Unreadable);
    let sound = submit_function(server.handle(), "sound", "x").await;
    assert_eq!(agent.start().await.task, sound.0, "the lost one was never sent");
    server.shutdown().await;
}
