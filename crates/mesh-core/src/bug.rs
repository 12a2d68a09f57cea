//! Faults that are put in on purpose, to see whether the tests would notice. Only a build with the
//! feature `bugs` has them; in every other build [`is`] is `false` and costs nothing.

use std::fmt;
use std::str::FromStr;

macro_rules! bugs {
    ($($(#[$doc:meta])* $name:ident = $word:literal),* $(,)?) => {
        /// A fault that somebody could well have written.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Bug {
            $($(#[$doc])* $name,)*
        }

        impl Bug {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its name.
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

bugs! {
    /// The answer to a submission or a command goes out before the commit.
    AckBeforeSync = "ack-before-sync",
    /// Work is sent to agents before the commit that assigned it.
    DispatchBeforeSync = "dispatch-before-sync",
    /// Reports are confirmed to the agent before they are durable.
    ConfirmBeforeSync = "confirm-before-sync",
    /// What an agent says of a replaced attempt counts.
    NoFenceCheck = "no-fence-check",
    /// The room of a lease is given back twice.
    ReleaseTwice = "release-twice",
    /// A key that was used is not recognised.
    DropDuplicateKey = "drop-duplicate-key",
    /// A lost attempt is tried again although it had been told to stop.
    RetryCancelled = "retry-cancelled",
    /// A lease is granted where there is no room for it.
    Overbook = "overbook",
    /// Room that becomes free is offered to nobody.
    LostWakeup = "lost-wakeup",
    /// A snapshot leaves out the newest lease.
    SnapshotWithoutLease = "snapshot-without-lease",
    /// After a failed commit the state keeps what was not made durable.
    KeepAfterFailure = "keep-after-failure",
    /// The wall clock decides when something is due.
    WallClock = "wall-clock",
    /// Who reads old events from the store loses one on the way.
    SkipCursor = "skip-cursor",
    /// A link that comes up is told only of new work.
    ForgetToResend = "forget-to-resend",
    /// A link that comes up is not told which of its attempts no longer count.
    KeepStale = "keep-stale",
    /// The bytes of a result are not kept.
    LoseResult = "lose-result",
    /// The first reports of a restarted agent are taken for those of its earlier life.
    MixUpLives = "mix-up-lives",
}

impl fmt::Display for Bug {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.word())
    }
}

impl FromStr for Bug {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|bug| bug.word() == text);
        known.copied().ok_or_else(|| {
            let words: Vec<_> = Self::ALL.iter().map(|bug| bug.word()).collect();
            format!("there is no bug {text:?}; there are {}", words.join(", "))
        })
    }
}

#[cfg(feature = "bugs")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Puts a fault into everything that runs on this thread, or takes it out.
#[cfg(feature = "bugs")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.with(|planted| planted.set(bug));
}

/// Whether this fault was put in.
#[cfg(feature = "bugs")]
pub fn is(bug: Bug) -> bool {
    PLANTED.with(|planted| planted.get() == Some(bug))
}

/// Whether this fault was put in: in this build there are none.
#[cfg(not(feature = "bugs"))]
#[inline]
pub const fn is(_bug: Bug) -> bool {
    false
}
