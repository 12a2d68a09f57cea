//! Every metric: name, unit, help and labels, in one table. Counters and histograms are fed by the
//! driver; what can be read off the state is read when somebody asks.

use std::time::Duration;

use mesh_api::problem::Problem;
use mesh_core::model::amount::Resources;
use mesh_core::model::cluster::Breaker;
use mesh_core::model::task::{Outcome, Phase};
use mesh_core::model::time::Timestamp;
use mesh_core::{Event, Mesh};
use mesh_store::{Batch, Space};
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::handle::Handle;

/// What the driver counts.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    submitted: Counter,
    ended: Family<OutcomeLabel, Counter>,
    retries: Counter,
    late: Counter,
    assigned: Counter,
    schedule_ms: Histogram,
    queue_ms: Histogram,
    run_ms: Histogram,
    commits: Counter,
    commit_ms: Histogram,
    batch_events: Histogram,
    disk_free: Float,
    disk_free_ratio: Float,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabel {
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClusterLabel {
    cluster: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    cluster: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabel {
    cluster: String,
    resource: &'static str,
}

impl Metrics {
    /// All of them, at zero.
    pub(crate) fn new() -> Self {
        let millis = || Histogram::new(exponential_buckets(0.1, 2.0, 20));
        let metrics = Self {
            registry: Registry::with_prefix("schedulemesh"),
            submitted: Counter::default(),
            ended: Family::default(),
            retries: Counter::default(),
            late: Counter::default(),
            assigned: Counter::default(),
            schedule_ms: millis(),
            queue_ms: millis(),
            run_ms: millis(),
            commits: Counter::default(),
            commit_ms: millis(),
            batch_events: Histogram::new(exponential_buckets(1.0, 2.0, 18)),
            disk_free: Float::default(),
            disk_free_ratio: Float::default(),
        };
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        let registry = &mut self.registry;
        registry.register("tasks_submitted", "Tasks accepted", self.submitted.clone());
        registry.register("tasks_ended", "Tasks ended, by outcome", self.ended.clone());
        registry.register("task_retries", "Attempts tried again", self.retries.clone());
        registry.register(
            "late_reports",
            "Reports of attempts that no longer count",
            self.late.clone(),
        );
        registry.register("assignments", "Tasks given room", self.assigned.clone());
        registry.register(
            "task_schedule_latency_ms",
            "Milliseconds from acceptance to the first assignment",
            self.schedule_ms.clone(),
        );
        registry.register(
            "task_queue_time_ms",
            "Milliseconds from acceptance to the start, for tasks that were seen to start",
            self.queue_ms.clone(),
        );
        registry.register(
            "task_run_time_ms",
            "Milliseconds that attempts ran",
            self.run_ms.clone(),
        );
        registry.register("store_commits", "Durable commits", self.commits.clone());
        registry.register("store_commit_ms", "Milliseconds of a commit", self.commit_ms.clone());
        registry.register("store_commit_events", "Events in a commit", self.batch_events.clone());
        registry.register(
            "state_disk_free_bytes",
            "Bytes that are free on the disk of the state directory",
            self.disk_free.clone(),
        );
        registry.register(
            "state_disk_free_ratio",
            "The part of that disk that is free, from 0 to 1; told of in the log below 0.1 and 0.05",
            self.disk_free_ratio.clone(),
        );
        self
    }

    /// Takes note of the room on the disk.
    #[expect(
        clippy::as_conversions,
        clippy::cast_precision_loss,
        reason = "all numbers are floats there"
    )]
    pub(crate) fn disk(&self, space: Space) {
        self.disk_free.set(space.free as f64);
        self.disk_free_ratio.set(space.free_ratio());
    }

    /// Counts a commit.
    pub(crate) fn committed(&self, batch: &Batch, took: Duration) {
        self.commits.inc();
        self.commit_ms.observe(took.as_secs_f64() * 1_000.0);
        self.batch_events.observe(f64::from(u32::try_from(batch.events.len()).unwrap_or(u32::MAX)));
    }

    /// Counts durable events, which have become true in `mesh`.
    pub(crate) fn count(&self, mesh: &Mesh, at: Timestamp, events: &[Event]) {
        for event in events {
            match event {
                Event::Submitted { .. } => {
                    self.submitted.inc();
                }
                Event::Assigned(_, tasks) => {
                    self.assigned.inc_by(u64::try_from(tasks.len()).unwrap_or(0));
                    let first = tasks.iter().filter_map(|task| mesh.task(*task));
                    for task in first.filter(|task| task.attempt.0 == 1) {
                        self.schedule_ms.observe(millis(at.since(task.submitted)));
                    }
                }
                Event::Started(task) => {
                    if let Some(task) = mesh.task(*task) {
                        self.queue_ms.observe(millis(at.since(task.submitted)));
                    }
                }
                Event::Retried { .. } => {
                    self.retries.inc();
                }
                Event::Ended { outcome, ran, .. } => {
                    let outcome = match outcome {
                        Outcome::Succeeded => "succeeded",
                        Outcome::Failed(_) => "failed",
                        Outcome::Cancelled => "cancelled",
                    };
                    self.ended.get_or_create(&OutcomeLabel { outcome }).inc();
                    self.run_ms.observe(millis(*ran));
                }
                Event::LateReport(..) => {
                    self.late.inc();
                }
                _ => {}
            }
        }
    }
}

