//! Tasks and clusters as the API shows them.

use std::collections::BTreeMap;

use mesh_api::convert;
use mesh_api::v1::{
    CallView, ClusterView, ExplainView, FailureView, NodeView, TaskView, VerdictView,
};
use mesh_core::explain::{AHEAD_MAX, Because, Verdict};
use mesh_core::model::cluster::Breaker;
use mesh_core::model::id::{ClusterId, ClusterName, TaskId};
use mesh_core::model::task::{Failure, Kind, Outcome, Phase, Task, TaskSpec, Work};
use mesh_core::model::time::{Span, Timestamp};
use mesh_core::{ClusterState, Mesh, NodeState};

/// Unix seconds.
#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a float holds the microseconds of three centuries"
)]
pub(crate) fn seconds(at: Timestamp) -> f64 {
    at.micros() as f64 / 1e6
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "as above")]
fn millis(span: Span) -> f64 {
    span.micros() as f64 / 1e3
}

/// A task, with what it refers to; `None` when its specification is gone, which it never is.
pub(crate) fn task(mesh: &Mesh, task: &Task) -> Option<TaskView> {
    let spec = mesh.spec(task.spec)?;
    let end = if let Phase::Ended(end) = &task.phase { Some(end.as_ref()) } else { None };
    let started = match &task.phase {
        Phase::Running { since, .. } => Some(*since),
        _ => end.and_then(|end| end.started),
    };
    Some(TaskView {
        id: task.id.to_string(),
        key: task.key.to_string(),
        name: task.name.as_deref().or(spec.title.as_deref()).map(str::to_owned),
        kind: kind_word(spec.shape.kind).to_owned(),
        phase: phase_word(&task.phase).to_owned(),
        cluster: cluster_name(mesh, mesh.cluster_of(task.id)),
        node: node_name(mesh, task),
        attempt: task.attempt.0,
        lost: task.lost,
        raised: task.raised,
        priority: spec.shape.priority.value(),
        resources: convert::resources_map(&spec.shape.resources),
        affinity: convert::affinity_body(&spec.shape.affinity),
        call: call(spec),
        submitted_at: seconds(task.submitted),
        started_at: started.map(seconds),
        ended_at: end.map(|end| seconds(end.at)),
        run_ms: end.map(|end| millis(end.ran)),
        error: failure(&task.phase).map(|failure| FailureView {
            cause: convert::cause_word(failure.cause).to_owned(),
            message: failure.message.to_string(),
        }),
        payload_bytes: task.payload.size(),
        result_bytes: end.map(|end| end.result.size()),
    })
}

fn call(spec: &TaskSpec) -> Option<CallView> {
    let Work::Call { actor, method } = &spec.work else { return None };
    Some(CallView { actor: actor.to_string(), method: method.to_string() })
}

fn failure(phase: &Phase) -> Option<&Failure> {
    match phase {
        Phase::Delayed { last, .. } => Some(last),
        Phase::Ended(end) => match &end.outcome {
            Outcome::Failed(failure) => Some(failure),
            Outcome::Succeeded | Outcome::Cancelled => None,
        },
        Phase::Queued | Phase::Assigned { .. } | Phase::Running { .. } | Phase::Stopping { .. } => {
            None
        }
    }
}

fn cluster_name(mesh: &Mesh, id: Option<ClusterId>) -> Option<String> {
    Some(mesh.cluster_by_id(id?)?.name.to_string())
}

fn node_name(mesh: &Mesh, task: &Task) -> Option<String> {
    let lease = mesh.lease(task.phase.lease()?)?;
    let node = mesh.cluster_by_id(lease.cluster)?.node(lease.node)?;
    Some(node.facts.name.to_string())
}

/// A kind of task, as the API calls it.
pub(crate) fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Function => "function",
        Kind::Actor => "actor",
        Kind::Call => "call",
        Kind::Job => "job",
    }
}

/// How far a task is, as the API calls it.
pub(crate) fn phase_word(phase: &Phase) -> &'static str {
    match phase {
        Phase::Queued => "queued",
        Phase::Delayed { .. } => "delayed",
        Phase::Assigned { .. } => "assigned",
        Phase::Running { .. } => "running",
        Phase::Stopping { .. } => "stopping",
        Phase::Ended(end) => convert::outcome_word(&end.outcome),
    }
}

/// How many tasks there are in each phase.
pub(crate) fn counts(mesh: &Mesh) -> BTreeMap<String, u64> {
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let named = mesh.counts().named();
    named.into_iter().map(|(phase, count)| (phase.to_owned(), number(count))).collect()
}

/// A cluster, and what the shell ran into with it.
pub(crate) fn cluster(mesh: &Mesh, state: &ClusterState, trouble: Option<String>) -> ClusterView {
    let mut foreign = mesh_core::model::amount::Resources::NONE;
    for node in state.nodes.iter().filter(|node| node.alive) {
        foreign.put(&node.facts.foreign);
    }
    ClusterView {
        spec: convert::cluster_body(&state.name, &state.spec),
        link: state.link.word().to_owned(),
        since: seconds(state.link.since()),
        draining: state.draining,
        breaker: breaker_word(&state.breaker).to_owned(),
        python: state.agent.as_ref().map(|agent| agent.python.to_string()),
        ray: state.agent.as_ref().map(|agent| agent.ray.to_string()),
        agent_version: state.agent.as_ref().map(|agent| agent.version.to_string()),
        total: convert::resources_map(state.total()),
        free: convert::resources_map(state.free()),
        foreign: convert::resources_map(&foreign),
        nodes: state.nodes.iter().map(node).collect(),
        tasks: u64::try_from(mesh.tasks_on(state.id)).unwrap_or(u64::MAX),
        trouble,
    }
}

