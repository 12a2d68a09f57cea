//! Holds what everybody was told against what the store of the stopped server says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_api::client_link::FailureRecord;
use mesh_api::convert::{blob_text, digest_of};
use mesh_core::model::id::{Digest, TaskId};
use mesh_core::model::task::{Data, Outcome};
use mesh_core::{Event, Limits, Mesh};
use mesh_store::{Entry, Seq, Side, SqliteStore, StoreError, StoreReader};

use super::board::{Board, Fact};
use super::stuff::Recipe;
use crate::history::{Journal, Law, Verdict, Violation, Witness, law};

/// What is in a state directory while no server runs, after one that ended in peace.
const AT_REST: [&str; 7] =
    ["admin.token", "secret", "server.lock", "mesh.db", "mesh.lock", "reserve", "blobs"];

/// The judge of one state directory.
#[derive(Debug)]
pub(crate) struct Judge {
    dir: PathBuf,
    board: Arc<Board>,
    journal: Journal,
    witness: Witness,
    mesh: Mesh,
    /// What the journal says about the events that followers are asked about.
    told: BTreeMap<Seq, (&'static str, TaskId)>,
    /// How tasks ended, with what, in which order.
    ends: Vec<(TaskId, Data)>,
    snapshots: BTreeSet<Seq>,
    recipes: BTreeMap<TaskId, Recipe>,
    /// What was found out so far.
    pub(crate) seen: Seen,
}

/// How much was judged.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) results: u64,
    pub(crate) read: u64,
    pub(crate) followed: u64,
    pub(crate) dispatched: u64,
    pub(crate) confirmed: u64,
    pub(crate) snapshots: u64,
}

impl Judge {
    pub(crate) fn new(dir: &Path, board: Arc<Board>) -> Self {
        Self {
            dir: dir.into(),
            board,
            journal: Journal::default(),
            witness: Witness::default(),
            mesh: Mesh::new(Limits::default()),
            told: BTreeMap::new(),
            ends: Vec::new(),
            snapshots: BTreeSet::new(),
            recipes: BTreeMap::new(),
            seen: Seen::default(),
        }
    }

