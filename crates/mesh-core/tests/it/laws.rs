//! What holds for every history: random commands against a checker of the whole state.

use std::sync::Arc;

use mesh_core::command::{Held, Report, Seen};
use mesh_core::model::cluster::ClusterSpec;
use mesh_core::model::id::{Attempt, Digest, TaskId};
use mesh_core::model::priority::Priority;
use mesh_core::model::task::{Cause, Data, OnLost, Outcome, Phase, TaskSpec, Work};
use mesh_core::model::time::{Span, Timestamp};
use mesh_core::{Command, Event, Limits, Mesh};
use proptest::prelude::*;

use crate::world::{World, agent, failed, finished, function, node, spec};

/// Something that can happen to a mesh, in numbers that are folded into range when it does.
#[derive(Clone, Debug)]
enum Step {
    Submit { kind: u8, code: u8, cores: u8, priority: u8, lost: u8, key: u8 },
    Cancel(u8),
    Report { cluster: u8, task: u8, what: u8, old: bool },
    Link { cluster: u8, life: u8, keep: bool },
    Unlink(u8),
    Nodes { cluster: u8, cores: [u8; 3], foreign: u8 },
    Cluster { cluster: u8, what: u8 },
    Restart(u16),
    Pass(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let submit = any::<[u8; 6]>().prop_map(|[kind, code, cores, priority, lost, key]| {
        Step::Submit { kind, code, cores, priority, lost, key }
    });
    let report = (any::<[u8; 3]>(), prop::bool::weighted(0.1))
        .prop_map(|([cluster, task, what], old)| Step::Report { cluster, task, what, old });
    let link = (any::<[u8; 2]>(), any::<bool>()).prop_map(|([cluster, life], keep)| Step::Link {
        cluster,
        life,
        keep,
    });
    let nodes = (any::<u8>(), any::<[u8; 3]>(), any::<u8>())
        .prop_map(|(cluster, cores, foreign)| Step::Nodes { cluster, cores, foreign });
    let step = prop_oneof![
        8 => submit,
        2 => any::<u8>().prop_map(Step::Cancel),
        12 => report,
        2 => link,
        1 => any::<u8>().prop_map(Step::Unlink),
        2 => nodes,
        1 => any::<[u8; 2]>().prop_map(|[cluster, what]| Step::Cluster { cluster, what }),
        1 => any::<u16>().prop_map(Step::Restart),
        2 => any::<u16>().prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..120)
}

const CLUSTERS: [&str; 3] = ["a", "b", "c"];

fn cluster(number: u8) -> &'static str {
    CLUSTERS[usize::from(number) % CLUSTERS.len()]
}

/// A task that exists, or the one after the last.
fn task(world: &World, number: u8) -> TaskId {
    let newest = world.mesh.tasks_before(None).next().map_or(1, |task| task.id.0);
    TaskId(1 + u64::from(number) % (newest + 1))
}

fn wanted(world: &World, step: &Step) -> Option<TaskSpec> {
    let Step::Submit { kind, code, cores, priority, lost, .. } = step else { return None };
    let digest = Digest([code % 3; 32]);
    let work = match kind % 8 {
        0 => Work::Actor(digest),
        1 | 2 => Work::Call { actor: task(world, *code), method: "m".into() },
        3 => Work::Job,
        _ => Work::Function(digest),
    };
    let cores = if matches!(work, Work::Call { .. }) { 0 } else { u32::from(cores % 4) };
    let mut spec = spec(work, cores);
    spec.shape.priority = Priority::try_from(f64::from(priority % 3)).unwrap();
    spec.on_lost = [OnLost::Replace, OnLost::Wait, OnLost::Fail][usize::from(lost % 3)];
    spec.retries.lost = u16::from(lost % 2);
    spec.retries.raised = u16::from(lost / 2 % 2);
    spec.timeout = (lost % 5 == 0).then_some(Span::from_millis(20));
    Some(spec)
}

