//! One of everything that a store may be asked to keep.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use mesh_core::event::Event;
use mesh_core::model::amount::{Amount, Resources};
use mesh_core::model::cluster::{AgentFacts, Breaker, ClusterSpec, Link, NodeFacts};
use mesh_core::model::id::{
    Attempt, ClusterId, ClusterName, Digest, Key, LeaseId, NodeId, SpecId, TaskId,
};
use mesh_core::model::label::{Affinity, LabelRule, LabelTest, Otherwise};
use mesh_core::model::priority::Priority;
use mesh_core::model::task::{
    BlobId, Cause, Data, End, Failure, OnLost, Outcome, Phase, PythonVersion, Retries, Shape, Stop,
    Task, TaskSpec, Work,
};
use mesh_core::model::time::{Span, Timestamp};
use mesh_core::snapshot::{ClusterRest, CodeRest, LeaseRest, NextIds, Snapshot};
use mesh_store::{Batch, Side};

const CLUSTER: ClusterId = ClusterId(3);
const LEASE: LeaseId = LeaseId(1 << 40);
const NODE: NodeId = NodeId(9);
const SPEC: SpecId = SpecId(2);
const UUID: u128 = 0x0193_b2c4_7a1e_7c3d_8e4f_0123_4567_89ab;

/// When the sample happened.
pub(crate) const AT: Timestamp = Timestamp::from_micros(1_795_000_000_000_000);
/// The last event of [`batches`].
pub(crate) const LAST: u64 = 35;
/// The digest of [`code`].
pub(crate) const CODE: Digest = Digest([0xab; 32]);

/// Every event, some of them with each of the things that may be in them.
pub(crate) fn events() -> Vec<Event> {
    let mut events = cluster_events();
    for (number, work) in works().into_iter().enumerate() {
        let number = u32::try_from(number).unwrap();
        events.push(Event::SpecDefined(SpecId(number), Arc::new(task_spec(work))));
    }
    events.extend(task_events());
    events
}

/// Everything in four commits.
pub(crate) fn batches() -> Vec<Batch> {
    let mut batches: Vec<_> = events()
        .chunks(10)
        .map(|events| Batch { at: AT, events: events.to_vec(), ..Batch::default() })
        .collect();
    batches[0].data = vec![
        (TaskId(1), Side::Payload, payload()),
        (TaskId(1), Side::Result, Bytes::from_static(b"result")),
        (TaskId(2), Side::Payload, Bytes::new()),
    ];
    batches[0].code = vec![(CODE, code())];
    batches[1].drop_data = vec![(TaskId(2), Side::Payload)];
    batches
}

/// The arguments of task 1.
pub(crate) fn payload() -> Bytes {
    (0..=255).collect::<Vec<u8>>().repeat(40).into()
}

/// The code of [`CODE`].
pub(crate) fn code() -> Bytes {
    Bytes::from_static(b"def f(): return 1")
}

/// A mesh at rest with one of everything in it.
pub(crate) fn snapshot() -> Snapshot {
    let links = [
        (Link::Awaited { since: AT }, Breaker::Closed),
        (Link::Up { since: AT }, Breaker::Counting { failures: 2 }),
        (Link::Suspect { since: AT }, Breaker::Open { until: AT }),
        (Link::Lost { since: AT }, Breaker::Probing { task: TaskId(1) }),
        (Link::Up { since: AT }, Breaker::HalfOpen),
    ];
    Snapshot {
        at: AT,
        tasks: phases().into_iter().zip(1..).map(|(phase, number)| task(number, phase)).collect(),
        specs: vec![(SPEC, Arc::new(task_spec(Work::Function(CODE))))],
        clusters: links.into_iter().map(|(link, breaker)| cluster(link, breaker)).collect(),
        leases: vec![LeaseRest {
            id: LEASE,
            cluster: CLUSTER,
            node: NODE,
            spec: SPEC,
            tasks: vec![TaskId(1), TaskId(2)],
        }],
        code: BTreeMap::from([(CODE, CodeRest { mean: Span::from_millis(3), runs: 7 })]),
        next: NextIds {
            task: TaskId(9),
            lease: LEASE.next(),
            cluster: CLUSTER.next(),
            spec: SPEC.next(),
        },
        forgotten: 5,
        forgotten_until: Timestamp::from_micros(41),
    }
}

fn cluster_events() -> Vec<Event> {
    vec![
        Event::ClusterAdded(CLUSTER, name("north"), Box::default()),
        Event::ClusterChanged(CLUSTER, Box::new(cluster_spec())),
        Event::ClusterDrained(CLUSTER, true),
        Event::ClusterLinked(CLUSTER, Box::new(agent())),
        Event::NodesSeen(CLUSTER, vec![(NODE, true, node()), (NODE.next(), false, node())]),
        Event::BreakerOpened(CLUSTER, AT),
        Event::BreakerHalfOpened(CLUSTER),
        Event::ClusterSuspected(CLUSTER),
        Event::ClusterLost(CLUSTER),
        Event::ClusterRemoved(CLUSTER),
    ]
}

