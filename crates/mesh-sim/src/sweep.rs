//! Many seeds, on all cores.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::history::Violation;
use crate::plan::Plan;
use crate::world::{self, Stats};

/// How often progress is told.
const PROGRESS: u64 = 1_000;

/// What came of many seeds.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What was done, all together.
    pub stats: Stats,
    /// The seeds that broke a law.
    pub broken: Vec<(u64, Violation)>,
    /// How long it took.
    pub took: Duration,
}

/// Lives through the worlds of `count` seeds from `from` on. `progress` is told how many are done.
pub fn sweep(
    from: u64,
    count: u64,
    jobs: Option<NonZeroUsize>,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Outcome {
    let jobs = jobs.or_else(|| std::thread::available_parallelism().ok());
    let begun = Instant::now();
    let next = AtomicU64::new(0);
    let outcome = Mutex::new(Outcome::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs.map_or(1, NonZeroUsize::get) {
            scope.spawn(|| {
                loop {
                    let done = next.fetch_add(1, Ordering::Relaxed);
                    if done >= count {
                        return;
                    }
                    let ended = world::run(&Plan::new(from + done), false);
                    let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
                    outcome.stats.add(&ended.stats);
                    if let Err(broken) = ended.verdict {
                        outcome.broken.push((from + done, broken));
                    }
                    drop(outcome);
                    if (done + 1).is_multiple_of(PROGRESS) {
                        progress(done + 1, count);
                    }
                }
            });
        }
    });
    let mut outcome = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcome.broken.sort_by_key(|(seed, _)| *seed);
    outcome.took = begun.elapsed();
    outcome
}
