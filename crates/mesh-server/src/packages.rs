//! Which packages are in use: archives of users' folders that runtime environments name. They are
//! kept as blobs whose id is the digest of their bytes, so that equal folders are kept once.

use std::collections::HashSet;

use mesh_api::convert::reach;
use mesh_api::package;
use mesh_core::Mesh;
use mesh_core::model::task::{BlobId, Phase};

/// The packages that a task which has not ended, or a cluster, may still ask for.
pub(crate) fn used(mesh: &Mesh) -> HashSet<BlobId> {
    let open = mesh.tasks_before(None).filter(|task| !matches!(task.phase, Phase::Ended(_)));
    let specs: HashSet<_> = open.map(|task| task.spec).collect();
    let of_tasks = specs.into_iter().filter_map(|spec| mesh.spec(spec)?.shape.runtime_env.clone());
    let mut used: HashSet<BlobId> = of_tasks.flat_map(|env| package::named(&env)).collect();
    for cluster in mesh.clusters() {
        let env = reach(&cluster.spec).runtime_env;
        used.extend(env.iter().flat_map(|env| package::named(env)));
    }
    used
}

#[cfg(test)]
mod tests {
    use mesh_core::model::time::Timestamp;
    use mesh_core::{Command, Limits};

    use super::*;

    #[test]
    fn what_the_environment_of_a_cluster_names_is_used() {
        let mut mesh = Mesh::new(Limits::default());
        let body = serde_json::json!({
            "name": "a",
            "runtime_env": {"working_dir": "schedulemesh://000000000000000000000000000000ff/3/p.zip"},
        });
        let (name, spec) =
            mesh_api::convert::cluster(&serde_json::from_value(body).unwrap()).unwrap();
        let command = Command::AddCluster(name, Box::new(spec));
        let (events, _answer) = mesh.decide(Timestamp::from_micros(1), &command).unwrap();
        for event in &events {
            mesh.apply(Timestamp::from_micros(1), event);
        }
        assert_eq!(used(&mesh), HashSet::from([BlobId(255)]));
    }
}
