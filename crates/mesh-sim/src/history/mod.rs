//! The promises, as laws that a history must keep. One implementation judges what the simulator does,
//! what a real server left on a real disk after it was killed, and what clients of real Ray clusters
//! were told. It shares no code with the core that it judges, but the vocabulary of the journal.

mod journal;
mod told;

use std::fmt;

pub use journal::Journal;
pub use told::{Told, Witness, word};

/// What a history must keep. The numbers are those of `docs/guarantees.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Law {
    /// G1: what was acknowledged is in the journal, whatever happened since.
    AcknowledgedIsDurable,
    /// G2: one key is one task.
    OneTaskForOneKey,
    /// G3: a task ends once, and nothing happens to it afterwards.
    OneEnd,
    /// G3: a result reads back as it was stored.
    ResultAsStored,
    /// G4: what happens to a task follows from what happened to it before.
    StepByStep,
    /// G5: who follows the journal sees every event once, in order.
    GapFree,
    /// G6: the journal and a snapshot lead to the state that decided.
    ReplayEqualsLive,
    /// G7: an attempt that was replaced changes nothing, and is not run beside its replacement.
    OneCurrentAttempt,
    /// G8: no attempt begins after a cancellation was acknowledged.
    NeverAfterCancel,
    /// G9: what was granted on a node is never more than it has, and is given back once.
    NoDoubleBooking,
    /// G12 and the clock: nothing is timed out or given up before its time.
    NotBeforeItsTime,
    /// When faults end, everything that was accepted ends.
    EverythingEnds,
    /// A program never stops working by itself.
    NoPanic,
}

impl Law {
    /// Every one.
    pub const ALL: [Self; 13] = [
        Self::AcknowledgedIsDurable,
        Self::OneTaskForOneKey,
        Self::OneEnd,
        Self::ResultAsStored,
        Self::StepByStep,
        Self::GapFree,
        Self::ReplayEqualsLive,
        Self::OneCurrentAttempt,
        Self::NeverAfterCancel,
        Self::NoDoubleBooking,
        Self::NotBeforeItsTime,
        Self::EverythingEnds,
        Self::NoPanic,
    ];

    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::AcknowledgedIsDurable => "acknowledged-is-durable",
            Self::OneTaskForOneKey => "one-task-for-one-key",
            Self::OneEnd => "one-end",
            Self::ResultAsStored => "result-as-stored",
            Self::StepByStep => "step-by-step",
            Self::GapFree => "gap-free",
            Self::ReplayEqualsLive => "replay-equals-live",
            Self::OneCurrentAttempt => "one-current-attempt",
            Self::NeverAfterCancel => "never-after-cancel",
            Self::NoDoubleBooking => "no-double-booking",
            Self::NotBeforeItsTime => "not-before-its-time",
            Self::EverythingEnds => "everything-ends",
            Self::NoPanic => "no-panic",
        }
    }
}

/// A law that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub law: Law,
    /// How.
    pub what: String,
}

impl Violation {
    /// A law was broken.
    pub fn new(law: Law, what: impl Into<String>) -> Self {
        Self { law, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.law.word(), self.what)
    }
}

impl std::error::Error for Violation {}

/// The verdict on a step.
pub type Verdict = Result<(), Violation>;

/// Holds when `holds` does.
pub(crate) fn law(law: Law, holds: bool, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(Violation::new(law, what())) }
}
