//! What agents say.

use bytes::Bytes;
use mesh_core::command::{Held, Report, Seen};
use mesh_core::model::cluster::{AgentFacts, NodeFacts};
use mesh_core::model::id::{Attempt, TaskId};
use mesh_core::model::task::{Cause, Data, Failure};
use mesh_core::model::time::Span;

use super::submit::{Payload, payload_of};
use super::{Mistakes, resources};
use crate::agent::{Happened, HeldTask, Hello, Node, RemoteError, ReportItem, StopTask};
use crate::client_link::FailureRecord;
use crate::problem::Problem;

/// Most bytes of the one line that says why an attempt failed; the whole message is in its record.
const MESSAGE_MAX: usize = 500;

/// A report, with the bytes that must be stored when it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// The report.
    pub report: Report,
    /// What it returned or the record of its failure, when that is kept beside the journal.
    pub bytes: Option<Bytes>,
}

/// Reads what an agent says about itself.
pub fn agent_facts(hello: &Hello) -> Result<AgentFacts, Problem> {
    let mut mistakes = Mistakes::default();
    let python = hello.python.parse().map_err(|_why| format!("{:?} is no version", hello.python));
    let python = mistakes.keep("python", python);
    let incarnation = mistakes.keep("incarnation", incarnation(&hello.incarnation));
    mistakes.verdict("the hello")?;
    let facts = python.zip(incarnation).map(|(python, incarnation)| AgentFacts {
        incarnation,
        python,
        ray: hello.ray.as_str().into(),
        version: hello.version.as_str().into(),
    });
    facts.ok_or_else(|| Problem::new("INVALID", "the hello is incomplete", ""))
}

/// Reads the UUID that stands for the life of an agent process.
pub fn incarnation(text: &str) -> Result<u128, String> {
    uuid::Uuid::try_parse(text)
        .map(|uuid| uuid.as_u128())
        .map_err(|_why| format!("{text:?} is not a UUID"))
}

/// Reads the attempts that an agent has not let go of.
pub fn held(tasks: &[HeldTask]) -> Vec<Held> {
    let read = |held: &HeldTask| Held { task: TaskId(held.task), attempt: Attempt(held.attempt) };
    tasks.iter().map(read).collect()
}

/// Writes the order to end an attempt.
pub fn stop_frame(held: Held, grace_ms: u64) -> StopTask {
    StopTask { task: held.task.0, attempt: held.attempt.0, grace_ms }
}

/// Reads the nodes of a cluster.
pub fn nodes(wire: Vec<Node>) -> Result<Vec<NodeFacts>, Problem> {
    let mut mistakes = Mistakes::default();
    let mut read = Vec::with_capacity(wire.len());
    for (index, node) in wire.into_iter().enumerate() {
        let field = format!("nodes[{index}]");
        let total = resources(&format!("{field}.total"), &node.total, &mut mistakes);
        let foreign = resources(&format!("{field}.foreign"), &node.foreign, &mut mistakes);
        let name = mistakes.keep(&format!("{field}.id"), node.id.parse());
        read.extend(name.map(|name| NodeFacts {
            name,
            address: node.address.into(),
            labels: node.labels,
            total,
            foreign,
        }));
    }
    mistakes.verdict("the list of nodes").map(|()| read)
}

/// Reads a report.
pub fn reported(item: ReportItem) -> Result<Reported, Problem> {
    let (what, bytes) = match item.what {
        Happened::Started => (Seen::Started, None),
        Happened::Returned => (Seen::Returned, None),
        Happened::Stopped { run_us } => (Seen::Stopped { ran: Span::from_micros(run_us) }, None),
        Happened::Finished { run_us, result } => {
            let mut mistakes = Mistakes::default();
            let payload = payload_of(result, "result", &mut mistakes).unwrap_or_default();
            mistakes.verdict("the report")?;
            let (result, bytes) = split(payload);
            (Seen::Finished { ran: Span::from_micros(run_us), result }, bytes)
        }
        Happened::Failed { run_us, error, details } => {
            let failure = failure(&error)?;
            let record = failure_record(error, details);
            let (details, bytes) = split(record);
            (Seen::Failed { ran: Span::from_micros(run_us), failure, details }, bytes)
        }
    };
    let report = Report { task: TaskId(item.task), attempt: Attempt(item.attempt), what };
    Ok(Reported { report, bytes })
}

fn split(payload: Payload) -> (Data, Option<Bytes>) {
    let data = payload.data();
    let bytes = if let Payload::Inline(bytes) = payload { Some(bytes) } else { None };
    (data, bytes)
}

fn failure(error: &RemoteError) -> Result<Failure, Problem> {
    let cause = match error.cause.as_str() {
        "raised" => Cause::Raised,
        "unreadable" => Cause::Unreadable,
        "worker_died" => Cause::WorkerDied,
        "not_started" => Cause::NotStarted,
        "cluster_lost" => Cause::ClusterLost,
        other => {
            let mut mistakes = Mistakes::default();
            mistakes.add("error.cause", format!("{other:?} is not a cause that an agent may name"));
            mistakes.verdict("the report")?;
            Cause::NotStarted
        }
    };
    let mut message = String::new();
    for part in [error.exception.as_str(), first_line(&error.message)] {
        if !message.is_empty() && !part.is_empty() {
            message.push_str(": ");
        }
        message.push_str(part);
    }
    Ok(Failure { cause, message: shorten(&message).into() })
}