fn take(world: &mut World, step: &Step) {
    match step {
        Step::Submit { key, .. } => {
            let spec = Arc::new(wanted(world, step).unwrap());
            drop(world.submit(&format!("key-{key}"), &spec));
        }
        Step::Cancel(number) => {
            let id = task(world, *number);
            drop(world.send(&Command::Cancel(id)));
        }
        Step::Report { cluster: number, task: id, what, old } => {
            let id = task(world, *id);
            let attempt = world.mesh.task(id).map(|task| task.attempt).unwrap_or_default();
            let attempt = if *old { Attempt(attempt.0.saturating_sub(1)) } else { attempt };
            let holder = world.mesh.cluster_of(id).and_then(|id| world.mesh.cluster_by_id(id));
            let holder = holder.map(|cluster| cluster.name.clone());
            let named = cluster(*number).parse().unwrap();
            let from = if what % 10 == 9 { named } else { holder.unwrap_or(named) };
            let what = match what % 9 {
                0..=2 => finished(u64::from(*what)),
                3 | 4 => Seen::Started,
                5 => Seen::Returned,
                6 => Seen::Stopped { ran: Span::ZERO },
                7 => failed(Cause::Raised),
                _ => failed([Cause::NotStarted, Cause::WorkerDied][usize::from(*number % 2)]),
            };
            drop(world.send(&Command::Report(from, Report { task: id, attempt, what })));
        }
        Step::Link { cluster: number, life, keep } => {
            let name = cluster(*number).parse().unwrap();
            let id = world.mesh.cluster(&name).map(|cluster| cluster.id);
            let tasks = world.mesh.tasks_before(None);
            let held = tasks
                .filter(|task| *keep && id.is_some() && world.mesh.cluster_of(task.id) == id)
                .map(|task| Held { task: task.id, attempt: task.attempt })
                .collect();
            let agent = Box::new(agent(u128::from(life % 3)));
            drop(world.send(&Command::Link { cluster: name, agent, held }));
        }
        Step::Unlink(number) => {
            drop(world.send(&Command::Unlink(cluster(*number).parse().unwrap())));
        }
        Step::Nodes { cluster: number, cores, foreign } => {
            let name = cluster(*number);
            let nodes = (0..).zip(cores).filter(|(_, cores)| *cores % 4 > 0).map(|(n, cores)| {
                let mut node = node(&format!("{name}-{n}"), u32::from(cores % 4));
                node.foreign.cpu = mesh_core::model::amount::Amount::whole(u32::from(foreign % 2));
                if cores % 5 == 0 {
                    node.labels.insert("zone".into(), "z".into());
                }
                node
            });
            drop(world.send(&Command::Nodes(name.parse().unwrap(), nodes.collect())));
        }
        Step::Cluster { cluster: number, what } => change_cluster(world, *number, *what),
        Step::Restart(millis) => {
            let skipped = Span::from_millis(u64::from(*millis));
            world.now = world.now.after(skipped);
            drop(world.send(&Command::Restart { skipped }));
        }
        Step::Pass(millis) => drop(world.pass(Span::from_millis(u64::from(*millis)))),
    }
}

fn change_cluster(world: &mut World, number: u8, what: u8) {
    let name = cluster(number).parse().unwrap();
    let command = match what % 5 {
        0 => Command::RemoveCluster { name, force: what > 100 },
        1 => Command::DrainCluster(name, what > 100),
        2 => {
            let labels = [("tier".into(), (what % 2).to_string())].into();
            let max_tasks = (what > 100).then_some(1);
            let spec = ClusterSpec { labels, max_tasks, ..small_breaker() };
            Command::ChangeCluster(name, Box::new(spec))
        }
        _ => Command::AddCluster(name, Box::new(small_breaker())),
    };
    drop(world.send(&command));
}

fn small_breaker() -> ClusterSpec {
    ClusterSpec {
        breaker_failures: 2,
        breaker_recovery: Span::from_millis(500),
        lost_after: Span::from_millis(300),
        ..ClusterSpec::default()
    }
}

fn world() -> World {
    let limits = Limits {
        queue_max: 40,
        retention: Span::from_secs(5),
        ended_max: 20,
        lookahead_tasks: 5,
        calls_ahead: 2,
        leases_per_node: 6,
        ..Limits::default()
    };
    let mut world = World::new(limits);
    for name in ["a", "b"] {
        world.cluster(name, small_breaker(), &[2, 3]);
    }
    world
}

/// What was said of a task in the journal: nothing is assigned, started or ended after its end.
fn each_task_ends_once(journal: &[Event]) -> Result<(), String> {
    let mut ended = std::collections::BTreeSet::new();
    for event in journal {
        let touched: Vec<TaskId> = match event {
            Event::Assigned(_, tasks) => tasks.clone(),
            Event::Started(task)
            | Event::Returned(task)
            | Event::Requeued(task)
            | Event::StopAsked(task, _)
            | Event::Retried { task, .. }
            | Event::Ended { task, .. } => vec![*task],
            _ => Vec::new(),
        };
        if let Some(task) = touched.iter().find(|task| ended.contains(*task)) {
            return Err(format!("{event:?} after the end of {task}"));
        }
        if let Event::Ended { task, .. } = event {
            ended.insert(*task);
        }
    }
    Ok(())
}

/// The longest that healing may take, in rounds of "every agent reports what it has".
const ROUNDS: usize = 2_000;

