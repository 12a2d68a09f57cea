//! Whole worlds.

use mesh_core::model::time::Span;
use mesh_sim::plan::{Fault, Plan};
use mesh_sim::{shrink, sweep, world};

#[test]
fn no_law_is_broken_in_the_first_hundred_worlds() {
    let outcome = sweep::sweep(0, 100, None, &|_, _| {});
    assert_eq!(outcome.broken, []);
    let stats = &outcome.stats;
    assert!(stats.tasks > 3_000 && stats.acknowledged > 6_000 && stats.lives > 200, "{stats:?}");
    let missing: Vec<_> =
        Fault::ALL.iter().filter(|fault| !stats.faults.contains_key(fault)).collect();
    assert!(missing.is_empty(), "these faults never came: {missing:?}");
}

#[test]
fn a_seed_is_the_same_world_each_time_to_the_last_line() {
    for seed in [3, 17, 42] {
        let (one, other) = (world::run(&Plan::new(seed), true), world::run(&Plan::new(seed), true));
        assert_eq!(one.fingerprint, other.fingerprint);
        assert_eq!(one.stats, other.stats);
        assert_eq!(one.story, other.story);
    }
}

#[test]
fn on_a_day_without_faults_everything_is_done_soon() {
    let plan = Plan { faults: Vec::new(), trouble: Span::from_secs(10), ..Plan::new(1) };
    let ended = world::run(&plan, false);
    assert_eq!(ended.verdict, Ok(()));
    assert!(ended.stats.time < Span::from_secs(120), "{:?}", ended.stats);
}

#[test]
fn a_world_without_a_broken_law_can_not_be_shrunk() {
    assert_eq!(shrink::shrink(&Plan::new(5)), None);
}