fn millis(span: mesh_core::model::time::Span) -> f64 {
    Duration::from_micros(span.micros()).as_secs_f64() * 1_000.0
}

/// All metrics, in the text format of Prometheus.
pub(crate) async fn render(handle: &Handle) -> Result<String, Problem> {
    let state = handle.read(state_registry).await?;
    let (mut text, mut more) = (String::new(), String::new());
    let failed = |error: std::fmt::Error| {
        Problem::new("INTERNAL", format!("the metrics can't be written: {error}"), "")
    };
    encode(&mut more, &handle.shared.metrics.registry).map_err(failed)?;
    encode(&mut text, &state).map_err(failed)?;
    let text = text.trim_end_matches("# EOF\n");
    Ok(format!("{text}{more}"))
}

/// What can be read off the state.
fn state_registry(mesh: &Mesh, now: Timestamp) -> Registry {
    let mut registry = Registry::with_prefix("schedulemesh");
    let phases: Family<PhaseLabel, Gauge> = Family::default();
    for (phase, count) in mesh.counts().named() {
        phases.get_or_create(&PhaseLabel { phase }).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    registry.register("tasks", "Tasks of which there is a record, by phase", phases);
    let oldest: Gauge<f64, std::sync::atomic::AtomicU64> = Gauge::default();
    oldest.set(oldest_wait(mesh, now));
    registry.register(
        "queue_oldest_wait_ms",
        "Milliseconds that the oldest of the newest queued tasks waits",
        oldest,
    );
    clusters(mesh, now, &mut registry);
    registry
}

/// How long the longest-waiting of the newest thousand tasks has waited.
fn oldest_wait(mesh: &Mesh, now: Timestamp) -> f64 {
    let newest = mesh.tasks_before(None).take(1_000);
    let queued = newest.filter(|task| matches!(task.phase, Phase::Queued));
    queued.map(|task| millis(now.since(task.submitted))).fold(0.0, f64::max)
}

type Float = Gauge<f64, std::sync::atomic::AtomicU64>;

fn clusters(mesh: &Mesh, now: Timestamp, registry: &mut Registry) {
    let total: Family<ResourceLabel, Float> = Family::default();
    let used: Family<ResourceLabel, Float> = Family::default();
    let nodes: Family<ClusterLabel, Gauge> = Family::default();
    let tasks: Family<ClusterLabel, Gauge> = Family::default();
    let leases: Family<ClusterLabel, Gauge> = Family::default();
    let since: Family<ClusterLabel, Float> = Family::default();
    let links: Family<StateLabel, Gauge> = Family::default();
    let breakers: Family<StateLabel, Gauge> = Family::default();
    for cluster in mesh.clusters() {
        let name = cluster.name.to_string();
        let busy = cluster.total().minus_or_zero(cluster.free());
        for (resource, read) in RESOURCES {
            let label = ResourceLabel { cluster: name.clone(), resource };
            total.get_or_create(&label).set(read(cluster.total()));
            used.get_or_create(&label).set(read(&busy));
        }
        let label = ClusterLabel { cluster: name.clone() };
        let alive = cluster.nodes.iter().filter(|node| node.alive).count();
        nodes.get_or_create(&label).set(i64::try_from(alive).unwrap_or(i64::MAX));
        let on = mesh.tasks_on(cluster.id);
        tasks.get_or_create(&label).set(i64::try_from(on).unwrap_or(i64::MAX));
        leases.get_or_create(&label).set(i64::try_from(cluster.leases()).unwrap_or(i64::MAX));
        since.get_or_create(&label).set(millis(now.since(cluster.link.since())));
        for state in ["connecting", "ready", "suspect", "lost"] {
            let label = StateLabel { cluster: name.clone(), state };
            links.get_or_create(&label).set(i64::from(cluster.link.word() == state));
        }
        for state in ["closed", "open", "half_open", "probing"] {
            let label = StateLabel { cluster: name.clone(), state };
            breakers.get_or_create(&label).set(i64::from(breaker_word(&cluster.breaker) == state));
        }
    }
    registry.register("cluster_resource_total", "What a cluster has", total);
    registry.register("cluster_resource_used", "What of it is granted or used by others", used);
    registry.register("cluster_nodes", "Nodes that are there", nodes);
    registry.register("cluster_tasks", "Tasks assigned to a cluster", tasks);
    registry.register("cluster_leases", "Grants on a cluster", leases);
    registry.register("cluster_link", "1 for the state of a cluster's link", links);
    registry.register(
        "cluster_link_since_ms",
        "Milliseconds since the link changed its state",
        since,
    );
    registry.register("cluster_breaker", "1 for the state of a cluster's breaker", breakers);
}

/// Reads one resource.
type Share = fn(&Resources) -> f64;

/// The resources that have metrics; custom ones would make labels without bound.
const RESOURCES: [(&str, Share); 3] = [
    ("CPU", |resources| resources.cpu.units()),
    ("GPU", |resources| resources.gpu.units()),
    ("memory", |resources| resources.memory.units()),
];

/// One word for the state of a breaker.
pub fn breaker_word(breaker: &Breaker) -> &'static str {
    match breaker {
        Breaker::Closed | Breaker::Counting { .. } => "closed",
        Breaker::Open { .. } => "open",
        Breaker::HalfOpen => "half_open",
        Breaker::Probing { .. } => "probing",
    }
}
