//! How fast the core decides, and how that grows with the number of tasks and nodes.
//!
//! For each size: nodes of 8 cores in 8 clusters, filled to the last core with long tasks, behind
//! them the queue. Measured is one turn of the wheel: a running task ends, its room is given to the
//! next task in the queue, and a new task is submitted. Prints one JSON object a line.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "a benchmark measures time, prints, and stops when something is wrong"
)]

use std::sync::Arc;
use std::time::Instant;

use mesh_core::command::{Report, Seen, Submission};
use mesh_core::model::amount::{Amount, Resources};
use mesh_core::model::cluster::{AgentFacts, ClusterSpec, NodeFacts};
use mesh_core::model::id::{Digest, Key, TaskId};
use mesh_core::model::label::{Affinity, Labels};
use mesh_core::model::priority::Priority;
use mesh_core::model::task::{Data, Kind, OnLost, PythonVersion, Retries, Shape, TaskSpec, Work};
use mesh_core::model::time::{Span, Timestamp};
use mesh_core::{Answer, Command, Event, Limits, Mesh};

const CLUSTERS: u32 = 8;
const CORES: u32 = 8;
const TURNS: usize = 20_000;

fn main() {
    // One size alone, for a profiler: `core 10000 1000 4`.
    let own: Vec<u64> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    if let [nodes, queued, shapes] = own.as_slice() {
        let (nodes, shapes) = (u32::try_from(*nodes).unwrap(), u16::try_from(*shapes).unwrap());
        return measure(nodes, *queued, shapes);
    }
    for (nodes, queued, shapes) in [
        (10, 1_000, 4),
        (10, 100_000, 4),
        (10, 1_000_000, 4),
        (10_000, 1_000, 4),
        (10_000, 100_000, 4),
        (10_000, 1_000_000, 4),
        (10_000, 1_000_000, 1_000),
    ] {
        measure(nodes, queued, shapes);
    }
}

struct Wheel {
    mesh: Mesh,
    now: Timestamp,
    submitted: u64,
    specs: Vec<Arc<TaskSpec>>,
    started: Vec<TaskId>,
}

fn measure(nodes: u32, queued: u64, shapes: u16) {
    let mut wheel = Wheel::new(nodes, shapes);
    while wheel.started.len() < usize::try_from(nodes * CORES).unwrap() {
        wheel.submit();
        wheel.schedule();
    }
    let resident = resident_bytes();
    for _ in 0..queued {
        wheel.submit();
        if wheel.submitted.is_multiple_of(1_000) {
            wheel.schedule();
        }
    }
    wheel.schedule();
    let per_task = resident_bytes().saturating_sub(resident) as f64 / queued as f64;
    let mut times = Vec::with_capacity(TURNS);
    let begun = Instant::now();
    for turn in 0..TURNS {
        let start = Instant::now();
        wheel.end_one(turn);
        wheel.schedule();
        times.push(start.elapsed().as_nanos());
        wheel.submit();
    }
    let per_second = TURNS as f64 / begun.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |percent: usize| times[times.len() * percent / 100];
    wheel.mesh.check().expect("the invariants hold");
    println!(
        "{{\"nodes\": {nodes}, \"queued\": {queued}, \"shapes\": {shapes}, \
         \"turns_per_s\": {per_second:.0}, \"end_and_place_p50_ns\": {}, \
         \"end_and_place_p99_ns\": {}, \"bytes_per_queued_task\": {per_task:.0}}}",
        at(50),
        at(99)
    );
}

impl Wheel {
    fn new(nodes: u32, shapes: u16) -> Self {
        let now = Timestamp::from_micros(1_000_000_000);
        let limits = Limits { ended_max: 1_000, ..Limits::default() };
        let mut mesh = Mesh::new(limits);
        for cluster in 0..CLUSTERS.min(nodes) {
            let name = format!("c{cluster}").parse().unwrap();
            run(&mut mesh, now, &Command::AddCluster(name, Box::<ClusterSpec>::default()));
            let name = format!("c{cluster}").parse().unwrap();
            let agent = Box::new(agent());
            run(&mut mesh, now, &Command::Link { cluster: name, agent, held: Vec::new() });
            let own = (0..nodes).filter(|node| node % CLUSTERS == cluster);
            let facts = own.map(|node| node_facts(cluster, node)).collect();
            let name = format!("c{cluster}").parse().unwrap();
            run(&mut mesh, now, &Command::Nodes(name, facts));
        }
        let specs = (0..shapes).map(|shape| Arc::new(spec(shape))).collect();
        Self { mesh, now, submitted: 0, specs, started: Vec::new() }
    }

    fn submit(&mut self) {
        self.submitted += 1;
        let index = usize::try_from(self.submitted).unwrap() % self.specs.len();
        let spec = Arc::clone(&self.specs[index]);
        let key = Key::Uuid(u128::from(self.submitted));
        let payload = Data::Inline(256);
        let command =
            Command::Submit(Submission { key, body: self.submitted, name: None, spec, payload });
        run(&mut self.mesh, self.now, &command);
    }

    fn schedule(&mut self) {
        for event in self.mesh.schedule(self.now) {
            if let Event::Assigned(_, tasks) = event {
                self.started.extend(tasks);
            }
        }
        self.mesh.take_changes();
    }

    /// Ends some running task, not always the oldest.
    fn end_one(&mut self, turn: usize) {
        let index = turn.wrapping_mul(2_654_435_761) % self.started.len();
        let id = self.started.swap_remove(index);
        self.now = self.now.after(Span::from_micros(10));
        let cluster = self.mesh.cluster_of(id).and_then(|id| self.mesh.cluster_by_id(id)).unwrap();
        let name = cluster.name.clone();
        let attempt = self.mesh.task(id).unwrap().attempt;
        let what = Seen::Finished { ran: Span::from_secs(60), result: Data::None };
        run(&mut self.mesh, self.now, &Command::Report(name, Report { task: id, attempt, what }));
        if self.mesh.next_timer().is_some_and(|due| due <= self.now) {
            run(&mut self.mesh, self.now, &Command::Tick);
        }
    }
}

fn run(mesh: &mut Mesh, now: Timestamp, command: &Command) -> Answer {
    let (events, answer) = mesh.decide(now, command).expect("the command is accepted");
    for event in &events {
        mesh.apply(now, event);
    }
    answer
}

fn agent() -> AgentFacts {
    AgentFacts {
        incarnation: 1,
        python: PythonVersion { major: 3, minor: 11 },
        ray: "2.60.0".into(),
        version: "0.1.0".into(),
    }
}

fn node_facts(cluster: u32, node: u32) -> NodeFacts {
    NodeFacts {
        name: format!("c{cluster}-{node}").parse().unwrap(),
        address: "127.0.0.11".into(),
        labels: Labels::new(),
        total: Resources::cpus(Amount::whole(CORES)),
        foreign: Resources::NONE,
    }
}

/// Shapes of one core that differ in how much memory they ask for: none.
fn spec(shape: u16) -> TaskSpec {
    let [high, low] = shape.to_be_bytes();
    let mut digest = [high; 32];
    digest[0] = low;
    TaskSpec {
        title: None,
        work: Work::Function(Digest(digest)),
        shape: Shape {
            kind: Kind::Function,
            resources: Resources::cpus(Amount::whole(1)),
            affinity: Affinity::default(),
            priority: Priority::DEFAULT,
            python: None,
            runtime_env: Some(shape.to_string().into()),
        },
        retries: Retries::default(),
        timeout: None,
        on_lost: OnLost::Replace,
        wait_for_growth: false,
    }
}

fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default() * 4096
}
