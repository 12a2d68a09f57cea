//! The only reader of the clock. Time never goes back and never stands still: a wall clock that is
//! behind what the journal says is not waited for, the time goes on from the journal's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use mesh_core::bug::{self, Bug};
use mesh_core::model::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};

/// A wall clock that is ahead by less was not set; it is read no more precisely than that.
const SKIP_MIN: Span = Span::from_secs(1);

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

    /// Begins after another life whose time would be `truly` now, had it gone on. Where the wall clock
    /// was set forward meanwhile, that is told: so much time was skipped, and did not pass.
    pub fn resume(wall: Timestamp, journaled: Timestamp, truly: Option<Timestamp>) -> (Self, Span) {
        let Some(truly) = truly.map(|truly| truly.max(journaled)) else {
            return (Self::start(wall, journaled), Span::ZERO);
        };
        let skipped = wall.since(truly);
        let skipped = if skipped > SKIP_MIN { skipped } else { Span::ZERO };
        (Self::start(wall, truly), skipped)
    }

    /// The time when so much has passed since the start; never before any that was given earlier.
    pub fn time(&self, passed: Span, wall: impl FnOnce() -> Timestamp) -> Timestamp {
        let now = if bug::is(Bug::WallClock) { wall() } else { self.start.after(passed) };
        let earlier = self.floor.fetch_max(now.micros(), Ordering::Relaxed);
        now.max(Timestamp::from_micros(earlier))
    }
}

/// A moment by two clocks: the server's, and the one of the machine that counts from its last start,
/// asleep or awake, and that nobody sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Which start of the machine.
    boot: String,
    /// How long ago that was, in microseconds.
    uptime_us: u64,
    /// The server's time.
    time_us: u64,
}

impl Mark {
    /// What the server's time would be now, had it gone on; nothing after the machine was started
    /// again, or where it does not say when it was.
    fn now(&self) -> Option<Timestamp> {
        let (boot, uptime) = uptime()?;
        let passed = uptime.checked_sub(self.uptime_us).filter(|_| boot == self.boot)?;
        Some(Timestamp::from_micros(self.time_us.saturating_add(passed)))
    }
}

/// Which start of the machine this is, and how many microseconds ago it was. Linux says so.
fn uptime() -> Option<(String, u64)> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let (seconds, fraction) = uptime.split_whitespace().next()?.split_once('.')?;
    let hundredths: u64 = fraction.get(..2)?.parse().ok()?;
    let micros = seconds.parse::<u64>().ok()?.checked_mul(1_000_000)?;
    Some((boot.trim().to_owned(), micros.saturating_add(hundredths * 10_000)))
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

    /// Starts after another life that left this mark; how much time was skipped meanwhile.
    pub fn resume(journaled: Timestamp, mark: Option<&Mark>) -> (Self, Span) {
        let truly = mark.and_then(Mark::now);
        let (reckoning, skipped) = Reckoning::resume(wall(), journaled, truly);
        (Self { reckoning, start: Instant::now() }, skipped)
    }

    /// What the next life needs in order to tell how much time has passed.
    pub fn mark(&self) -> Option<Mark> {
        let (boot, uptime_us) = uptime()?;
        Some(Mark { boot, uptime_us, time_us: self.now().micros() })
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
    fn a_wall_clock_that_was_set_between_two_lives_skips_time_or_is_not_followed() {
        let (ahead, truly) = (NOON.after(Span::from_secs(7_200)), NOON.after(Span::from_secs(5)));
        let (reckoning, skipped) = Reckoning::resume(ahead, NOON, Some(truly));
        assert_eq!(skipped, Span::from_secs(7_195));
        assert_eq!(reckoning.time(Span::ZERO, || ahead), ahead);
        let (reckoning, skipped) = Reckoning::resume(Timestamp::default(), NOON, Some(truly));
        assert_eq!(skipped, Span::ZERO);
        assert_eq!(reckoning.time(Span::ZERO, || ahead), truly);
    }

    #[test]
    fn the_machine_tells_how_long_another_life_is_ago() {
        let clock = Clock::start(NOON);
        let Some(mark) = clock.mark() else { return }; // not on Linux
        let (next, skipped) = Clock::resume(NOON, Some(&mark));
        assert_eq!(skipped, Span::ZERO);
        assert!(next.now() >= clock.now().before(Span::from_secs(1)));
        let other = Mark { boot: "another".into(), ..mark };
        assert_eq!(other.now(), None);
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