fn task_events() -> Vec<Event> {
    let submitted = |number, key, name: Option<&str>, payload| Event::Submitted {
        task: TaskId(number),
        spec: SPEC,
        key,
        body: u64::MAX,
        name: name.map(Into::into),
        payload,
    };
    let ended = |number, outcome, result| Event::Ended {
        task: TaskId(number),
        outcome,
        result,
        ran: Span::from_secs(3),
    };
    vec![
        submitted(1, Key::Uuid(UUID), Some("é\u{1f600}"), Data::Inline(10_240)),
        submitted(2, Key::Text("train-00".into()), None, Data::None),
        submitted(3, Key::Uuid(u128::MAX), None, Data::Blob(BlobId(UUID), 1 << 40)),
        Event::Leased { lease: LEASE, cluster: CLUSTER, node: NODE, spec: SPEC },
        Event::Assigned(LEASE, vec![TaskId(1), TaskId(2)]),
        Event::Started(TaskId(1)),
        Event::Returned(TaskId(2)),
        Event::StopAsked(TaskId(1), Stop::Cancelled),
        Event::StopAsked(TaskId(1), Stop::TimedOut),
        Event::Retried { task: TaskId(1), failure: failure(Cause::WorkerDied), until: AT },
        Event::Requeued(TaskId(1)),
        ended(1, Outcome::Succeeded, Data::Inline(6)),
        ended(2, Outcome::Failed(failure(Cause::Raised)), Data::None),
        ended(3, Outcome::Cancelled, Data::None),
        Event::Released(LEASE),
        Event::LateReport(TaskId(1), Attempt(2)),
        Event::LateReport(TaskId(1), Attempt(u32::MAX)),
        Event::Forgotten(vec![TaskId(1), TaskId(u64::MAX)]),
        Event::Forgotten(Vec::new()),
        Event::CodeForgotten(vec![CODE]),
        Event::ClockSkipped(Span::from_secs(7)),
    ]
}

fn works() -> [Work; 4] {
    [
        Work::Function(CODE),
        Work::Actor(Digest([0; 32])),
        Work::Call { actor: TaskId(1), method: "step".into() },
        Work::Job,
    ]
}

fn task_spec(work: Work) -> TaskSpec {
    let kind = work.kind();
    TaskSpec {
        title: Some("train".into()),
        work,
        shape: Shape {
            kind,
            resources: resources(),
            affinity: affinity(),
            priority: Priority::default(),
            python: Some(PythonVersion { major: 3, minor: 11 }),
            runtime_env: Some(r#"{"pip":["x"]}"#.into()),
        },
        retries: Retries::default(),
        timeout: Some(Span::from_secs(60)),
        on_lost: OnLost::Replace,
        wait_for_growth: true,
    }
}

fn affinity() -> Affinity {
    let words = || BTreeSet::from(["a".to_owned(), "b".to_owned()]);
    let tests = [
        LabelTest::In(words()),
        LabelTest::NotIn(words()),
        LabelTest::Exists,
        LabelTest::DoesNotExist,
        LabelTest::Gt(i64::MIN),
        LabelTest::Lt(7),
    ];
    Affinity {
        required: BTreeSet::from(["linux".parse().unwrap()]),
        preferred: BTreeSet::from(["fast".parse().unwrap()]),
        avoided: BTreeSet::from(["old".parse().unwrap()]),
        labels: tests.into_iter().map(|test| LabelRule { key: "zone".into(), test }).collect(),
        cluster: Some(name("north")),
        otherwise: Otherwise::Wait,
    }
}

fn resources() -> Resources {
    Resources {
        cpu: Amount::from_units(0.5).unwrap(),
        gpu: Amount::whole(1),
        memory: Amount::MAX,
        custom: BTreeMap::from([("tpu".parse().unwrap(), Amount::from_steps(1))]),
    }
}

fn phases() -> Vec<Phase> {
    let end = |outcome, result| {
        Phase::Ended(Box::new(End {
            outcome,
            at: AT,
            started: Some(AT),
            ran: Span::from_secs(1),
            cluster: Some(CLUSTER),
            result,
        }))
    };
    vec![
        Phase::Queued,
        Phase::Delayed { until: AT, last: failure(Cause::ClusterLost) },
        Phase::Assigned { lease: LEASE },
        Phase::Running { lease: LEASE, since: AT },
        Phase::Stopping { lease: LEASE, why: Stop::TimedOut },
        end(Outcome::Succeeded, Data::Inline(6)),
        end(Outcome::Failed(failure(Cause::Unreadable)), Data::None),
        end(Outcome::Cancelled, Data::Blob(BlobId(1), 2)),
    ]
}

fn task(number: u64, phase: Phase) -> Task {
    Task {
        id: TaskId(number),
        key: Key::Text("train-00".into()),
        body: 17,
        name: Some("train".into()),
        spec: SPEC,
        payload: Data::Inline(3),
        submitted: AT,
        attempt: Attempt(2),
        lost: 1,
        raised: 2,
        avoid: Some(CLUSTER),
        phase,
    }
}

fn cluster(link: Link, breaker: Breaker) -> ClusterRest {
    ClusterRest {
        id: CLUSTER,
        name: name("north"),
        spec: cluster_spec(),
        link,
        agent: Some(agent()),
        draining: true,
        breaker,
        last_job: Some(AT),
        nodes: vec![(NODE, true, node())],
    }
}

fn cluster_spec() -> ClusterSpec {
    ClusterSpec {
        weight: Amount::from_units(1.25).unwrap(),
        prefer: true,
        tags: BTreeSet::from(["linux".parse().unwrap()]),
        labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
        max_utilisation: Amount::from_units(0.8).unwrap(),
        max_tasks: Some(4),
        reach: "http://127.0.0.1:8265".into(),
        ..ClusterSpec::default()
    }
}

fn agent() -> AgentFacts {
    AgentFacts {
        incarnation: UUID,
        python: PythonVersion { major: 3, minor: 11 },
        ray: "2.60.0".into(),
        version: "0.1.0".into(),
    }
}

fn node() -> NodeFacts {
    NodeFacts {
        name: "6f1d".parse().unwrap(),
        address: "10.0.0.1".into(),
        labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
        total: resources(),
        foreign: Resources::NONE,
    }
}

fn failure(cause: Cause) -> Failure {
    Failure { cause, message: "it is gone".into() }
}

fn name(text: &str) -> ClusterName {
    text.parse().unwrap()
}
