//! What clients were told, held against the journal.

use std::collections::BTreeMap;

use mesh_core::model::id::{Key, TaskId};
use mesh_core::model::task::Outcome;
use serde::{Deserialize, Serialize};

use super::{Journal, Law, Verdict, Violation, law};

/// Something that a client was told. As a line of JSON it is what the crash loop writes down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// A submission was accepted.
    Submitted {
        /// The key, as text.
        key: String,
        /// The number.
        task: u64,
    },
    /// A cancellation was accepted.
    Cancelled {
        /// The task.
        task: u64,
    },
    /// A task has ended.
    Ended {
        /// The task.
        task: u64,
        /// `succeeded`, `failed` or `cancelled`.
        outcome: String,
    },
}

/// Remembers what was told, and what was made of it.
#[derive(Debug, Default)]
pub struct Witness {
    accepted: BTreeMap<Key, TaskId>,
    cancelled: u64,
    ended: u64,
}

impl Witness {
    /// Judges what a client was told. The journal must hold everything that was durable when it was
    /// told.
    pub fn hear(&mut self, journal: &Journal, told: &Told) -> Verdict {
        match told {
            Told::Submitted { key, task } => {
                let id = TaskId(*task);
                let key: Key = key.parse().map_err(|error| {
                    Violation::new(Law::StepByStep, format!("{key:?} is no key: {error}"))
                })?;
                accepted(journal, &key, id)?;
                let earlier = self.accepted.insert(key.clone(), id);
                // A key in the user's own words is known for as long as the record of its task is.
                let same = |earlier: TaskId| earlier == id || journal.is_forgotten(earlier.min(id));
                law(Law::OneTaskForOneKey, earlier.is_none_or(same), || {
                    format!("{key} was acknowledged as {earlier:?}, and then as {id}")
                })
            }
            Told::Cancelled { task } => {
                self.cancelled += 1;
                law(Law::NeverAfterCancel, journal.is_final(TaskId(*task)), || {
                    format!(
                        "the cancellation of t{task} was acknowledged and is not in the journal"
                    )
                })
            }
            Told::Ended { task, outcome } => {
                self.ended += 1;
                let actual = journal.outcome(TaskId(*task)).map(word);
                law(Law::OneEnd, actual == Some(outcome.as_str()), || {
                    format!("t{task} was told to have {outcome}, the journal says {actual:?}")
                })
            }
        }
    }

    /// Judges once more, at the end, everything that was acknowledged.
    pub fn finish(&self, journal: &Journal) -> Verdict {
        self.accepted.iter().try_for_each(|(key, task)| accepted(journal, key, *task))
    }

    /// How many acknowledgements were judged.
    pub fn acknowledged(&self) -> u64 {
        let accepted = u64::try_from(self.accepted.len()).unwrap_or(u64::MAX);
        accepted + self.cancelled + self.ended
    }
}

fn accepted(journal: &Journal, key: &Key, id: TaskId) -> Verdict {
    match journal.task_of(key) {
        Some(task) => law(Law::OneTaskForOneKey, journal.key_of(id) == Some(key), || {
            format!("{key} was acknowledged as {id}, the journal has it as {task}")
        }),
        None => Err(Violation::new(
            Law::AcknowledgedIsDurable,
            format!("{key} was acknowledged as {id} and is not in the journal"),
        )),
    }
}

/// An outcome in one word.
pub fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "succeeded",
        Outcome::Failed(_) => "failed",
        Outcome::Cancelled => "cancelled",
    }
}
