//! Submissions.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use mesh_core::model::id::{Digest, Key, NAME_LEN_MAX};
use mesh_core::model::task::{BlobId, Data, TaskSpec, Work};

use super::{Mistakes, blob_id, task_spec};
use crate::INLINE_MAX;
use crate::agent::DataFrame;
use crate::client_link::SubmitTask;
use crate::problem::Problem;
use crate::v1::{SpecBody, SubmitTaskBody};

/// A task to accept: parsed, checked, ready for the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    /// What the submitter calls it.
    pub key: Key,
    /// The digest of all that is submitted under the key.
    pub body: u64,
    /// A name for people.
    pub name: Option<Box<str>>,
    /// What it is.
    pub spec: Arc<TaskSpec>,
    /// Its arguments.
    pub payload: Payload,
}

/// Arguments on their way in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Payload {
    /// There are none.
    #[default]
    None,
    /// These.
    Inline(Bytes),
    /// Those in a blob of this size.
    Blob(BlobId, u64),
}

impl Payload {
    /// As the core knows them.
    pub fn data(&self) -> Data {
        match self {
            Self::None => Data::None,
            // The constructors hold to INLINE_MAX, so the size always fits.
            Self::Inline(bytes) => Data::Inline(u32::try_from(bytes.len()).unwrap_or(u32::MAX)),
            Self::Blob(id, size) => Data::Blob(*id, *size),
        }
    }
}

/// A specification that was read once for all the tasks of a batch that share it.
#[derive(Clone, Debug)]
pub struct Prepared {
    spec: Arc<TaskSpec>,
    digest: Digest,
}

impl Prepared {
    /// Reads a specification.
    pub fn read(body: &SpecBody) -> Result<Self, Problem> {
        let spec = task_spec(body)?;
        let bytes = crate::encode(&spec).map_err(|error| {
            Problem::new("INTERNAL", format!("the specification can't be written: {error}"), "")
        })?;
        Ok(Self { digest: super::digest_of(&bytes), spec: Arc::new(spec) })
    }

    /// The specification.
    pub fn spec(&self) -> &Arc<TaskSpec> {
        &self.spec
    }

    /// Reads a task of the HTTP API.
    pub fn http(&self, task: SubmitTaskBody) -> Result<Accept, Problem> {
        let mut mistakes = Mistakes::default();
        let key = match &task.key {
            Some(text) => mistakes.keep("key", text.parse()),
            None => Some(Key::Uuid(uuid::Uuid::now_v7().as_u128())),
        };
        let payload = self.http_payload(&task, &mut mistakes).unwrap_or_default();
        self.accept(key, task.name, payload, mistakes)
    }

    /// Reads a task of the client link.
    pub fn link(&self, task: SubmitTask) -> Result<Accept, Problem> {
        let mut mistakes = Mistakes::default();
        let key = mistakes.keep("key", task.key.parse());
        let payload = payload_of(task.payload, "payload", &mut mistakes).unwrap_or_default();
        self.accept(key, task.name, payload, mistakes)
    }

    fn http_payload(&self, task: &SubmitTaskBody, mistakes: &mut Mistakes) -> Option<Payload> {
        let said = [task.payload.is_some(), task.blob.is_some(), task.job.is_some()];
        if said.into_iter().filter(|said| *said).count() > 1 {
            mistakes.add("payload", "only one of payload, blob and job may be given");
            return None;
        }
        if let Some(job) = &task.job {
            if self.spec.work != Work::Job {
                mistakes.add("job", "the specification is not that of a job");
            }
            if job.entrypoint.trim().is_empty() {
                mistakes.add("job.entrypoint", "is empty");
            }
            super::spec::runtime_env("job.runtime_env", job.runtime_env.as_ref(), mistakes);
            let bytes = mistakes.keep("job", serde_json::to_vec(job))?;
            return inline(bytes.into(), "job", mistakes);
        }
        if let Some(text) = &task.payload {
            let bytes = STANDARD.decode(text).map_err(|error| format!("is not base64: {error}"));
            return inline(mistakes.keep("payload", bytes)?.into(), "payload", mistakes);
        }
        let id = task.blob.as_deref()?;
        let id = mistakes.keep("blob", blob_id(id).map_err(|problem| problem.message))?;
        Some(Payload::Blob(id, 0))
    }

