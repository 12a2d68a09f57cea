//! Faults that were put in on purpose.

use mesh_core::bug::{self, Bug};
use mesh_sim::plan::Plan;
use mesh_sim::{canary, shrink};

/// The number of seeds within which every planted fault must be noticed.
const WITHIN: u64 = 200;

#[test]
fn every_planted_fault_is_noticed() {
    for bug in Bug::ALL {
        let canary = canary::hunt(*bug, WITHIN);
        assert!(canary.seed.is_some(), "{canary}");
    }
}

#[test]
fn what_is_noticed_can_be_told_in_a_small_world() {
    bug::plant(Some(Bug::DropDuplicateKey));
    let seed = canary::hunt(Bug::DropDuplicateKey, WITHIN).seed.unwrap();
    bug::plant(Some(Bug::DropDuplicateKey));
    let plan = Plan::new(seed);
    let smallest = shrink::shrink(&plan).unwrap();
    bug::plant(None);
    assert!(smallest.tasks < plan.tasks, "{smallest}");
    assert!(smallest.faults.len() < plan.faults.len().max(1), "{smallest}");
}
