//! JSON bodies of the HTTP API, version 1. Times are Unix seconds with microsecond precision,
//! durations milliseconds, memory bytes; resources use Ray's names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::Problem;

/// What tasks may have in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SpecBody {
    /// What people call what is run, such as the function's name: shown where a task has no name of
    /// its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What is run.
    pub work: WorkBody,
    /// `CPU`, `GPU`, `memory` (bytes) and custom resources. Nothing said: one `CPU` for a function,
    /// none for an actor or a job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<BTreeMap<String, f64>>,
    /// The larger number goes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<f64>,
    /// Where it may run.
    #[serde(default)]
    pub affinity: AffinityBody,
    /// How often it is tried again.
    #[serde(default)]
    pub retries: RetriesBody,
    /// The longest that one attempt may run, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// What happens when its cluster can no longer be heard: `replace`, `wait` or `fail`. Nothing
    /// said: `replace` for a function, `fail` for an actor or a call, `wait` for a job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_lost: Option<String>,
    /// Queue it although no cluster could ever hold it as they are now.
    #[serde(default)]
    pub wait_for_growth: bool,
    /// The Python that pickled it, such as `3.11`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
    /// Ray's runtime environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub runtime_env: Option<serde_json::Value>,
}

/// What is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkBody {
    /// A pickled function, uploaded before under the BLAKE3 digest of its bytes (hex).
    Function {
        /// The digest.
        code: String,
    },
    /// A pickled class, likewise.
    Actor {
        /// The digest.
        code: String,
    },
    /// A method call on an actor.
    Call {
        /// The actor's task id, such as `t42`.
        actor: String,
        /// The method.
        method: String,
    },
    /// A Ray job; the payload is a [`JobBody`].
    Job,
}

/// Where a task may run, and where it would rather run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AffinityBody {
    /// Tags that the cluster must have, all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub required: Vec<String>,
    /// Tags that make a cluster more welcome.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub preferred: Vec<String>,
    /// Tags that the cluster must not have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub avoided: Vec<String>,
    /// Label rules on nodes: `arch=arm64`, `arch!=arm64`, `zone in (a, b)`, `zone not in (a, b)`,
    /// `gpu exists`, `gpu does not exist`, `gen > 7`, `gen < 7`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// A cluster that is wanted by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Wait for that cluster even when it is unhealthy.
    pub cluster_only: bool,
}

/// How often a task is tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetriesBody {
    /// After its worker, node or cluster was lost. Nothing said: 3 for a function, 0 otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<u16>,
    /// After its own code raised. Nothing said: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raised: Option<u16>,
    /// Wait before the first retry, in milliseconds; doubles with each one. Nothing said: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_ms: Option<u64>,
    /// The longest wait, in milliseconds. Nothing said: 30,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_max_ms: Option<u64>,
}

/// A whole Ray job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobBody {
    /// The shell command, run on the head node.
    pub entrypoint: String,
    /// Ray's runtime environment; the cluster's own when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub runtime_env: Option<serde_json::Value>,
    /// Carried along by Ray.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// `POST /v1/tasks`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmitBody {
    /// What the tasks share.
    pub specs: Vec<SpecBody>,
    /// The tasks.
    pub tasks: Vec<SubmitTaskBody>,
}

/// A task in `POST /v1/tasks`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmitTaskBody {
    /// The index of its specification in the body.
    #[serde(default)]
    pub spec: u32,
    /// What the submitter calls it; made by the server when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its arguments, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// Its arguments, in a blob uploaded before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<String>,
    /// For a job, instead of a payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobBody>,
}

/// The answer to `POST /v1/tasks`: one entry for each task, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SubmitAnswer {
    /// What became of each.
    pub results: Vec<SubmitResult>,
}

/// What became of one task of `POST /v1/tasks`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SubmitResult {
    /// Its id, when it was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Whether it had been accepted before.
    #[serde(default)]
    pub replayed: bool,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
}