fn first_line(text: &str) -> &str {
    text.trim().lines().next().unwrap_or_default()
}

fn shorten(text: &str) -> &str {
    if text.len() <= MESSAGE_MAX {
        return text;
    }
    text.get(..text.floor_char_boundary(MESSAGE_MAX)).unwrap_or_default()
}

/// The record of a failure. A pickled exception that is too large to be kept inline is left out:
/// the error as text says what happened.
fn failure_record(error: RemoteError, details: crate::agent::DataFrame) -> Payload {
    let pickle = match details {
        crate::agent::DataFrame::Inline(bytes) if bytes.len() <= crate::INLINE_MAX / 2 => bytes,
        _ => Bytes::new(),
    };
    let traceback = error.traceback.get(..error.traceback.floor_char_boundary(TRACEBACK_MAX));
    let message = error.message.get(..error.message.floor_char_boundary(TRACEBACK_MAX));
    let error = RemoteError {
        traceback: traceback.unwrap_or_default().to_owned(),
        message: message.unwrap_or_default().to_owned(),
        ..error
    };
    let record = FailureRecord { error, pickle };
    crate::encode(&record).map_or(Payload::None, |bytes| Payload::Inline(bytes.into()))
}

/// Most bytes of a traceback, and of a message, in a record.
const TRACEBACK_MAX: usize = crate::INLINE_MAX / 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::DataFrame;

    fn item(what: Happened) -> ReportItem {
        ReportItem { task: 4, attempt: 2, what }
    }

    fn error(cause: &str) -> RemoteError {
        RemoteError {
            cause: cause.into(),
            exception: "ValueError".into(),
            message: "no such thing\nreally".into(),
            traceback: "Traceback ...".into(),
        }
    }

    #[test]
    fn a_result_is_kept_beside_the_journal() {
        let result = DataFrame::Inline(Bytes::from_static(b"value"));
        let read = reported(item(Happened::Finished { run_us: 7, result })).unwrap();
        assert_eq!(read.bytes.as_deref(), Some(b"value".as_slice()));
        let what = Seen::Finished { ran: Span::from_micros(7), result: Data::Inline(5) };
        assert_eq!(read.report, Report { task: TaskId(4), attempt: Attempt(2), what });
    }

    #[test]
    fn a_failure_keeps_its_traceback_and_its_pickle() {
        let details = DataFrame::Inline(Bytes::from_static(b"pickle"));
        let what = Happened::Failed { run_us: 7, error: error("raised"), details };
        let read = reported(item(what)).unwrap();
        let Seen::Failed { failure, details, .. } = &read.report.what else { panic!("{read:?}") };
        assert_eq!(failure.cause, Cause::Raised);
        assert_eq!(failure.message.as_ref(), "ValueError: no such thing");
        let bytes = read.bytes.unwrap();
        assert_eq!(details.size(), u64::try_from(bytes.len()).unwrap());
        let record: FailureRecord = crate::decode(&bytes).unwrap();
        assert_eq!(record, FailureRecord { error: error("raised"), pickle: "pickle".into() });
    }

    #[test]
    fn a_failure_of_any_size_has_a_record_that_can_be_kept() {
        let huge = RemoteError {
            message: "ä".repeat(1 << 20),
            traceback: "é".repeat(1 << 20),
            ..error("raised")
        };
        let details = DataFrame::Inline(vec![0; crate::INLINE_MAX].into());
        let read = reported(item(Happened::Failed { run_us: 7, error: huge, details })).unwrap();
        assert!(read.bytes.unwrap().len() <= crate::INLINE_MAX);
        let Seen::Failed { failure, .. } = &read.report.what else { panic!() };
        assert!(failure.message.len() <= MESSAGE_MAX);
    }

    #[test]
    fn what_an_agent_may_not_say_is_refused() {
        let what =
            Happened::Failed { run_us: 0, error: error("timed_out"), details: DataFrame::None };
        assert_eq!(
            reported(item(what)).unwrap_err().details,
            ["error.cause: \"timed_out\" is not a cause that an agent may name"]
        );
        let node = Node {
            id: String::new(),
            address: "10.0.0.1".into(),
            labels: std::collections::BTreeMap::new(),
            total: [("CPU".to_owned(), -2.0)].into(),
            foreign: std::collections::BTreeMap::new(),
        };
        assert_eq!(
            nodes(vec![node]).unwrap_err().details,
            ["nodes[0].total.CPU: is negative", "nodes[0].id: is empty"]
        );
        let hello = Hello {
            protocol: 1,
            cluster: "a".into(),
            incarnation: "me".into(),
            version: "0".into(),
            python: "three".into(),
            ray: "2.60.0".into(),
            platform: "linux".into(),
            held: Vec::new(),
            nodes: Vec::new(),
        };
        assert_eq!(
            agent_facts(&hello).unwrap_err().details,
            ["python: \"three\" is no version", "incarnation: \"me\" is not a UUID"]
        );
    }
}
