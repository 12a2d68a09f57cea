//! The only parser between wire and domain. What has passed it is trusted ever after; what has not
//! is refused with every mistake at once, each with the path of its field.

mod agent;
mod cluster;
mod label;
mod spec;
mod submit;

use std::collections::BTreeMap;
use std::fmt::Display;

use mesh_core::model::amount::{Amount, Resources};
use mesh_core::model::id::{Digest, ResourceName, TaskId};
use mesh_core::model::task::{BlobId, Cause, Data, Failure, Outcome};

pub use agent::{Reported, agent_facts, held, incarnation, nodes, reported, stop_frame};
pub use cluster::{Reach, cluster, cluster_body, reach};
pub use label::label_rule;
pub use spec::{affinity_body, task_spec};
pub use submit::{Accept, Payload, Prepared};

use crate::agent::{BlobFrame, DataFrame, RemoteError};
use crate::problem::Problem;

/// Mistakes of one body, gathered so that all of them are told at once.
#[derive(Debug, Default)]
pub(crate) struct Mistakes(Vec<String>);

impl Mistakes {
    /// Notes what is wrong with a field.
    pub(crate) fn add(&mut self, field: &str, what: impl Display) {
        self.0.push(format!("{field}: {what}"));
    }

    /// The value, or the default after noting why there is none.
    pub(crate) fn take<T: Default, E: Display>(&mut self, field: &str, value: Result<T, E>) -> T {
        self.keep(field, value).unwrap_or_default()
    }

    /// The value, or nothing after noting why there is none.
    pub(crate) fn keep<T, E: Display>(&mut self, field: &str, value: Result<T, E>) -> Option<T> {
        value.map_err(|error| self.add(field, error)).ok()
    }

    /// Nothing, or the refusal that lists them all.
    pub(crate) fn verdict(self, what: &str) -> Result<(), Problem> {
        let message = match self.0.len() {
            0 => return Ok(()),
            1 => format!("{what} has a mistake"),
            count => format!("{what} has {count} mistakes"),
        };
        let mut problem = Problem::new("INVALID", message, "correct the fields that are listed");
        problem.details = self.0;
        Err(problem)
    }
}

/// Reads resources in Ray's names.
pub(crate) fn resources(
    field: &str,
    wire: &BTreeMap<String, f64>,
    mistakes: &mut Mistakes,
) -> Resources {
    let mut read = Resources::NONE;
    for (name, units) in wire {
        let field = format!("{field}.{name}");
        let amount: Amount = mistakes.take(&field, Amount::from_units(*units));
        match name.as_str() {
            "CPU" => read.cpu = amount,
            "GPU" => read.gpu = amount,
            "memory" => read.memory = amount,
            other => {
                let name = mistakes.keep(&field, other.parse::<ResourceName>());
                if let Some(name) = name.filter(|_| !amount.is_zero()) {
                    read.custom.insert(name, amount);
                }
            }
        }
    }
    read
}

/// Writes resources in Ray's names; zeros are left out.
pub fn resources_map(resources: &Resources) -> BTreeMap<String, f64> {
    let named = [("CPU", resources.cpu), ("GPU", resources.gpu), ("memory", resources.memory)];
    let custom = resources.custom.iter().map(|(name, amount)| (name.as_str(), *amount));
    named
        .into_iter()
        .chain(custom)
        .filter(|(_, amount)| !amount.is_zero())
        .map(|(name, amount)| (name.to_owned(), amount.units()))
        .collect()
}

/// Reads a BLAKE3 digest in hex.
pub fn digest(text: &str) -> Result<Digest, Problem> {
    blake3::Hash::from_hex(text).map(|hash| Digest(*hash.as_bytes())).map_err(|_why| {
        Problem::new(
            "INVALID",
            format!("{text:?} is not a BLAKE3 digest"),
            "send the digest of the bytes as 64 hexadecimal digits",
        )
    })
}

/// The digest of some bytes.
pub fn digest_of(bytes: &[u8]) -> Digest {
    Digest(*blake3::hash(bytes).as_bytes())
}

