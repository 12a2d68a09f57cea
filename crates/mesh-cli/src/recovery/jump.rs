//! A state that goes on from a copy. After the copy was made, numbers were given out that it does
//! not know of, and agents may still speak of them: none of them may be given out a second time.

use mesh_core::Mesh;
use mesh_core::command::Command;
use mesh_core::event::Event;
use mesh_core::model::id::{Attempt, ClusterId, LeaseId, SpecId, TaskId};
use mesh_core::model::task::{Failure, Outcome, Phase};
use mesh_core::model::time::Span;
use mesh_core::snapshot::Snapshot;
use mesh_store::Seq;

/// How many numbers of tasks, grants and events are left out: more than could be given out in a day
/// at a hundred thousand a second, and round, so that one sees where it happened.
const NUMBERS_LEFT_OUT: u64 = 10_000_000_000;
/// How many attempts of each task are left out.
const ATTEMPTS_LEFT_OUT: u32 = 10_000;
/// How many numbers of clusters and of specifications are left out.
const NAMES_LEFT_OUT: u32 = 1_000_000;

/// The state with which a restored directory begins, and the number of its last event: nothing is
/// with any agent, as if all of them had been restarted, and every number goes on far beyond what may
/// have been given out since.
pub(super) fn skip_ahead(mut mesh: Mesh, last: Seq) -> (Seq, Snapshot) {
    let agents: Vec<_> = mesh.clusters().map(|cluster| cluster.agent.clone()).collect();
    take_back(&mut mesh);
    let mut snapshot = mesh.snapshot();
    for (cluster, agent) in snapshot.clusters.iter_mut().zip(agents) {
        cluster.agent = agent;
    }
    let next = &mut snapshot.next;
    next.task = TaskId(next.task.0.saturating_add(NUMBERS_LEFT_OUT));
    next.lease = LeaseId(next.lease.0.saturating_add(NUMBERS_LEFT_OUT));
    next.cluster = ClusterId(next.cluster.0.saturating_add(NAMES_LEFT_OUT));
    next.spec = SpecId(next.spec.0.saturating_add(NAMES_LEFT_OUT));
    for task in &mut snapshot.tasks {
        if !matches!(task.phase, Phase::Ended(_)) {
            task.attempt = Attempt(task.attempt.0.saturating_add(ATTEMPTS_LEFT_OUT));
        }
    }
    (last.saturating_add(NUMBERS_LEFT_OUT), snapshot)
}

/// Takes everything back from the agents, by the same rules as if they had been restarted and held
/// nothing: what had not started is queued, what had started is tried again or fails, as each task
/// says, and what was told to stop has stopped.
fn take_back(mesh: &mut Mesh) {
    let mut events = decided(mesh, &Command::Restart { skipped: Span::ZERO });
    apply(mesh, &events);
    let clusters: Vec<_> = mesh.clusters().map(|c| (c.name.clone(), c.agent.clone())).collect();
    for (cluster, agent) in clusters {
        let Some(mut agent) = agent else { continue };
        agent.incarnation = !agent.incarnation;
        let link = Command::Link { cluster, agent: Box::new(agent), held: Vec::new() };
        events = decided(mesh, &link);
        // That nobody holds anything is what follows; linked is nobody.
        events.retain(|event| !matches!(event, Event::ClusterLinked(..)));
        for event in &mut events {
            explain(event);
        }
        apply(mesh, &events);
    }
    let idle = mesh.snapshot().leases.into_iter();
    let released: Vec<_> = idle.map(|lease| Event::Released(lease.id)).collect();
    apply(mesh, &released);
    mesh.take_changes();
}

fn apply(mesh: &mut Mesh, events: &[Event]) {
    for event in events {
        mesh.apply(mesh.at(), event);
    }
}

/// What the core answers to a command that names only what is there.
fn decided(mesh: &Mesh, command: &Command) -> Vec<Event> {
    mesh.decide(mesh.at(), command).map(|(events, _answer)| events).unwrap_or_default()
}