/// A task, as `GET /v1/tasks` and `GET /v1/tasks/{id}` show it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskView {
    /// Such as `t42`.
    pub id: String,
    /// What its submitter calls it.
    pub key: String,
    /// A name for people.
    pub name: Option<String>,
    /// `function`, `actor`, `call` or `job`.
    pub kind: String,
    /// `queued`, `delayed`, `assigned`, `running`, `stopping`, `succeeded`, `failed` or `cancelled`.
    pub phase: String,
    /// The cluster that it is, or was last, assigned to.
    pub cluster: Option<String>,
    /// The node that it is assigned to.
    pub node: Option<String>,
    /// How often it was assigned.
    pub attempt: u32,
    /// Retries spent on losses.
    pub lost: u16,
    /// Retries spent on exceptions.
    pub raised: u16,
    /// Its priority.
    pub priority: f64,
    /// What it asks for.
    pub resources: BTreeMap<String, f64>,
    /// Where it may run.
    pub affinity: AffinityBody,
    /// The actor that it calls, and the method.
    pub call: Option<CallView>,
    /// When it was accepted.
    pub submitted_at: f64,
    /// When its last attempt started.
    pub started_at: Option<f64>,
    /// When it ended.
    pub ended_at: Option<f64>,
    /// How long its last attempt ran.
    pub run_ms: Option<f64>,
    /// Why it failed, or why its last attempt did.
    pub error: Option<FailureView>,
    /// The size of its arguments, in bytes.
    pub payload_bytes: u64,
    /// The size of its result, in bytes, once it ended.
    pub result_bytes: Option<u64>,
}

/// The target of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CallView {
    /// The actor's task id.
    pub actor: String,
    /// The method.
    pub method: String,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FailureView {
    /// `raised`, `unreadable`, `worker_died`, `not_started`, `cluster_lost`, `timed_out` or `actor_ended`.
    pub cause: String,
    /// One line.
    pub message: String,
}

/// `GET /v1/tasks`: newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskList {
    /// The tasks of this page.
    pub tasks: Vec<TaskView>,
    /// Pass this as `before` for the next page; `null` when there is none.
    pub next: Option<String>,
    /// How many tasks there are in each phase, in all.
    pub counts: BTreeMap<String, u64>,
}

/// `GET /v1/tasks/{id}/explain`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExplainView {
    /// The task; `null` for a dry run.
    pub task: Option<TaskView>,
    /// The short answer, as a code such as `QUEUED`.
    pub because: String,
    /// The short answer, as a sentence.
    pub message: String,
    /// Tasks that go before it.
    pub ahead: Option<u64>,
    /// What each cluster says.
    pub clusters: Vec<VerdictView>,
}

/// What one cluster says about one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VerdictView {
    /// The cluster.
    pub cluster: String,
    /// Whether it could start there now.
    pub fits: bool,
    /// A code such as `NO_ROOM`.
    pub code: String,
    /// A sentence with the numbers.
    pub message: String,
    /// The score, when it fits.
    pub score: Option<f64>,
    /// The parts of the score, by name.
    pub parts: BTreeMap<String, f64>,
}

/// What the owner of a cluster says about it: the body of `POST /v1/clusters`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterBody {
    /// Its name.
    pub name: String,
    /// The dashboard of the cluster, such as `http://127.0.0.11:8265`. When it is given, the
    /// control plane starts the agent there through the Jobs API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dashboard: Option<String>,
    /// The address at which an agent listens, such as `ws://10.0.0.7:7420`. When it is given, the
    /// control plane dials it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Where to find a secret: `env:NAME` or `file:PATH`. For a dashboard its Ray token, for a
    /// listening agent the token that it expects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Multiplies its score; 1 is neutral.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// Multiplies its score by 1.2.
    #[serde(default)]
    pub prefer: bool,
    /// Words that tasks may require, prefer or avoid.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Labels of all its nodes.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The runtime environment of work that brings none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub runtime_env: Option<serde_json::Value>,
    /// No new work while CPU, GPU or memory are used above this share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_utilisation: Option<f64>,
    /// Most tasks at once; 1 is serial mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tasks: Option<u32>,
    /// Least time between the starts of two jobs, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_interval_ms: Option<u64>,
    /// How long its agent may be silent before it counts as lost, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_after_ms: Option<u64>,
    /// Failures in a row to start work after which it gets none for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker_failures: Option<u32>,
    /// For how long, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker_recovery_ms: Option<u64>,
}

