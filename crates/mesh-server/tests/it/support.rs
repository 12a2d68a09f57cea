//! A server in a folder, and work to give it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mesh_api::convert::{Accept, Prepared};
use mesh_api::v1::{AffinityBody, RetriesBody, SpecBody, SubmitTaskBody, WorkBody};
use mesh_core::Command;
use mesh_core::model::id::{ClusterName, TaskId};
use mesh_core::model::task::{End, Phase};
use mesh_server::config::Config;
use mesh_server::handle::{Handle, Submitted};
use mesh_server::{RunningServer, Server};

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The code that all functions of the tests have.
pub(crate) const CODE: &[u8] = b"def f(): ...";

/// Starts a server in a folder, with a heartbeat that makes tests quick.
pub(crate) async fn serve(dir: &Path) -> RunningServer {
    serve_with(dir, |_config| {}).await
}

/// Starts a server in a folder, set up as said.
pub(crate) async fn serve_with(dir: &Path, set_up: impl FnOnce(&mut Config)) -> RunningServer {
    let mut config = Config::embedded(dir).unwrap();
    config.heartbeat = Duration::from_millis(250);
    set_up(&mut config);
    Server::start(config).await.unwrap()
}

/// Registers a cluster.
pub(crate) async fn add_cluster(handle: &Handle, name: &str) {
    let spec = mesh_core::model::cluster::ClusterSpec::default();
    add_cluster_as(handle, name, spec).await;
}

/// Registers a cluster, set up as said.
pub(crate) async fn add_cluster_as(
    handle: &Handle,
    name: &str,
    spec: mesh_core::model::cluster::ClusterSpec,
) {
    let name: ClusterName = name.parse().unwrap();
    handle.command(Command::AddCluster(name, Box::new(spec))).await.unwrap();
}

/// The code's digest, kept by the server.
pub(crate) async fn put_code(handle: &Handle) -> String {
    let digest = mesh_api::convert::digest_of(CODE);
    handle.put_code(vec![(digest, CODE.into())]).await.unwrap();
    digest.to_string()
}

/// A specification in which nothing is said.
pub(crate) fn spec(work: WorkBody) -> SpecBody {
    SpecBody {
        title: None,
        work,
        resources: None,
        priority: None,
        affinity: AffinityBody::default(),
        retries: RetriesBody::default(),
        timeout_ms: None,
        on_lost: None,
        wait_for_growth: true,
        python: None,
        runtime_env: None,
    }
}

/// The specification of a function.
pub(crate) fn function() -> SpecBody {
    spec(WorkBody::Function { code: mesh_api::convert::digest_of(CODE).to_string() })
}

/// A task of a specification.
pub(crate) fn task(spec: &SpecBody, key: &str, payload: &str) -> Accept {
    use base64::Engine as _;
    let payload = Some(base64::engine::general_purpose::STANDARD.encode(payload));
    let key = Some(key.to_owned());
    let body = SubmitTaskBody { spec: 0, key, name: None, payload, blob: None, job: None };
    Prepared::read(spec).unwrap().http(body).unwrap()
}

/// Submits one task.
pub(crate) async fn submit(handle: &Handle, accept: Accept) -> Submitted {
    handle.submit(vec![accept]).await.unwrap().remove(0).unwrap()
}

/// Submits a function with this key and these arguments.
pub(crate) async fn submit_function(handle: &Handle, key: &str, payload: &str) -> TaskId {
    submit(handle, task(&function(), key, payload)).await.task
}

/// Waits for the end of a task.
pub(crate) async fn end_of(handle: &Handle, task: TaskId) -> End {
    assert!(handle.wait_ended(task, PATIENCE).await.unwrap(), "{task} did not end");
    let found = handle.read(move |mesh, _| mesh.task(task).map(|task| task.phase.clone())).await;
    match found.unwrap() {
        Some(Phase::Ended(end)) => *end,
        other => panic!("{task} is {other:?}"),
    }
}

/// Waits until something holds of the state.
pub(crate) async fn until(
    handle: &Handle,
    what: &str,
    holds: impl Fn(&mesh_core::Mesh) -> bool + Send + Sync + 'static,
) {
    let holds = Arc::new(holds);
    let seen = async {
        let mut events = handle.events(handle.status().seq).await.unwrap();
        loop {
            let holds = Arc::clone(&holds);
            if handle.read(move |mesh, _| holds(mesh)).await.unwrap() {
                return;
            }
            events.next().await.unwrap();
        }
    };
    let seen = tokio::time::timeout(PATIENCE, seen).await;
    assert!(seen.is_ok(), "it never came true that {what}");
}