/// Once every cluster is up, with room for everything, and agents do their work, everything ends.
fn heal(world: &mut World) -> Result<(), String> {
    for name in CLUSTERS {
        let id = name.parse().unwrap();
        drop(world.send(&Command::AddCluster(name.parse().unwrap(), Box::new(small_breaker()))));
        drop(world.send(&Command::ChangeCluster(id, Box::new(small_breaker()))));
        drop(world.send(&Command::DrainCluster(name.parse().unwrap(), false)));
        drop(world.send(&Command::Unlink(name.parse().unwrap())));
        world.link(name, 99).map_err(|error| error.to_string())?;
        let nodes = vec![node(&format!("{name}-big"), 8)];
        drop(world.send(&Command::Nodes(name.parse().unwrap(), nodes)));
    }
    for _ in 0..ROUNDS {
        world.pass(Span::from_millis(700));
        let counts = *world.mesh.counts();
        if counts.waiting() + counts.assigned + counts.running + counts.stopping == 0 {
            return Ok(());
        }
        let active: Vec<TaskId> = world
            .mesh
            .tasks_before(None)
            .filter(|task| task.phase.lease().is_some())
            .map(|task| task.id)
            .collect();
        for id in active {
            work_off(world, id);
        }
        let idle_actors: Vec<TaskId> = idle_actors(&world.mesh);
        for id in idle_actors {
            drop(world.send(&Command::Cancel(id)));
        }
    }
    let left = world.mesh.tasks_before(None).filter(|task| !task.phase.is_ended());
    let left: Vec<_> = left.map(|task| world.mesh.explain(world.now, task.id)).collect();
    Err(format!("after {ROUNDS} rounds: {left:#?}"))
}

fn work_off(world: &mut World, id: TaskId) {
    let Some(task) = world.mesh.task(id) else { return };
    let is_actor =
        matches!(world.mesh.spec(task.spec).map(|spec| &spec.work), Some(Work::Actor(_)));
    let what = match &task.phase {
        Phase::Stopping { .. } => Seen::Stopped { ran: Span::ZERO },
        Phase::Assigned { .. } if is_actor => Seen::Started,
        Phase::Running { .. } if is_actor => return,
        Phase::Assigned { .. } | Phase::Running { .. } => finished(1),
        Phase::Queued | Phase::Delayed { .. } | Phase::Ended(_) => return,
    };
    let name = world.mesh.cluster_of(id).and_then(|id| world.mesh.cluster_by_id(id));
    let name = name.map(|cluster| cluster.name.to_string()).unwrap();
    world.report(&name, id, what);
}

/// Actors that are up and have nobody left who calls them.
fn idle_actors(mesh: &Mesh) -> Vec<TaskId> {
    let actor_of = |task: &mesh_core::model::task::Task| match mesh.spec(task.spec).map(|s| &s.work)
    {
        Some(Work::Call { actor, .. }) if !task.phase.is_ended() => Some(*actor),
        _ => None,
    };
    let called: std::collections::BTreeSet<TaskId> =
        mesh.tasks_before(None).filter_map(actor_of).collect();
    mesh.tasks_before(None)
        .filter(|task| matches!(task.phase, Phase::Running { .. }))
        .filter(|task| !called.contains(&task.id))
        .map(|task| task.id)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// `World::send` checks every invariant after every step; here the journal is held against the
    /// state that it led to, and everything that was accepted must come to an end.
    #[test]
    fn every_history_balances_replays_and_ends(steps in steps()) {
        let mut world = world();
        for step in &steps {
            take(&mut world, step);
        }
        let live = world.mesh.snapshot();
        prop_assert_eq!(&world.replayed().snapshot(), &live, "replayed state differs");
        let restored = Mesh::restore(live.clone(), world.limits);
        prop_assert_eq!(restored.check(), Ok(()));
        prop_assert_eq!(&restored.snapshot(), &live, "restored state differs");
        let healed = heal(&mut world);
        prop_assert_eq!(healed, Ok(()));
        let journal: Vec<Event> = world.journal.iter().map(|(_, event)| event.clone()).collect();
        prop_assert_eq!(each_task_ends_once(&journal), Ok(()));
    }

    /// A restored mesh decides like the one that was never written down, as far as its estimates go.
    #[test]
    fn a_restored_mesh_still_ends_everything(steps in steps()) {
        let mut world = world();
        for step in &steps {
            take(&mut world, step);
        }
        world.mesh = Mesh::restore(world.mesh.snapshot(), world.limits);
        drop(world.send(&Command::Restart { skipped: Span::ZERO }));
        prop_assert_eq!(heal(&mut world), Ok(()));
    }
}