    /// The journal so far.
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// How many acknowledgements of all kinds were judged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.witness.acknowledged() + self.seen.confirmed + self.seen.read
    }

    /// Reads on in the journal, and judges everything that was told meanwhile.
    pub(crate) fn look(&mut self) -> Verdict {
        // In this order: what was told before the journal was read must be in it.
        let facts = self.board.take();
        let unreadable = |error: StoreError| {
            Violation::new(Law::AcknowledgedIsDurable, format!("the store can't be read: {error}"))
        };
        let reader = SqliteStore::open_read_only(&self.dir).map_err(unreadable)?;
        if let Some(reader) = reader {
            let read = reader.at_one_moment(|reader| self.read_on(reader)).map_err(unreadable)?;
            read?;
        }
        facts.iter().try_for_each(|fact| self.hear(fact))?;
        self.mesh.check().map_err(|wrong| Violation::new(Law::StepByStep, wrong.join("; ")))
    }

    fn read_on(&mut self, reader: &StoreReader) -> Verdict {
        let unreadable = |error: StoreError| {
            Violation::new(Law::AcknowledgedIsDurable, format!("the store can't be read: {error}"))
        };
        let last = reader.last_seq().map_err(unreadable)?;
        law(Law::AcknowledgedIsDurable, last >= self.journal.last(), || {
            format!("the journal ends at {last}, and had ended at {}", self.journal.last())
        })?;
        let snapshot = reader.load_snapshot().map_err(unreadable)?;
        let snapshot = snapshot.filter(|(seq, _)| self.snapshots.insert(*seq));
        let mut broken = Ok(());
        let begun = self.ends.len();
        let replayed = reader.replay(self.journal.last(), &mut |entry| {
            broken = self.entry(&entry);
            if let Some((seq, snapshot)) = &snapshot
                && *seq == entry.last()
                && broken.is_ok()
            {
                self.seen.snapshots += 1;
                broken = law(Law::ReplayEqualsLive, self.mesh.snapshot() == *snapshot, || {
                    format!("the snapshot of event {seq} is not what the journal leads to")
                });
            }
            broken.is_ok()
        });
        replayed.map_err(unreadable)?;
        broken?;
        (begun..self.ends.len()).try_for_each(|index| self.result(reader, index))
    }

    fn entry(&mut self, entry: &Entry) -> Verdict {
        for (seq, event) in (entry.first..).zip(&entry.events) {
            match event {
                Event::Submitted { task, key, .. } => {
                    self.recipes.insert(*task, Recipe::of_key(&key.to_string()));
                    self.told.insert(seq, ("submitted", *task));
                }
                Event::Started(task) => {
                    self.told.insert(seq, ("started", *task));
                }
                Event::Ended { task, result, .. } => {
                    self.told.insert(seq, ("ended", *task));
                    self.ends.push((*task, *result));
                }
                _ => {}
            }
            self.mesh.apply(entry.at, event);
        }
        self.mesh.take_changes();
        self.journal.entry(entry, None)
    }

    /// Whether the store has what the agent reported of the attempt that a task ended with.
    fn result(&mut self, reader: &StoreReader, index: usize) -> Verdict {
        let (task, data) = self.ends[index];
        self.seen.results += 1;
        let kept = match data {
            Data::None => None,
            Data::Inline(_) => reader.data(task, Side::Result).map_err(|error| {
                Violation::new(Law::ResultAsStored, format!("the result of {task}: {error}"))
            })?,
            Data::Blob(id, _) => {
                let file = self.dir.join("blobs").join(blob_text(id));
                Some(std::fs::read(&file).map(bytes::Bytes::from).map_err(|error| {
                    let what = format!("the result of {task}, {}: {error}", file.display());
                    Violation::new(Law::ResultAsStored, what)
                })?)
            }
        };
        match self.journal.outcome(task) {
            Some(Outcome::Succeeded) => self.compare(task, digest_of(&kept.unwrap_or_default())),
            // What an agent that died reports is made by the control plane, and has no details.
            Some(Outcome::Failed(_)) => match kept {
                Some(record) => {
                    let record: FailureRecord = mesh_api::decode(&record).map_err(|error| {
                        Violation::new(Law::ResultAsStored, format!("details of {task}: {error}"))
                    })?;
                    if record.error.cause == "raised" {
                        self.compare(task, digest_of(&record.pickle))
                    } else {
                        Ok(())
                    }
                }
                None => Ok(()),
            },
            Some(Outcome::Cancelled) | None => Ok(()),
        }
    }

    fn compare(&mut self, task: TaskId, found: Digest) -> Verdict {
        let attempt = self.journal.attempt(task).unwrap_or_default();
        let reported = self.board.reported(task.0, attempt.0);
        law(Law::ResultAsStored, reported == Some(found), || {
            format!("the result of {task} is {found}, reported of {attempt} was {reported:?}")
        })?;
        let recipe = self.recipes.get(&task);
        let expected = recipe.map(|recipe| digest_of(&recipe.result(attempt.0)));
        law(Law::ResultAsStored, expected == Some(found), || {
            format!("the result of {task} is that of another task or attempt")
        })
    }

    fn hear(&mut self, fact: &Fact) -> Verdict {
        match fact {
            Fact::Told(told) => self.witness.hear(&self.journal, told),
            Fact::Dispatched { task, attempt } => {
                self.seen.dispatched += 1;
                let newest = self.journal.attempt(TaskId(*task));
                law(Law::AcknowledgedIsDurable, newest.is_some_and(|n| n.0 >= *attempt), || {
                    format!(
                        "an agent was told to start attempt {attempt} of t{task}, the journal is at {newest:?}"
                    )
                })
            }
            Fact::Acknowledged { task, attempt } => {
                self.seen.confirmed += 1;
                let attempt = mesh_core::model::id::Attempt(*attempt);
                let id = TaskId(*task);
                law(Law::AcknowledgedIsDurable, !self.journal.is_current(id, attempt), || {
                    format!(
                        "the end of {attempt} of {id} was confirmed to its agent and is not in the journal"
                    )
                })
            }
            Fact::Read { task, digest } => {
                self.seen.read += 1;
                self.compare(TaskId(*task), *digest)
            }
            Fact::Followed { seq, kind, task } => {
                self.seen.followed += 1;
                law(Law::GapFree, *seq <= self.journal.last(), || {
                    format!(
                        "a follower saw event {seq}, the journal ends at {}",
                        self.journal.last()
                    )
                })?;
                let known = self.told.get(seq);
                let same = match known {
                    Some((known, id)) => {
                        known == kind && task.as_deref() == Some(id.to_string().as_str())
                    }
                    None => !matches!(kind.as_str(), "submitted" | "started" | "ended"),
                };
                law(Law::GapFree, same, || {
                    format!(
                        "a follower saw event {seq} as {kind} of {task:?}, the journal has {known:?}"
                    )
                })
            }
            Fact::Wrong(violation) => Err(violation.clone()),
        }
    }

    /// Reads every result once more, now that nothing happens any more, and judges every
    /// acknowledgement of a submission again.
    pub(crate) fn finish(&mut self) -> Verdict {
        self.look()?;
        let unreadable = |error: StoreError| Violation::new(Law::ResultAsStored, error.to_string());
        let Some(reader) = SqliteStore::open_read_only(&self.dir).map_err(unreadable)? else {
            return Ok(());
        };
        (0..self.ends.len()).try_for_each(|index| self.result(&reader, index))?;
        let survey = reader.survey().map_err(unreadable)?;
        law(Law::AcknowledgedIsDurable, survey.damage.is_empty(), || {
            format!("the store is damaged: {:?}", survey.damage)
        })?;
        self.witness.finish(&self.journal)
    }

    /// Whether nothing is left that only a running server needs.
    pub(crate) fn is_tidy(&self) -> Verdict {
        tidy(&self.dir)
    }
}

/// Whether a directory holds nothing that only a running server needs.
pub(crate) fn tidy(dir: &Path) -> Verdict {
    let left = leftovers(dir).map_err(|error| {
        Violation::new(Law::StepByStep, format!("{} can't be listed: {error}", dir.display()))
    })?;
    law(Law::StepByStep, left.is_empty(), || format!("left behind: {}", left.join(", ")))
}

fn leftovers(dir: &Path) -> std::io::Result<Vec<String>> {
    let mut left = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !AT_REST.contains(&name.as_str()) {
            left.push(name);
        }
    }
    for entry in std::fs::read_dir(dir.join("blobs/tmp"))? {
        left.push(format!("blobs/tmp/{}", entry?.file_name().to_string_lossy()));
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_at_rest_is_tidy_and_a_draft_or_an_upload_is_not() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("blobs/tmp")).unwrap();
        std::fs::write(dir.path().join("mesh.db"), "x").unwrap();
        tidy(dir.path()).unwrap();
        std::fs::write(dir.path().join("blobs/tmp/0123"), "x").unwrap();
        std::fs::write(dir.path().join("secret.new"), "x").unwrap();
        let what = tidy(dir.path()).unwrap_err().to_string();
        assert!(what.contains("secret.new") && what.contains("blobs/tmp/0123"), "{what}");
    }
}
