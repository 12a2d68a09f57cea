//! How the next life of the server ends, drawn from the seed.

use std::fmt;
use std::time::Duration;

use mesh_fail::POINTS;

/// The longest time from the start at which a server is killed that may not be up yet.
const START_MAX: Duration = Duration::from_millis(150);
/// The longest time that a server works before it is killed.
const LOAD_MAX: Duration = Duration::from_millis(900);

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// `kill -9` so long after it was started, whatever it is doing then.
    Start(Duration),
    /// `kill -9` so long after it takes work.
    Load(Duration),
    /// It kills itself at a failpoint, the so-manieth time that it passes it.
    Point(usize, u64),
    /// It is stopped for a while; then it is killed, or goes on for a while before it is.
    Frozen {
        /// How long it is stopped.
        stopped: Duration,
        /// How long it goes on; nothing when it is killed as it is.
        on: Option<Duration>,
    },
    /// Its disk fails in one of some ways; later it is killed.
    Fault(usize),
    /// Its disk is slow; later it is killed.
    Slow(Duration),
    /// It is asked to end, and ends in peace.
    Peace(Duration),
}

/// How a failpoint is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// By working.
    Work,
    /// By a first start, in an empty directory.
    Birth,
    /// By a clean end.
    Goodbye,
    /// When a commit finds the disk full, once.
    Full,
    /// When a commit finds it full although the reserve was given up.
    FullTwice,
    /// When there is no reserve yet.
    NoReserve,
}

/// How disks fail: what, and how it shows. The place of `{n}` is taken by a number.
pub(crate) const FAULTS: [&str; 8] = [
    "store.append.begin=broken({n})",
    "store.append.before_commit=broken({n})",
    "store.append.after_commit=broken({n})",
    "store.append.before_commit=full({n},1)",
    "store.append.begin=full({n},4)",
    "store.snapshot.before_part=broken(1)",
    "blob.before_sync=broken(1,3)",
    "blob.write=full(1,4)",
];

/// Draws lives, so that every failpoint gets its turn.
#[derive(Debug)]
pub(crate) struct Lives {
    random: fastrand::Rng,
    /// How often a server was ordered to kill itself at each point.
    ordered: Vec<u64>,
    /// How often it did.
    pub(crate) killed: Vec<u64>,
    drawn: u64,
}

impl Lives {
    pub(crate) fn new(seed: u64) -> Self {
        let none = vec![0; POINTS.len()];
        let random = fastrand::Rng::with_seed(seed);
        Self { random, ordered: none.clone(), killed: none, drawn: 0 }
    }

    /// The next life, now that each point was passed so often.
    pub(crate) fn next(&mut self, passes: &[u64]) -> End {
        self.drawn += 1;
        if self.drawn.is_multiple_of(12) {
            return End::Peace(self.up_to(LOAD_MAX));
        }
        match self.random.u8(..100) {
            0..58 => self.point(passes),
            58..70 => End::Start(self.up_to(START_MAX)),
            70..86 => End::Load(self.up_to(LOAD_MAX)),
            86..91 => End::Frozen {
                stopped: Duration::from_millis(self.random.u64(200..2_000)),
                on: self.random.bool().then(|| self.up_to(LOAD_MAX)),
            },
            91..97 => End::Fault(self.random.usize(..FAULTS.len())),
            _ => End::Slow(Duration::from_millis(self.random.u64(20..150))),
        }
    }

    /// A failpoint that had its turn least often, and which pass of it.
    fn point(&mut self, passes: &[u64]) -> End {
        let fewest = self.ordered.iter().min().copied().unwrap_or(0);
        let least = (0..POINTS.len()).filter(|point| self.ordered[*point] == fewest);
        let least: Vec<usize> = least.collect();
        let point = least[self.random.usize(..least.len())];
        self.ordered[point] += 1;
        let usual = passes.get(point).map_or(0, |passes| passes / self.drawn);
        let nth = match way(POINTS[point]) {
            Way::Work => self.random.u64(1..=usual.max(1)),
            _ => 1,
        };
        End::Point(point, nth)
    }

    /// The orders with which a server is started for such a life.
    pub(crate) fn orders(&mut self, end: End) -> String {
        let n = self.random.u64(5..80);
        match end {
            End::Point(point, nth) => {
                let kill = format!("{}=kill({nth})", POINTS[point]);
                match way(POINTS[point]) {
                    Way::Full => format!("store.append.begin=full({n},1);{kill}"),
                    Way::FullTwice => format!("store.append.before_commit=full({n},2);{kill}"),
                    Way::Work | Way::Birth | Way::Goodbye | Way::NoReserve => kill,
                }
            }
            End::Fault(fault) => FAULTS[fault].replace("{n}", &n.to_string()),
            End::Slow(pause) => format!("store.append.before_commit=pause({})", pause.as_millis()),
            End::Start(_) | End::Load(_) | End::Frozen { .. } | End::Peace(_) => String::new(),
        }
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.random.u64(..u64::try_from(most.as_micros()).unwrap_or(1)))
    }
}

/// How a failpoint is reached.
pub(crate) fn way(point: &str) -> Way {
    match point {
        "store.reserve.before_release" | "store.reserve.after_release" => Way::Full,
        "engine.commit.failed" => Way::FullTwice,
        "store.reserve.before_hold" | "store.reserve.after_hold" => Way::NoReserve,
        "store.close" => Way::Goodbye,
        _ if point.starts_with("engine.fold.") => Way::Goodbye,
        _ if point.starts_with("state.token.")
            || point.starts_with("state.secret.")
            || point.starts_with("store.create.") =>
        {
            Way::Birth
        }
        _ => Way::Work,
    }
}

impl End {
    /// What it is called in reports.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Start(_) => "while it started",
            Self::Load(_) => "while it worked",
            Self::Point(..) => "at a failpoint",
            Self::Frozen { on: None, .. } => "while it was stopped",
            Self::Frozen { on: Some(_), .. } => "after it was stopped and went on",
            Self::Fault(_) => "after its disk failed",
            Self::Slow(_) => "while its disk was slow",
            Self::Peace(_) => "asked to end",
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Point(point, nth) => write!(out, "at {} ({nth})", POINTS[*point]),
            other => write!(out, "{other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_ordered_is_understood_and_every_point_gets_its_turn() {
        let mut lives = Lives::new(7);
        let passes = vec![500; POINTS.len()];
        for _life in 0..600 {
            let end = lives.next(&passes);
            let orders = lives.orders(end);
            mesh_fail::orders(&orders).unwrap();
        }
        assert!(lives.ordered.iter().all(|ordered| *ordered >= 3), "{:?}", lives.ordered);
    }

    #[test]
    fn the_same_seed_draws_the_same_lives() {
        let draw = |seed| {
            let mut lives = Lives::new(seed);
            (0..50).map(|_| lives.next(&[])).collect::<Vec<_>>()
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }
}
