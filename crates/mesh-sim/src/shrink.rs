//! Making a world that breaks a law smaller, as long as it still breaks that law: first without whole
//! faults, then with fewer of everything.

use mesh_core::model::time::Span;

use crate::history::Law;
use crate::plan::Plan;
use crate::world;

/// The smallest plan that was found to break the law that this one breaks; nothing when it breaks none.
pub fn shrink(plan: &Plan) -> Option<Plan> {
    let law = broken(plan)?;
    let mut best = plan.clone();
    loop {
        let smaller = candidates(&best).into_iter().find(|plan| broken(plan) == Some(law));
        match smaller {
            Some(plan) => best = plan,
            None => return Some(best),
        }
    }
}

fn broken(plan: &Plan) -> Option<Law> {
    world::run(plan, false).verdict.err().map(|broken| broken.law)
}

/// Plans that are smaller in one way.
fn candidates(plan: &Plan) -> Vec<Plan> {
    let mut smaller = Vec::new();
    let half = plan.faults.len() / 2;
    if half > 0 {
        let (first, second) = plan.faults.split_at(half);
        smaller.push(Plan { faults: first.to_vec(), ..plan.clone() });
        smaller.push(Plan { faults: second.to_vec(), ..plan.clone() });
    }
    for index in 0..plan.faults.len() {
        let mut faults = plan.faults.clone();
        faults.remove(index);
        smaller.push(Plan { faults, ..plan.clone() });
    }
    let less = |number: usize| [number / 2, number.saturating_sub(1)];
    for tasks in less(plan.tasks).into_iter().filter(|tasks| *tasks > 0 && *tasks < plan.tasks) {
        smaller.push(Plan { tasks, ..plan.clone() });
    }
    if plan.clients > 1 {
        smaller.push(Plan { clients: plan.clients - 1, ..plan.clone() });
    }
    if plan.clusters > 1 {
        smaller.push(Plan { clusters: plan.clusters - 1, ..plan.clone() });
    }
    if plan.nodes > 1 {
        smaller.push(Plan { nodes: plan.nodes - 1, ..plan.clone() });
    }
    if plan.trouble > Span::from_millis(200) {
        let trouble = Span::from_micros(plan.trouble.micros() / 10 * 8);
        smaller.push(Plan { trouble, ..plan.clone() });
    }
    smaller
}
