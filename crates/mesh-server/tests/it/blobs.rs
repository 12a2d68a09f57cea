//! Blobs over the agent link.

use bytes::Bytes;
use mesh_api::agent::{
    BLOB_PART_MAX, DataFrame, FromAgent, Happened, PullFrame, PushFrame, ToAgent,
};
use mesh_api::convert::{Payload, blob_id};
use mesh_core::model::task::Data;

use crate::agent::Agent;
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