/// A cluster, as `GET /v1/clusters` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClusterView {
    /// What its owner says about it.
    pub spec: ClusterBody,
    /// `connecting`, `ready`, `suspect` or `lost`.
    pub link: String,
    /// Since when.
    pub since: f64,
    /// Whether it gets no new work.
    pub draining: bool,
    /// `closed`, `open`, `half_open` or `probing`.
    pub breaker: String,
    /// The Python that runs there.
    pub python: Option<String>,
    /// The Ray that runs there.
    pub ray: Option<String>,
    /// The version of its agent.
    pub agent_version: Option<String>,
    /// What it has in all.
    pub total: BTreeMap<String, f64>,
    /// What is free.
    pub free: BTreeMap<String, f64>,
    /// What others than ScheduleMesh use.
    pub foreign: BTreeMap<String, f64>,
    /// Its nodes.
    pub nodes: Vec<NodeView>,
    /// Tasks assigned to it.
    pub tasks: u64,
    /// What the control plane last ran into when it tried to reach the cluster.
    pub trouble: Option<String>,
}

/// A node of a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    /// Ray's node id.
    pub id: String,
    /// Its address.
    pub address: String,
    /// Whether it is there.
    pub alive: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it has in all.
    pub total: BTreeMap<String, f64>,
    /// What is free.
    pub free: BTreeMap<String, f64>,
}

/// `GET /health`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HealthView {
    /// `ok`.
    pub status: String,
    /// The server's version.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: f64,
}

/// `GET /ready`: whether work is accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReadyView {
    /// Whether it is.
    pub ready: bool,
    /// If not, why.
    pub why: Option<Problem>,
    /// The sequence number of the last durable event.
    pub seq: u64,
    /// How many tasks there are in each phase.
    pub tasks: BTreeMap<String, u64>,
    /// How many clusters there are in each state.
    pub clusters: BTreeMap<String, u64>,
}

/// A journaled event, as `GET /v1/events` streams it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// Its sequence number: resume after it.
    pub seq: u64,
    /// When it happened.
    pub at: f64,
    /// Its kind, such as `submitted`.
    pub kind: String,
    /// The tasks that it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<String>,
    /// The cluster that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// One sentence.
    pub message: String,
}

/// The answer to `PUT /v1/blobs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlobView {
    /// Its id.
    pub id: String,
    /// Its size in bytes.
    pub size: u64,
}

/// A token for the agent of one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentToken {
    /// The cluster.
    pub cluster: String,
    /// The token.
    pub token: String,
}

/// The body of `POST /v1/clusters/{name}/drain`; an empty body drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainBody {
    /// `true`: no new work goes there. `false`: work goes there again.
    pub draining: bool,
}

/// The answer to `POST /v1/clusters/{name}/test`: everything that was tried, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClusterTest {
    /// The cluster.
    pub cluster: String,
    /// Whether every check went well.
    pub ok: bool,
    /// What was tried.
    pub checks: Vec<CheckView>,
}

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckView {
    /// What, such as `agent` or `dashboard`.
    pub name: String,
    /// Whether it went well.
    pub ok: bool,
    /// What came back, or what went wrong.
    pub message: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// `GET /v1/config`: how the server was set up, and where each value came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConfigView {
    /// The settings, by name.
    pub settings: Vec<SettingView>,
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SettingView {
    /// Its name, such as `queue-max`.
    pub key: String,
    /// Its value, as one would write it.
    pub value: String,
    /// Where the value came from: `default`, a file with its line, a variable, or a flag.
    pub origin: String,
}
