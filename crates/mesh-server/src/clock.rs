//! The only reader of the clock. Time never goes back and never stands still: a wall clock that is
//! behind what the journal says is not waited for, the time goes on from the journal's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use mesh_core::bug::{self, Bug};
use mesh_core::model::time::{Span, Timestamp};

/// How the time is reckoned: from the wall clock once, at the start, and from what has passed since.
/// A wall clock that is set, or that jumps, makes nothing due and keeps nothing from being due.
#[derive(Debug)]
pub struct Reckoning {
    start: Timestamp,
    floor: AtomicU64,
}

impl Reckoning {
    /// Begins at what the wall clock says, or at the time of the last journaled event when that is
    /// later.
    pub fn start(wall: Timestamp, journaled: Timestamp) -> Self {
        let start = wall.max(journaled);
        Self { start, floor: AtomicU64::new(start.micros()) }
    }

    /// The time when so much has passed since the start; never before any that was given earlier.
    pub fn time(&self, passed: Span, wall: impl FnOnce() -> Timestamp) -> Timestamp {
        let now = if bug::is(Bug::WallClock) { wall() } else { self.start.after(passed) };
        let earlier = self.floor.fetch_max(now.micros(), Ordering::Relaxed);
        now.max(Timestamp::from_micros(earlier))
    }
}

/// A clock that was read once and counts from there.
#[derive(Debug)]
pub struct Clock {
    reckoning: Reckoning,
    start: Instant,
}

impl Clock {
    /// Starts now, or at the time of the last journaled event when that is later.
    pub fn start(journaled: Timestamp) -> Self {
        Self { reckoning: Reckoning::start(wall(), journaled), start: Instant::now() }
    }

    /// The time; never before any that was given earlier.
    pub fn now(&self) -> Timestamp {
        let passed = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.reckoning.time(Span::from_micros(passed), wall)
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
fn wall() -> Timestamp {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(u64::try_from(wall.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp::from_micros(43_200_000_000);

    #[test]
    fn time_is_never_before_what_was_journaled() {
        let future = Timestamp::from_micros(u64::MAX / 2);
        let clock = Clock::start(future);
        assert!(clock.now() >= future);
        assert!(Clock::start(Timestamp::default()).now() < future);
    }

    #[test]
    fn time_passes_though_the_journal_is_ahead_of_the_wall_clock() {
        let reckoning = Reckoning::start(Timestamp::default(), NOON);
        let later = reckoning.time(Span::from_millis(1), Timestamp::default);
        assert_eq!(later, NOON.after(Span::from_millis(1)));
    }

    #[test]
    fn a_wall_clock_that_jumps_changes_nothing() {
        let reckoning = Reckoning::start(NOON, Timestamp::default());
        let jumped = || NOON.after(Span::from_secs(7_200));
        assert_eq!(reckoning.time(Span::from_secs(1), jumped), NOON.after(Span::from_secs(1)));
        assert_eq!(
            reckoning.time(Span::from_secs(2), Timestamp::default),
            NOON.after(Span::from_secs(2))
        );
    }
}