    fn accept(
        &self,
        key: Option<Key>,
        name: Option<String>,
        payload: Payload,
        mut mistakes: Mistakes,
    ) -> Result<Accept, Problem> {
        if self.spec.work == Work::Job && payload == Payload::None {
            mistakes.add("job", "a job needs its entrypoint");
        }
        let name = name.filter(|name| !name.is_empty()).map(String::into_boxed_str);
        if let Some(name) = &name {
            check_display_name("name", name, &mut mistakes);
        }
        mistakes.verdict("the task")?;
        let key = key.unwrap_or(Key::Uuid(0)); // noted as a mistake above when there is none
        let body = self.body(name.as_deref(), &payload);
        Ok(Accept { key, body, name, spec: Arc::clone(&self.spec), payload })
    }

    /// The digest of everything that a key stands for. A blob counts by the part of its id that
    /// comes from its content, so that arguments uploaded again are the same arguments.
    fn body(&self, name: Option<&str>, payload: &Payload) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.digest.0);
        let name = name.unwrap_or_default();
        hasher.update(&name.len().to_le_bytes());
        hasher.update(name.as_bytes());
        match payload {
            Payload::None => {}
            Payload::Inline(bytes) => {
                hasher.update(b"i");
                hasher.update(bytes);
            }
            Payload::Blob(BlobId(id), _) => {
                hasher.update(b"b");
                hasher.update(&id.to_le_bytes()[..8]);
            }
        }
        let mut first = [0; 8];
        hasher.finalize_xof().fill(&mut first);
        u64::from_le_bytes(first)
    }
}

/// Reads arguments of a link frame.
pub(super) fn payload_of(data: DataFrame, field: &str, mistakes: &mut Mistakes) -> Option<Payload> {
    match data {
        DataFrame::None => Some(Payload::None),
        DataFrame::Inline(bytes) => inline(bytes, field, mistakes),
        DataFrame::Blob(blob) => {
            let id = blob_id(&blob.id).map_err(|problem| problem.message);
            Some(Payload::Blob(mistakes.keep(field, id)?, blob.size))
        }
    }
}

fn inline(bytes: Bytes, field: &str, mistakes: &mut Mistakes) -> Option<Payload> {
    if bytes.len() > INLINE_MAX {
        let size = bytes.len();
        mistakes.add(field, format!("has {size} bytes; upload more than {INLINE_MAX} as a blob"));
        return None;
    }
    Some(if bytes.is_empty() { Payload::None } else { Payload::Inline(bytes) })
}