#[test]
fn equal_tasks_run_in_the_order_of_their_submission() {
    let mut world = World::new(Limits::default());
    world.cluster("a", ClusterSpec::default(), &[1]);
    let mut one = function(1, 1);
    let mut other = function(2, 1);
    one.timeout = Some(Span::from_secs(60));
    other.retries.raised = 1;
    let specs = [Arc::new(one), Arc::new(other)];
    for number in 0..20 {
        world.submit(&format!("k{number}"), &specs[number % 2]).unwrap();
    }
    let mut order = Vec::new();
    while let Some(id) = world
        .mesh
        .tasks_before(None)
        .filter(|task| task.phase.lease().is_some())
        .map(|task| task.id)
        .min()
    {
        order.push(id.0);
        world.report("a", id, finished(100));
    }
    assert_eq!(order, (1..=20).collect::<Vec<_>>());
}

#[test]
fn a_result_that_came_late_changes_nothing() {
    let mut world = World::new(Limits::default());
    world.cluster("a", ClusterSpec::default(), &[1]);
    let id = world.submit("k", &Arc::new(function(1, 1))).unwrap();
    let first = world.mesh.task(id).unwrap().attempt;
    world.report("a", id, failed(Cause::WorkerDied));
    world.pass(Span::from_secs(1));
    let before = world.mesh.snapshot();
    let late = Report { task: id, attempt: first, what: finished(1) };
    let events = world.send(&Command::Report("a".parse().unwrap(), late)).unwrap().0;
    assert_eq!(events, [Event::LateReport(id, first)]);
    assert_eq!(world.mesh.snapshot(), before);
    world.report("a", id, finished(1));
    let Phase::Ended(end) = &world.mesh.task(id).unwrap().phase else { panic!("not ended") };
    assert_eq!((&end.outcome, end.result), (&Outcome::Succeeded, Data::Inline(5)));
}

/// A UUID of version 7 that was made at this moment.
fn key_made_at(at: Timestamp) -> String {
    let bits = u128::from(at.micros() / 1_000) << 80 | 7 << 76 | 1;
    mesh_core::model::id::Key::Uuid(bits).to_string()
}

#[test]
fn a_key_that_may_have_been_used_is_refused_and_never_runs_twice() {
    let mut world = World::new(Limits { ended_max: 1, ..Limits::default() });
    world.cluster("a", ClusterSpec::default(), &[1]);
    let old = key_made_at(world.now);
    let id = world.submit(&old, &Arc::new(function(1, 1))).unwrap();
    world.report("a", id, finished(1));
    for number in 0..3 {
        world.pass(Span::from_secs(1));
        let id = world.submit(&format!("later-{number}"), &Arc::new(function(1, 1))).unwrap();
        world.report("a", id, finished(1));
    }
    world.pass(Span::from_secs(1));
    assert!(world.mesh.task(id).is_none(), "its record went, because there were too many");
    let refused = world.submit(&old, &Arc::new(function(1, 1))).unwrap_err();
    assert_eq!(refused.code(), "KEY_EXPIRED");
    let fresh = key_made_at(world.now);
    world.submit(&fresh, &Arc::new(function(1, 1))).unwrap();
}

#[test]
fn large_arguments_bound_how_much_is_handed_out_ahead() {
    let limits = Limits { lookahead_bytes: 25, ..Limits::default() };
    let mut world = World::new(limits);
    world.cluster("a", ClusterSpec::default(), &[1]);
    let spec = Arc::new(function(1, 1));
    let first = world.submit("first", &spec).unwrap();
    for number in 0..9 {
        world.submit(&format!("k{number}"), &spec).unwrap();
    }
    world.report("a", first, finished(0));
    // Each has ten bytes of arguments, so two fit.
    assert_eq!(world.mesh.counts().assigned, 2);
}

#[test]
fn a_driver_that_takes_on_nothing_gives_back_what_nothing_uses() {
    let mut world = World::new(Limits::default());
    world.cluster("a", ClusterSpec::default(), &[1]);
    let spec = Arc::new(function(1, 1));
    let first = world.submit("k1", &spec).unwrap();
    world.submit("k2", &spec).unwrap();
    let attempt = world.mesh.task(first).unwrap().attempt;
    let report = Report { task: first, attempt, what: finished(1) };
    let command = Command::Report("a".parse().unwrap(), report);
    let (events, _) = world.mesh.decide(world.now, &command).unwrap();
    for event in &events {
        world.mesh.apply(world.now, event);
    }
    let given_back = world.mesh.give_back_idle(world.now);
    assert!(matches!(given_back[..], [Event::Released(_)]), "{given_back:?}");
    assert_eq!(world.mesh.check(), Ok(()));
    assert_eq!(world.mesh.counts().queued, 1, "the next one waits until there is room to say so");
    let later = world.mesh.schedule(world.now);
    assert!(later.iter().any(|event| matches!(event, Event::Assigned(..))), "{later:?}");
}
