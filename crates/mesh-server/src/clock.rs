//! The only reader of the clock. Time never goes back and never stands still: a wall clock that is
//! behind what the journal says is not waited for, the time goes on from the journal's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use mesh_core::model::time::Timestamp;

/// A clock that was read once and counts from there.
#[derive(Debug)]
pub struct Clock {
    wall: u64,
    start: Instant,
    floor: AtomicU64,
}

impl Clock {
    /// Starts now, or at the time of the last journaled event when that is later.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    pub fn start(journaled: Timestamp) -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = u64::try_from(wall.as_micros()).unwrap_or(u64::MAX);
        let wall = wall.max(journaled.micros());
        Self { wall, start: Instant::now(), floor: AtomicU64::new(wall) }
    }

    /// The time; never before any that was given earlier.
    pub fn now(&self) -> Timestamp {
        let passed = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let now = self.wall.saturating_add(passed);
        let earlier = self.floor.fetch_max(now, Ordering::Relaxed);
        Timestamp::from_micros(now.max(earlier))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_never_before_what_was_journaled() {
        let future = Timestamp::from_micros(u64::MAX / 2);
        let clock = Clock::start(future);
        assert!(clock.now() >= future);
        assert!(Clock::start(Timestamp::default()).now() < future);
    }

    #[test]
    fn time_passes_though_the_journal_is_ahead_of_the_wall_clock() {
        let clock = Clock::start(Timestamp::from_micros(u64::MAX / 2));
        let first = clock.now();
        let waited = Instant::now();
        while waited.elapsed() < std::time::Duration::from_millis(1) {
            std::hint::spin_loop();
        }
        assert!(clock.now() > first);
    }
}
