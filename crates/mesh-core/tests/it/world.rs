//! A mesh with its journal: what a driver does, without a disk, checked at every step.

use std::sync::Arc;

use mesh_core::command::{Report, Seen, Submission};
use mesh_core::model::amount::{Amount, Resources};
use mesh_core::model::cluster::{AgentFacts, ClusterSpec, NodeFacts};
use mesh_core::model::id::{Digest, Key, TaskId};
use mesh_core::model::label::{Affinity, Labels};
use mesh_core::model::priority::Priority;
use mesh_core::model::task::{
    Cause, Data, Failure, Kind, OnLost, PythonVersion, Retries, Shape, TaskSpec, Work,
};
use mesh_core::model::time::{Span, Timestamp};
use mesh_core::{Answer, Command, Event, Limits, Mesh, Rejection};

/// A mesh, its journal and its clock.
pub(crate) struct World {
    pub(crate) mesh: Mesh,
    pub(crate) now: Timestamp,
    pub(crate) journal: Vec<(Timestamp, Event)>,
    pub(crate) limits: Limits,
}

impl World {
    pub(crate) fn new(limits: Limits) -> Self {
        let now = Timestamp::from_micros(1_000_000_000);
        Self { mesh: Mesh::new(limits), now, journal: Vec::new(), limits }
    }

    /// Decides, applies, schedules, and checks everything.
    pub(crate) fn send(&mut self, command: &Command) -> Result<(Vec<Event>, Answer), Rejection> {
        let (mut events, answer) = self.mesh.decide(self.now, command)?;
        for event in &events {
            self.mesh.apply(self.now, event);
        }
        events.extend(self.mesh.schedule(self.now));
        self.journal.extend(events.iter().map(|event| (self.now, event.clone())));
        if let Err(wrong) = self.mesh.check() {
            panic!("after {command:?}\n{events:#?}\n{}", wrong.join("\n"));
        }
        Ok((events, answer))
    }

    /// Lets time pass, and everything happen that is due.
    pub(crate) fn pass(&mut self, span: Span) -> Vec<Event> {
        self.now = self.now.after(span);
        let mut events = Vec::new();
        let mut rounds = 0;
        while self.mesh.next_timer().is_some_and(|due| due <= self.now) {
            events.extend(self.send(&Command::Tick).unwrap().0);
            rounds += 1;
            assert!(rounds < 10_000, "timers that never end");
        }
        events
    }

    /// The mesh that the journal alone gives.
    pub(crate) fn replayed(&self) -> Mesh {
        let mut mesh = Mesh::new(self.limits);
        for (at, event) in &self.journal {
            mesh.apply(*at, event);
        }
        mesh
    }

    pub(crate) fn submit(&mut self, key: &str, spec: &Arc<TaskSpec>) -> Result<TaskId, Rejection> {
        let command = Command::Submit(Submission {
            key: key.parse::<Key>().unwrap(),
            body: 1,
            name: None,
            spec: Arc::clone(spec),
            payload: Data::Inline(10),
        });
        match self.send(&command)?.1 {
            Answer::Submitted { task, .. } => Ok(task),
            Answer::Done => panic!("a submission is answered with a number"),
        }
    }

    pub(crate) fn report(&mut self, cluster: &str, task: TaskId, what: Seen) -> Vec<Event> {
        let attempt = self.mesh.task(task).map(|task| task.attempt).unwrap_or_default();
        let report = Report { task, attempt, what };
        self.send(&Command::Report(cluster.parse().unwrap(), report)).unwrap().0
    }

    pub(crate) fn link(&mut self, cluster: &str, life: u128) -> Result<Vec<Event>, Rejection> {
        let agent = Box::new(agent(life));
        let cluster = cluster.parse().unwrap();
        self.send(&Command::Link { cluster, agent, held: Vec::new() }).map(|(events, _)| events)
    }

    /// A cluster that is up, with nodes of so many cores.
    pub(crate) fn cluster(&mut self, name: &str, spec: ClusterSpec, cores: &[u32]) {
        let id = name.parse().unwrap();
        self.send(&Command::AddCluster(id, Box::new(spec))).unwrap();
        self.link(name, 1).unwrap();
        let nodes = (0..).zip(cores).map(|(n, cores)| node(&format!("{name}-{n}"), *cores));
        self.send(&Command::Nodes(name.parse().unwrap(), nodes.collect())).unwrap();
    }
}

pub(crate) fn agent(incarnation: u128) -> AgentFacts {
    AgentFacts {
        incarnation,
        python: PythonVersion { major: 3, minor: 11 },
        ray: "2.60.0".into(),
        version: "0.1.0".into(),
    }
}

pub(crate) fn node(name: &str, cores: u32) -> NodeFacts {
    NodeFacts {
        name: name.parse().unwrap(),
        address: "127.0.0.11".into(),
        labels: Labels::new(),
        total: Resources::cpus(Amount::whole(cores)),
        foreign: Resources::NONE,
    }
}

pub(crate) fn spec(work: Work, cores: u32) -> TaskSpec {
    let kind = work.kind();
    TaskSpec {
        title: None,
        work,
        shape: Shape {
            kind,
            resources: Resources::cpus(Amount::whole(cores)),
            affinity: Affinity::default(),
            priority: Priority::DEFAULT,
            python: Some(PythonVersion { major: 3, minor: 11 }),
            runtime_env: None,
        },
        retries: Retries { lost: if kind == Kind::Call { 0 } else { 3 }, ..Retries::default() },
        timeout: None,
        on_lost: OnLost::Replace,
        wait_for_growth: false,
    }
}

pub(crate) fn function(code: u8, cores: u32) -> TaskSpec {
    spec(Work::Function(Digest([code; 32])), cores)
}

pub(crate) fn finished(millis: u64) -> Seen {
    Seen::Finished { ran: Span::from_millis(millis), result: Data::Inline(5) }
}

pub(crate) fn failed(cause: Cause) -> Seen {
    let failure = Failure::new(cause, "boom");
    Seen::Failed { ran: Span::from_millis(1), failure, details: Data::None }
}