/// A name for people is any text that a terminal can show.
pub(super) fn check_display_name(field: &str, name: &str, mistakes: &mut Mistakes) {
    if name.len() > NAME_LEN_MAX {
        mistakes.add(field, format!("has {} bytes, {NAME_LEN_MAX} are allowed", name.len()));
    }
    if let Some(c) = name.chars().find(|c| c.is_control()) {
        mistakes.add(field, format!("holds the control character {c:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{AffinityBody, JobBody, RetriesBody, WorkBody};

    fn prepared(work: WorkBody) -> Prepared {
        Prepared::read(&SpecBody {
            title: None,
            work,
            resources: None,
            priority: None,
            affinity: AffinityBody::default(),
            retries: RetriesBody::default(),
            timeout_ms: None,
            on_lost: None,
            wait_for_growth: false,
            python: None,
            runtime_env: None,
        })
        .unwrap()
    }

    fn function() -> Prepared {
        prepared(WorkBody::Function { code: "ab".repeat(32) })
    }

    fn task() -> SubmitTaskBody {
        SubmitTaskBody {
            spec: 0,
            key: Some("k".into()),
            name: None,
            payload: None,
            blob: None,
            job: None,
        }
    }

    #[test]
    fn the_same_submission_has_the_same_digest_and_another_has_not() {
        let spec = function();
        let body = |payload: &str| {
            spec.http(SubmitTaskBody { payload: Some(payload.into()), ..task() }).unwrap().body
        };
        assert_eq!(body("aGk="), body("aGk="));
        assert_ne!(body("aGk="), body("aGkh"));
        let named = spec.http(SubmitTaskBody { name: Some("n".into()), ..task() }).unwrap().body;
        assert_ne!(named, spec.http(task()).unwrap().body);
        let by_link = SubmitTask {
            spec: 0,
            key: "k".into(),
            name: None,
            payload: DataFrame::Inline(Bytes::from_static(b"hi")),
        };
        assert_eq!(
            spec.link(by_link).unwrap().body,
            body("aGk="),
            "whichever door it came through"
        );
    }

    #[test]
    fn arguments_uploaded_again_are_the_same_arguments() {
        let spec = function();
        let blob = |id: &str| spec.http(SubmitTaskBody { blob: Some(id.into()), ..task() });
        let (first, again) = ("0".repeat(16) + &"a".repeat(16), "1".repeat(16) + &"a".repeat(16));
        assert_eq!(blob(&first).unwrap().body, blob(&again).unwrap().body);
        assert_ne!(blob(&first).unwrap().body, blob(&"b".repeat(32)).unwrap().body);
    }

    #[test]
    fn a_key_is_made_when_none_is_given() {
        let accept = function().http(SubmitTaskBody { key: None, ..task() }).unwrap();
        assert!(accept.key.made_at_micros().is_some());
    }

    #[test]
    fn mistakes_of_a_task_are_told_at_once() {
        let wrong = SubmitTaskBody {
            key: Some(String::new()),
            name: Some("a\u{1b}[2J".into()),
            payload: Some("?".into()),
            ..task()
        };
        assert_eq!(
            function().http(wrong).unwrap_err().details,
            [
                "key: is empty",
                "payload: is not base64: Invalid symbol 63, offset 0.",
                "name: holds the control character '\\u{1b}'"
            ]
        );
        let both =
            SubmitTaskBody { payload: Some(String::new()), blob: Some("x".into()), ..task() };
        assert_eq!(
            function().http(both).unwrap_err().details,
            ["payload: only one of payload, blob and job may be given"]
        );
        let large = STANDARD.encode(vec![0; INLINE_MAX + 1]);
        assert_eq!(
            function().http(SubmitTaskBody { payload: Some(large), ..task() }).unwrap_err().details,
            ["payload: has 262145 bytes; upload more than 262144 as a blob"]
        );
    }

    #[test]
    fn a_job_brings_its_entrypoint() {
        let job = |entrypoint: &str| {
            let body = JobBody { entrypoint: entrypoint.into(), ..JobBody::default() };
            SubmitTaskBody { job: Some(body), ..task() }
        };
        let accept = prepared(WorkBody::Job).http(job("echo hi")).unwrap();
        assert_eq!(
            accept.payload,
            Payload::Inline(Bytes::from_static(br#"{"entrypoint":"echo hi"}"#))
        );
        assert_eq!(
            prepared(WorkBody::Job).http(job(" ")).unwrap_err().details,
            ["job.entrypoint: is empty"]
        );
        assert_eq!(
            prepared(WorkBody::Job).http(task()).unwrap_err().details,
            ["job: a job needs its entrypoint"]
        );
        assert_eq!(
            function().http(job("echo")).unwrap_err().details,
            ["job: the specification is not that of a job"]
        );
    }
}
