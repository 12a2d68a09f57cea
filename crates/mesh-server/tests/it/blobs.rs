//! Blobs over the agent link.

use bytes::Bytes;
use mesh_api::agent::{
    BLOB_PART_MAX, BlobFrame, DataFrame, FromAgent, Happened, PullFrame, PushFrame, ToAgent,
};
use mesh_api::convert::{Payload, blob_id};
use mesh_core::model::task::{Data, Outcome};

use crate::agent::{Agent, finished, held};
use crate::support::{add_cluster, end_of, function, put_code, serve, submit, task};

#[tokio::test]
async fn large_arguments_and_results_travel_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    let handle = server.handle().clone();
    add_cluster(&handle, "a").await;
    put_code(&handle).await;
    let mut agent = Agent::link(&server, "a").await;
    let bytes: Vec<u8> =
        (0..BLOB_PART_MAX * 2 + 7).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let mut writer = handle.blobs().create().await.unwrap();
    writer.write(&bytes).await.unwrap();
    let (id, size) = writer.finish().await.unwrap();
    let mut accept = task(&function(), "k", "");
    accept.payload = Payload::Blob(id, 0);
    let submitted = submit(&handle, accept).await;

    let start = agent.start().await;
    let DataFrame::Blob(blob) = &start.payload else { panic!("{start:?}") };
    assert_eq!(blob.size, size);
    let mut pulled = Vec::new();
    while pulled.len() < bytes.len() {
        let (offset, len) = (u64::try_from(pulled.len()).unwrap(), u64::MAX);
        agent.say(&FromAgent::Pull(PullFrame { id: blob.id.clone(), offset, len })).await;
        let Some(ToAgent::Piece(piece)) = agent.hear().await else { panic!("a part") };
        assert_eq!((piece.offset, piece.problem), (offset, None));
        assert!(piece.bytes.len() <= BLOB_PART_MAX);
        pulled.extend(piece.bytes);
    }
    assert!(pulled == bytes, "what arrived is what was sent");

    let mut offset = 0;
    let parts: Vec<&[u8]> = bytes.chunks(BLOB_PART_MAX).collect();
    let mut result = None;
    for (index, part) in parts.iter().enumerate() {
        let (bytes, done) = (Bytes::copy_from_slice(part), index + 1 == parts.len());
        agent.say(&FromAgent::Push(PushFrame { upload: 1, offset, bytes, done })).await;
        offset += u64::try_from(part.len()).unwrap();
        let Some(ToAgent::Pushed(pushed)) = agent.hear().await else { panic!("a confirmation") };
        assert_eq!((pushed.offset, pushed.problem), (offset, None));
        result = pushed.blob;
    }
    let result = result.expect("the blob, with the last part");
    let what = Happened::Finished { run_us: 1, result: DataFrame::Blob(result.clone()) };
    agent.report(&start, what).await;
    let end = end_of(&handle, submitted.task).await;
    let id = blob_id(&result.id).unwrap();
    assert_eq!(end.result, Data::Blob(id, size));
    let mut reader = handle.blobs().read(id, 0).await.unwrap();
    assert!(reader.next(bytes.len() + 1).await.unwrap() == bytes);
    server.shutdown().await;
}

#[tokio::test]
async fn blobs_that_are_not_there_and_uploads_that_make_no_sense_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    let handle = server.handle().clone();
    add_cluster(&handle, "a").await;
    put_code(&handle).await;
    let mut accept = task(&function(), "k", "");
    accept.payload = Payload::Blob(mesh_core::model::task::BlobId(7), 0);
    let refused = handle.submit(vec![accept]).await.unwrap().remove(0).unwrap_err();
    assert_eq!(refused.code, "UNKNOWN_BLOB");

    let mut agent = Agent::link(&server, "a").await;
    agent.say(&FromAgent::Pull(PullFrame { id: "7".repeat(32), offset: 0, len: 1 })).await;
    let Some(ToAgent::Piece(piece)) = agent.hear().await else { panic!("an answer") };
    assert_eq!(piece.problem.unwrap().code, "UNKNOWN_BLOB");
    let push = PushFrame { upload: 3, offset: 5, bytes: Bytes::new(), done: false };
    agent.say(&FromAgent::Push(push)).await;
    let Some(ToAgent::Pushed(pushed)) = agent.hear().await else { panic!("an answer") };
    assert_eq!(pushed.problem.unwrap().message, "upload 3 was not begun, or was given up");
    server.shutdown().await;
}

#[tokio::test]
async fn a_result_that_was_given_up_before_its_report_arrived_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    let handle = server.handle().clone();
    add_cluster(&handle, "a").await;
    put_code(&handle).await;
    let mut agent = Agent::link(&server, "a").await;
    let id = submit(&handle, task(&function(), "k", "x")).await.task;
    let first = agent.start().await;
    let (lost, size) = upload(handle.blobs()).await;
    handle.blobs().delete(lost).await.unwrap();
    let blob = BlobFrame { id: mesh_api::convert::blob_text(lost), size };
    let what = Happened::Finished { run_us: 1, result: DataFrame::Blob(blob) };
    agent.report(&first, what).await;
    let second = agent.start().await;
    assert_eq!((second.task, second.attempt), (first.task, first.attempt + 1));
    agent.report(&second, finished("x")).await;
    assert_eq!(end_of(&handle, id).await.outcome, Outcome::Succeeded);
    server.shutdown().await;
}

#[tokio::test]
async fn an_old_blob_whose_report_comes_after_a_restart_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    add_cluster(server.handle(), "a").await;
    put_code(server.handle()).await;
    let mut agent = Agent::link(&server, "a").await;
    let task = submit(server.handle(), task(&function(), "k", "x")).await.task;
    let start = agent.start().await;
    let (id, size) = upload(server.handle().blobs()).await;
    let text = mesh_api::convert::blob_text(id);
    let file = std::fs::File::options().write(true).open(dir.path().join("blobs").join(&text));
    file.unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    server.kill().await;

    let server = serve(dir.path()).await;
    let mut hello = agent.vanish();
    hello.held = vec![held(&start)];
    let mut agent = Agent::link_as(&server, hello).await.unwrap();
    let blob = BlobFrame { id: text, size };
    let what = Happened::Finished { run_us: 1, result: DataFrame::Blob(blob) };
    agent.report_durably(&start, what).await;
    assert_eq!(end_of(server.handle(), task).await.result, Data::Blob(id, size));
    assert_eq!(server.handle().blobs().size(id).await.unwrap(), size);
    server.shutdown().await;
}

#[tokio::test]
async fn a_task_that_is_submitted_again_needs_its_blob_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    let handle = server.handle().clone();
    put_code(&handle).await;
    let (id, size) = upload(handle.blobs()).await;
    let mut accept = task(&function(), "k", "");
    accept.payload = Payload::Blob(id, size);
    let first = submit(&handle, accept.clone()).await;
    handle.blobs().delete(id).await.unwrap();
    let again = submit(&handle, accept).await;
    assert_eq!((again.task, again.replayed), (first.task, true));
    server.shutdown().await;
}

async fn upload(blobs: &mesh_server::blobs::Blobs) -> (mesh_core::model::task::BlobId, u64) {
    let mut writer = blobs.create().await.unwrap();
    writer.write(b"result").await.unwrap();
    writer.finish().await.unwrap()
}
