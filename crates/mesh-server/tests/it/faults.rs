//! A store that fails: nothing is promised that is not kept.

use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use mesh_core::model::id::ClusterName;
use mesh_core::model::task::Phase;
use mesh_server::driver::{Settings, start};
use mesh_server::handle::Handle;
use mesh_store::Store as _;
use mesh_store::memory::{Fault, MemoryDisk};

use crate::support::{function, put_code, task};

fn driver(dir: &Path, disk: &MemoryDisk) -> (Handle, JoinHandle<()>) {
    start(dir, Box::new(disk.open().unwrap()), Settings::default()).unwrap()
}

async fn count(handle: &Handle) -> usize {
    handle.read(|mesh, _| mesh.len()).await.unwrap()
}

#[tokio::test]
async fn a_full_disk_refuses_changes_and_goes_on_when_it_has_room() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), MemoryDisk::new());
    let (handle, thread) = driver(dir.path(), &disk);
    put_code(&handle).await;
    handle.submit(vec![task(&function(), "before", "x")]).await.unwrap().remove(0).unwrap();
    disk.fail_next(Fault::Full);
    let refused = handle.submit(vec![task(&function(), "lost", "x")]).await;
    assert_eq!(refused.unwrap_err().code, "STORE_FULL");
    assert_eq!(count(&handle).await, 1, "reads go on, and show what is durable");
    assert_eq!(handle.status().trouble.unwrap().code, "STORE_FULL");

    let accepted = async {
        loop {
            let again =
                handle.submit(vec![task(&function(), "lost", "x")]).await.unwrap().remove(0);
            match again {
                Ok(submitted) => return submitted,
                Err(problem) => assert_eq!(problem.code, "STORE_FULL"),
            }
            tokio::task::yield_now().await;
        }
    };
    let submitted = tokio::time::timeout(Duration::from_secs(10), accepted).await.unwrap();
    assert!(!submitted.replayed, "it had not been accepted before");
    assert_eq!(handle.status().trouble, None);
    assert_eq!(count(&handle).await, 2);
    handle.shutdown().await;
    thread.join().unwrap();
}

#[tokio::test]
async fn a_failed_disk_takes_nothing_more_until_a_restart() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), MemoryDisk::new());
    let (handle, thread) = driver(dir.path(), &disk);
    put_code(&handle).await;
    handle.submit(vec![task(&function(), "before", "x")]).await.unwrap().remove(0).unwrap();
    disk.fail_next(Fault::Failed);
    let refused = handle.submit(vec![task(&function(), "lost", "x")]).await;
    assert_eq!(refused.unwrap_err().code, "STORE_FAILED");
    let name: ClusterName = "a".parse().unwrap();
    let command = mesh_core::Command::DrainCluster(name, true);
    assert_eq!(handle.command(command).await.unwrap_err().code, "STORE_FAILED");
    assert_eq!(count(&handle).await, 1);
    let again = vec![task(&function(), "before", "x"), task(&function(), "lost", "x")];
    let again = handle.submit(again).await.unwrap();
    assert!(again[0].as_ref().unwrap().replayed, "what was accepted is not denied");
    assert_eq!(again[1].as_ref().unwrap_err().code, "STORE_FAILED");
    handle.clone().shutdown().await;
    thread.join().unwrap();
    assert_eq!(handle.read(|_, _| ()).await.unwrap_err().code, "UNAVAILABLE");

    let (handle, thread) = driver(dir.path(), &disk);
    assert_eq!(count(&handle).await, 1);
    handle.submit(vec![task(&function(), "lost", "x")]).await.unwrap().remove(0).unwrap();
    handle.shutdown().await;
    thread.join().unwrap();
}

#[tokio::test]
async fn followers_of_the_journal_see_every_event_once_and_in_order() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), MemoryDisk::new());
    let (handle, thread) = driver(dir.path(), &disk);
    put_code(&handle).await;
    for n in 0..20 {
        let tasks = (0..n).map(|m| task(&function(), &format!("{n}-{m}"), "x")).collect();
        handle.submit(tasks).await.unwrap();
    }
    let last = handle.status().seq;
    for after in [0, 1, 7, last - 1] {
        let mut events = handle.events(after).await.unwrap();
        let mut next = after + 1;
        while next <= last {
            let entry = events.next().await.unwrap();
            assert_eq!(entry.first, next);
            next = entry.last() + 1;
        }
    }
    assert_eq!(handle.events(last + 1).await.map(|_| ()).unwrap_err().code, "INVALID");
    handle.shutdown().await;
    thread.join().unwrap();
}

#[tokio::test]
async fn code_that_was_never_written_is_never_said_to_be_here() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), MemoryDisk::new());
    let (handle, thread) = driver(dir.path(), &disk);
    disk.fail_next(Fault::Failed);
    let digest = mesh_api::convert::digest_of(crate::support::CODE);
    let code = vec![(digest, crate::support::CODE.into())];
    // Most likely both are in the same turn; then the second hears of its failure too.
    let (put, has) = tokio::join!(handle.put_code(code), handle.has_code(digest));
    assert_eq!(put.unwrap_err().code, "STORE_FAILED");
    assert!(!has.unwrap_or(false));
    handle.shutdown().await;
    thread.join().unwrap();
}

#[tokio::test]
async fn a_full_disk_with_a_reserve_takes_cancels_and_nothing_new() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), MemoryDisk::new());
    let (handle, thread) = driver(dir.path(), &disk);
    put_code(&handle).await;
    let tasks = ["one", "two", "three"].map(|name| task(&function(), name, "x")).into();
    let accepted = handle.submit(tasks).await.unwrap();
    let ids: Vec<_> = accepted.iter().map(|task| task.as_ref().unwrap().task).collect();
    disk.fill();
    // The reserve is given up for whatever comes first; nothing of that is lost.
    let cancel = |id| handle.command(mesh_core::Command::Cancel(id));
    cancel(ids[0]).await.unwrap();
    assert_eq!(handle.status().trouble.unwrap().code, "STORE_FULL");
    let refused = handle.submit(vec![task(&function(), "four", "x")]).await.unwrap();
    assert_eq!(refused[0].as_ref().unwrap_err().code, "STORE_FULL");
    cancel(ids[1]).await.unwrap();
    let known = handle.submit(vec![task(&function(), "three", "x")]).await.unwrap();
    assert!(known[0].as_ref().unwrap().replayed, "what was accepted is not denied");

    disk.free();
    let accepted = async {
        loop {
            let again = handle.submit(vec![task(&function(), "four", "x")]).await.unwrap();
            if again[0].is_ok() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), accepted).await.unwrap();
    assert_eq!(handle.status().trouble, None);
    assert_eq!(count(&handle).await, 4);
    handle.shutdown().await;
    thread.join().unwrap();
    let kept = disk.open().unwrap().load_snapshot().unwrap().unwrap().1;
    let ended = kept.tasks.iter().filter(|task| matches!(task.phase, Phase::Ended(_))).count();
    assert_eq!(ended, 2, "the cancels are durable");
}