fn node(node: &NodeState) -> NodeView {
    NodeView {
        id: node.facts.name.to_string(),
        address: node.facts.address.to_string(),
        alive: node.alive,
        labels: node.facts.labels.clone(),
        total: convert::resources_map(&node.facts.total),
        free: convert::resources_map(node.free()),
    }
}

fn breaker_word(breaker: &Breaker) -> &'static str {
    match breaker {
        Breaker::Closed | Breaker::Counting { .. } => "closed",
        Breaker::Open { .. } => "open",
        Breaker::HalfOpen => "half_open",
        Breaker::Probing { .. } => "probing",
    }
}

/// Why a task is where it is; `None` when there is no such task.
pub(crate) fn explanation(mesh: &Mesh, now: Timestamp, id: TaskId) -> Option<ExplainView> {
    let explained = mesh.explain(now, id).ok()?;
    let (because, message, ahead) = because(&explained.because, now);
    Some(ExplainView {
        task: mesh.task(id).and_then(|found| task(mesh, found)),
        because: because.to_owned(),
        message,
        ahead,
        clusters: verdicts(&explained.clusters),
    })
}

/// Where a task would go.
pub(crate) fn dry_run(mesh: &Mesh, now: Timestamp, spec: &TaskSpec) -> ExplainView {
    let clusters = mesh.explain_spec(now, spec);
    let (because, message) = match clusters.iter().find(|(_name, verdict)| verdict.fits()) {
        Some((name, _verdict)) => ("FITS", format!("would start on cluster {name} now")),
        None if clusters.is_empty() => ("NO_CLUSTERS", "no cluster is registered".to_owned()),
        None if clusters.iter().all(|(_name, verdict)| verdict.is_final()) => {
            ("INFEASIBLE", "no cluster can ever run this".to_owned())
        }
        None => ("QUEUED", "would wait: no cluster has room for it now".to_owned()),
    };
    ExplainView {
        task: None,
        because: because.to_owned(),
        message,
        ahead: None,
        clusters: verdicts(&clusters),
    }
}

fn verdicts(clusters: &[(ClusterName, Verdict)]) -> Vec<VerdictView> {
    clusters.iter().map(|(name, verdict)| self::verdict(name, verdict)).collect()
}

fn verdict(name: &ClusterName, verdict: &Verdict) -> VerdictView {
    let score = if let Verdict::Fits { score, .. } = verdict { Some(*score) } else { None };
    let parts = score.map(|score| {
        let parts = [
            ("cpu", score.cpu),
            ("memory", score.memory),
            ("gpu", score.gpu),
            ("prefer", score.prefer),
            ("idle", score.idle),
            ("affinity", score.affinity),
        ];
        parts.into_iter().map(|(part, value)| (part.to_owned(), value)).collect()
    });
    VerdictView {
        cluster: name.to_string(),
        fits: verdict.fits(),
        code: verdict.code().to_owned(),
        message: verdict.to_string(),
        score: score.map(|score| score.total()),
        parts: parts.unwrap_or_default(),
    }
}

fn because(because: &Because, now: Timestamp) -> (&'static str, String, Option<u64>) {
    let (code, message) = match because {
        Because::Queued { ahead } => {
            let known = u64::try_from(*ahead).unwrap_or(u64::MAX);
            return ("QUEUED", queued(*ahead), Some(known));
        }
        Because::NoClusters => ("NO_CLUSTERS", "no cluster is registered".to_owned()),
        Because::WaitsForActor(actor) => (
            "WAITS_FOR_ACTOR",
            format!("waits for actor {actor} to be up and to answer earlier calls"),
        ),
        Because::Delayed { until, last } => {
            let wait = until.since(now);
            let message = format!("its last attempt failed ({}); next one in {wait}", last.message);
            ("DELAYED", message)
        }
        Because::Assigned(name) => ("ASSIGNED", format!("was sent to cluster {name}")),
        Because::Running(name) => ("RUNNING", format!("runs on cluster {name}")),
        Because::Stopping(name) => {
            ("STOPPING", format!("was told to stop; cluster {name} has not confirmed it yet"))
        }
        Because::Unreachable(name) => {
            ("UNREACHABLE", format!("cluster {name} can't be heard; the task may well run there"))
        }
        Because::Ended => ("ENDED", "is over".to_owned()),
    };
    (code, message, None)
}

fn queued(ahead: usize) -> String {
    match ahead {
        0 => "is first in the queue and waits for room".to_owned(),
        1 => "waits in the queue behind 1 task".to_owned(),
        AHEAD_MAX.. => format!("waits in the queue behind {AHEAD_MAX} tasks or more"),
        some => format!("waits in the queue behind {some} tasks"),
    }
}
