//! `check`: the laws, on what a real server left in its state directory and on what it told.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use mesh_core::{Limits, Mesh};
use mesh_sim::history::{Journal, Law, Told, Violation, Witness};
use mesh_store::{SqliteStore, StoreError, StoreReader};

/// What `check` is told.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The state directory; a server may run on it
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// What clients were told, one JSON object a line
    #[arg(long, value_name = "FILE")]
    told: Option<PathBuf>,
}

/// How much was judged.
#[derive(Debug, PartialEq, Eq)]
struct Judged {
    events: u64,
    tasks: usize,
    open: usize,
    acknowledged: u64,
}

/// Why there is no verdict, or a bad one.
#[derive(Debug)]
enum Trouble {
    /// A law was broken.
    Broken(Violation),
    /// Something could not be read.
    Unreadable(String),
}

impl Check {
    pub(crate) fn run(&self) -> ExitCode {
        match judge(&self.state_dir, self.told.as_deref()) {
            Ok(Judged { events, tasks, open, acknowledged }) => {
                println!(
                    "{events} events of {tasks} tasks, {open} of them open, and {acknowledged} \
                     acknowledgements: no law is broken"
                );
                ExitCode::SUCCESS
            }
            Err(Trouble::Broken(violation)) => {
                println!("BROKEN {violation}");
                ExitCode::FAILURE
            }
            Err(Trouble::Unreadable(what)) => {
                eprintln!("{what}");
                ExitCode::from(2)
            }
        }
    }
}

fn judge(dir: &Path, told: Option<&Path>) -> Result<Judged, Trouble> {
    // In this order: what was told before the journal is read must be in it.
    let told = told.map_or_else(|| Ok(Vec::new()), read_told)?;
    let journal = match SqliteStore::open_read_only(dir)? {
        Some(reader) => reader.at_one_moment(read_journal)??,
        None => return Err(Trouble::Unreadable(format!("{} has no journal", dir.display()))),
    };
    let mut witness = Witness::default();
    for told in &told {
        witness.hear(&journal, told)?;
    }
    witness.finish(&journal)?;
    Ok(Judged {
        events: journal.judged(),
        tasks: journal.tasks().count(),
        open: journal.open().count(),
        acknowledged: witness.acknowledged(),
    })
}

/// Judges every event by itself, and the state that all of them lead to.
fn read_journal(reader: &StoreReader) -> Result<Journal, Trouble> {
    let oldest = reader.oldest_seq()?;
    if oldest > 1 {
        let what = format!("the journal begins at event {oldest}: only a whole one can be judged");
        return Err(Trouble::Unreadable(what));
    }
    let mut journal = Journal::default();
    let mut mesh = Mesh::new(Limits::default());
    let mut verdict = Ok(());
    reader.replay(0, &mut |entry| {
        verdict = journal.entry(&entry, None);
        entry.events.iter().for_each(|event| mesh.apply(entry.at, event));
        mesh.take_changes();
        verdict.is_ok()
    })?;
    verdict?;
    mesh.check().map_err(|wrong| Violation::new(Law::StepByStep, wrong.join("; ")))?;
    Ok(journal)
}

fn read_told(file: &Path) -> Result<Vec<Told>, Trouble> {
    let unreadable = |why: String| Trouble::Unreadable(format!("{}: {why}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| unreadable(error.to_string()))?;
    let lines = text.lines().zip(1_u64..).filter(|(line, _)| !line.trim().is_empty());
    lines
        .map(|(line, number)| {
            serde_json::from_str(line)
                .map_err(|error| unreadable(format!("line {number}: {error}")))
        })
        .collect()
}

impl From<Violation> for Trouble {
    fn from(violation: Violation) -> Self {
        Self::Broken(violation)
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Unreadable(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mesh_core::Event;
    use mesh_core::model::amount::Resources;
    use mesh_core::model::id::{Digest, SpecId, TaskId};
    use mesh_core::model::label::Affinity;
    use mesh_core::model::priority::Priority;
    use mesh_core::model::task::{Data, Kind, OnLost, Outcome, Retries, Shape, TaskSpec, Work};
    use mesh_core::model::time::Span;
    use mesh_store::{Batch, Store as _};

    use super::*;

    /// A task `one` that was cancelled while it waited, and a task `two` that waits.
    fn history() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let spec = Arc::new(TaskSpec {
            title: None,
            work: Work::Function(Digest([7; 32])),
            shape: Shape {
                kind: Kind::Function,
                resources: Resources::NONE,
                affinity: Affinity::default(),
                priority: Priority::default(),
                python: None,
                runtime_env: None,
            },
            retries: Retries::default(),
            timeout: None,
            on_lost: OnLost::Replace,
            wait_for_growth: true,
        });
        let submitted = |number, key: &str| Event::Submitted {
            task: TaskId(number),
            spec: SpecId(1),
            key: key.parse().unwrap(),
            body: number,
            name: None,
            payload: Data::None,
        };
        let ended = Event::Ended {
            task: TaskId(1),
            outcome: Outcome::Cancelled,
            result: Data::None,
            ran: Span::ZERO,
        };
        let defined = Event::SpecDefined(SpecId(1), spec);
        let events = vec![defined, submitted(1, "one"), submitted(2, "two"), ended];
        let mut store = SqliteStore::open(dir.path()).unwrap();
        store.append(&Batch { events, ..Batch::default() }).unwrap();
        dir
    }

    fn judged(told: &[&str]) -> Result<Judged, Trouble> {
        let dir = history();
        let file = dir.path().join("told");
        fs::write(&file, told.join("\n")).unwrap();
        judge(dir.path(), Some(&file))
    }

    fn broken(told: &[&str]) -> Law {
        match judged(told) {
            Err(Trouble::Broken(violation)) => violation.law,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_was_told_and_is_so_is_no_breach() {
        let told = [
            r#"{"submitted":{"key":"one","task":1}}"#,
            r#"{"submitted":{"key":"two","task":2}}"#,
            r#"{"cancelled":{"task":1}}"#,
            r#"{"ended":{"task":1,"outcome":"cancelled"}}"#,
        ];
        let judged = judged(&told).unwrap();
        assert_eq!(judged, Judged { events: 4, tasks: 2, open: 1, acknowledged: 4 });
    }

    #[test]
    fn what_was_told_and_is_not_so_is_named() {
        let lost = r#"{"submitted":{"key":"three","task":3}}"#;
        assert_eq!(broken(&[lost]), Law::AcknowledgedIsDurable);
        let another = r#"{"submitted":{"key":"two","task":1}}"#;
        assert_eq!(broken(&[another]), Law::OneTaskForOneKey);
        let otherwise = r#"{"ended":{"task":1,"outcome":"succeeded"}}"#;
        assert_eq!(broken(&[otherwise]), Law::OneEnd);
        let early = r#"{"ended":{"task":2,"outcome":"succeeded"}}"#;
        assert_eq!(broken(&[early]), Law::OneEnd);
        let open = r#"{"cancelled":{"task":2}}"#;
        assert_eq!(broken(&[open]), Law::NeverAfterCancel);
    }

    #[test]
    fn a_line_that_says_nothing_is_no_verdict() {
        let Err(Trouble::Unreadable(what)) = judged(&["", "{}"]) else { panic!("it was read") };
        assert!(what.contains("told: line 2"), "{what}");
    }
}