/// Reads the id of a blob.
pub fn blob_id(text: &str) -> Result<BlobId, Problem> {
    let plain = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let bits = if plain { u128::from_str_radix(text, 16).ok() } else { None };
    bits.map(BlobId).ok_or_else(|| {
        Problem::new(
            "UNKNOWN_BLOB",
            format!("{text:?} is not the id of a blob"),
            "use the id that the upload answered, 32 hexadecimal digits",
        )
    })
}

/// Writes the id of a blob.
pub fn blob_text(id: BlobId) -> String {
    format!("{:032x}", id.0)
}

/// Reads a task id such as `t42`.
pub fn task_id(text: &str) -> Result<TaskId, Problem> {
    text.parse().map_err(|error| {
        Problem::new(
            "INVALID",
            format!("{text:?}: {error}"),
            "use the id that the submission answered, or `key:` and the key",
        )
    })
}

/// The frame of some data, given its bytes when it is inline; nothing when they are missing.
pub fn data_frame(data: Data, inline: Option<bytes::Bytes>) -> DataFrame {
    match data {
        Data::None => DataFrame::None,
        Data::Inline(_) => inline.map_or(DataFrame::None, DataFrame::Inline),
        Data::Blob(id, size) => DataFrame::Blob(BlobFrame { id: blob_text(id), size }),
    }
}

/// The word for an outcome.
pub fn outcome_word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "succeeded",
        Outcome::Failed(_) => "failed",
        Outcome::Cancelled => "cancelled",
    }
}

/// The word for a cause of failure.
pub fn cause_word(cause: Cause) -> &'static str {
    match cause {
        Cause::Raised => "raised",
        Cause::Unreadable => "unreadable",
        Cause::WorkerDied => "worker_died",
        Cause::NotStarted => "not_started",
        Cause::ClusterLost => "cluster_lost",
        Cause::TimedOut => "timed_out",
        Cause::ActorEnded => "actor_ended",
    }
}

/// A failure that the control plane found itself, in the words of one that an agent reported.
pub fn remote_error(failure: &Failure) -> RemoteError {
    RemoteError {
        cause: cause_word(failure.cause).into(),
        message: failure.message.clone().into(),
        ..RemoteError::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_as_they_were_written() {
        let id = BlobId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(blob_id(&blob_text(id)).unwrap(), id);
        let code = digest_of(b"code");
        assert_eq!(digest(&code.to_string()).unwrap(), code);
    }

    #[test]
    fn texts_that_are_no_ids_are_refused_with_what_would_be_one() {
        let why = |problem: Problem| problem.to_string();
        assert_eq!(
            why(blob_id("../../etc/passwd").unwrap_err()),
            "[UNKNOWN_BLOB] \"../../etc/passwd\" is not the id of a blob\n  \
             fix: use the id that the upload answered, 32 hexadecimal digits"
        );
        assert_eq!(
            why(digest("abc").unwrap_err()),
            "[INVALID] \"abc\" is not a BLAKE3 digest\n  \
             fix: send the digest of the bytes as 64 hexadecimal digits"
        );
        assert_eq!(
            why(task_id("42x").unwrap_err()),
            "[INVALID] \"42x\": a task id looks like t42\n  \
             fix: use the id that the submission answered, or `key:` and the key"
        );
    }

    #[test]
    fn resources_travel_in_the_names_of_ray() {
        let wire = BTreeMap::from([
            ("CPU".to_owned(), 0.5),
            ("memory".to_owned(), 1_048_576.0),
            ("disk".to_owned(), 2.0),
            ("GPU".to_owned(), 0.0),
        ]);
        let mut mistakes = Mistakes::default();
        let read = resources("resources", &wire, &mut mistakes);
        mistakes.verdict("it").unwrap();
        assert_eq!(read.to_string(), "CPU=0.5 memory=1 MiB disk=2");
        let written = resources_map(&read);
        assert_eq!(written.len(), 3, "{written:?}");
        assert!((written["CPU"] - 0.5).abs() < f64::EPSILON);
    }
}