/// Says why an attempt was given up.
fn explain(event: &mut Event) {
    let (Event::Retried { failure, .. } | Event::Ended { outcome: Outcome::Failed(failure), .. }) =
        event
    else {
        return;
    };
    let why = "the state was restored from a backup, and what became of this attempt is not known";
    *failure = Failure::new(failure.cause, why);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mesh_core::Limits;
    use mesh_core::command::{Held, Report, Seen, Submission};
    use mesh_core::model::amount::{Amount, Resources};
    use mesh_core::model::cluster::{AgentFacts, ClusterSpec, NodeFacts};
    use mesh_core::model::id::{Digest, Key};
    use mesh_core::model::label::Affinity;
    use mesh_core::model::priority::Priority;
    use mesh_core::model::task::{
        Data, Kind, OnLost, PythonVersion, Retries, Shape, TaskSpec, Work,
    };
    use mesh_core::model::time::{Span, Timestamp};

    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000_000);

    fn word(phase: &Phase) -> &'static str {
        match phase {
            Phase::Queued => "queued",
            Phase::Delayed { .. } => "delayed",
            Phase::Assigned { .. } => "assigned",
            Phase::Running { .. } => "running",
            Phase::Stopping { .. } => "stopping",
            Phase::Ended(end) => mesh_api::convert::outcome_word(&end.outcome),
        }
    }

    fn run(mesh: &mut Mesh, command: &Command) {
        let (events, _answer) = mesh.decide(NOW, command).unwrap();
        for event in &events {
            mesh.apply(NOW, event);
        }
    }

    fn agent() -> AgentFacts {
        AgentFacts {
            incarnation: 7,
            python: PythonVersion { major: 3, minor: 11 },
            ray: "2.60.0".into(),
            version: "0.1.0".into(),
        }
    }

    fn spec() -> TaskSpec {
        TaskSpec {
            title: None,
            work: Work::Function(Digest([1; 32])),
            shape: Shape {
                kind: Kind::Function,
                resources: Resources { cpu: Amount::whole(1), ..Resources::NONE },
                affinity: Affinity::default(),
                priority: Priority::default(),
                python: None,
                runtime_env: None,
            },
            retries: Retries::default(),
            timeout: Some(Span::from_secs(60)),
            on_lost: OnLost::Replace,
            wait_for_growth: true,
        }
    }

    /// Four tasks on a cluster with room for three: one runs, one is being stopped, one was only
    /// assigned, and one waits.
    fn busy() -> Mesh {
        let mut mesh = Mesh::new(Limits::default());
        let name = || "a".parse().unwrap();
        run(&mut mesh, &Command::AddCluster(name(), Box::<ClusterSpec>::default()));
        let link = Command::Link { cluster: name(), agent: Box::new(agent()), held: Vec::new() };
        run(&mut mesh, &link);
        let node = NodeFacts {
            name: "node".parse().unwrap(),
            address: "10.0.0.1".into(),
            labels: std::collections::BTreeMap::new(),
            total: Resources { cpu: Amount::whole(3), ..Resources::NONE },
            foreign: Resources::NONE,
        };
        run(&mut mesh, &Command::Nodes(name(), vec![node]));
        for number in 1..=4_u8 {
            let submission = Submission {
                key: Key::Uuid(number.into()),
                body: 0,
                name: None,
                spec: Arc::new(spec()),
                payload: Data::None,
            };
            run(&mut mesh, &Command::Submit(submission));
        }
        mesh.schedule(NOW);
        for task in [1, 2] {
            let report = Report { task: TaskId(task), attempt: Attempt(1), what: Seen::Started };
            run(&mut mesh, &Command::Report(name(), report));
        }
        run(&mut mesh, &Command::Cancel(TaskId(2)));
        let words: Vec<_> = (1..=4).map(|id| word(&mesh.task(TaskId(id)).unwrap().phase)).collect();
        assert_eq!(words, ["running", "stopping", "assigned", "queued"]);
        mesh
    }

    #[test]
    fn nothing_is_with_an_agent_and_no_number_comes_again() {
        let before = busy();
        let old = before.snapshot();
        let (seq, snapshot) = skip_ahead(before, 40);
        assert_eq!(seq, 40 + NUMBERS_LEFT_OUT);
        assert!(snapshot.leases.is_empty(), "{:?}", snapshot.leases);
        assert!(snapshot.next.task.0 > old.next.task.0 + 1_000_000_000);
        assert!(snapshot.next.lease.0 > old.next.lease.0 + 1_000_000_000);
        let words: Vec<_> = snapshot.tasks.iter().map(|task| word(&task.phase)).collect();
        assert_eq!(words, ["delayed", "cancelled", "queued", "queued"]);
        for task in snapshot.tasks.iter().filter(|task| !matches!(task.phase, Phase::Ended(_))) {
            assert!(task.attempt.0 >= ATTEMPTS_LEFT_OUT, "{}", task.attempt);
        }
        assert_eq!(snapshot.clusters[0].agent, Some(agent()), "the agent itself is no other");
        let mesh = Mesh::restore(snapshot, Limits::default());
        mesh.check().unwrap();
    }

    #[test]
    fn what_agents_say_of_the_time_after_the_backup_changes_nothing() {
        let (_seq, snapshot) = skip_ahead(busy(), 40);
        let mut mesh = Mesh::restore(snapshot, Limits::default());
        // The agent went on: task 1 is at its second attempt, task 3 at its first, which runs.
        let held = [(1, 2), (3, 1)];
        let held: Vec<_> = held
            .map(|(task, attempt)| Held { task: TaskId(task), attempt: Attempt(attempt) })
            .into();
        let link = Command::Link {
            cluster: "a".parse().unwrap(),
            agent: Box::new(agent()),
            held: held.clone(),
        };
        run(&mut mesh, &link);
        mesh.schedule(NOW);
        let before = mesh.snapshot();
        for held in held {
            let ran = Span::from_secs(1);
            let what = Seen::Finished { ran, result: Data::None };
            let report = Report { task: held.task, attempt: held.attempt, what };
            run(&mut mesh, &Command::Report("a".parse().unwrap(), report));
        }
        assert_eq!(mesh.snapshot().tasks, before.tasks);
        mesh.check().unwrap();
    }
}
