//! Which packages are in use: archives of users' folders that runtime environments name. They are
//! kept as blobs whose id is the digest of their bytes, so that equal folders are kept once.

use std::collections::HashSet;

use mesh_api::convert::reach;
use mesh_api::package;
use mesh_core::Mesh;
use mesh_core::model::task::{BlobId, Phase};

/// The packages that a task which has not ended, or a cluster, may still ask for.
pub fn used(mesh: &Mesh) -> HashSet<BlobId> {
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
    use std::sync::Arc;

    use mesh_api::convert::{self, Prepared};
    use mesh_core::command::Submission;
    use mesh_core::model::id::{Key, TaskId};
    use mesh_core::model::task::Data;
    use mesh_core::model::time::Timestamp;
    use mesh_core::{Command, Limits};
    use serde_json::json;

    use super::*;

    fn did(mesh: &mut Mesh, command: &Command) {
        let now = Timestamp::from_micros(1);
        let (events, _answer) = mesh.decide(now, command).unwrap();
        for event in &events {
            mesh.apply(now, event);
        }
    }

    fn env(package: u128) -> serde_json::Value {
        json!({"working_dir": format!("schedulemesh://{package:032x}/3/p.zip")})
    }

    #[test]
    fn what_the_environment_of_a_cluster_names_is_used() {
        let mut mesh = Mesh::new(Limits::default());
        let body = json!({"name": "a", "runtime_env": env(255)});
        let (name, spec) = convert::cluster(&serde_json::from_value(body).unwrap()).unwrap();
        did(&mut mesh, &Command::AddCluster(name, Box::new(spec)));
        assert_eq!(used(&mesh), HashSet::from([BlobId(255)]));
    }

    #[test]
    fn what_a_task_names_is_used_until_it_has_ended() {
        let mut mesh = Mesh::new(Limits::default());
        let body = json!({"work": "job", "runtime_env": env(7)});
        let prepared = Prepared::read(&serde_json::from_value(body).unwrap()).unwrap();
        let submission = Submission {
            key: Key::Uuid(1),
            body: 0,
            name: None,
            spec: Arc::clone(prepared.spec()),
            payload: Data::None,
        };
        did(&mut mesh, &Command::Submit(submission));
        assert_eq!(used(&mesh), HashSet::from([BlobId(7)]));
        did(&mut mesh, &Command::Cancel(TaskId(1)));
        assert_eq!(used(&mesh), HashSet::new());
    }
}
