//! Stories in text: each file in `stories/` is what is done (lines that start with `> `) and what
//! becomes of it (the lines below). `UPDATE_EXPECT=1` writes the files anew; the diff is what a
//! reviewer reads as behaviour.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use mesh_core::command::Seen;
use mesh_core::explain::Because;
use mesh_core::model::amount::Amount;
use mesh_core::model::cluster::ClusterSpec;
use mesh_core::model::id::{Digest, TaskId};
use mesh_core::model::label::Otherwise;
use mesh_core::model::priority::Priority;
use mesh_core::model::task::{Cause, OnLost, PythonVersion, Work};
use mesh_core::model::time::Span;
use mesh_core::{Command, Event, Limits};

use crate::world::{World, failed, finished, spec};

#[test]
fn every_story_ends_as_it_is_told() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/stories");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no story is told");
    let update = std::env::vars().any(|(name, value)| name == "UPDATE_EXPECT" && value == "1");
    let mut wrong = Vec::new();
    for file in files {
        let told = std::fs::read_to_string(&file).unwrap();
        let played = play(&told);
        if update {
            std::fs::write(&file, &played).unwrap();
        } else if told != played {
            wrong.push(format!("{}\n{played}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "these stories end otherwise now:\n{}", wrong.join("\n"));
}

fn play(told: &str) -> String {
    let mut stage = Stage {
        world: World::new(Limits { lookahead_tasks: 4, ..Limits::default() }),
        names: BTreeMap::new(),
    };
    let mut played = String::new();
    for line in told.lines().filter(|line| line.starts_with(['>', '#']) || line.is_empty()) {
        writeln!(played, "{line}").unwrap();
        if let Some(deed) = line.strip_prefix("> ") {
            for line in stage.act(deed) {
                writeln!(played, "  {line}").unwrap();
            }
        }
    }
    played
}

struct Stage {
    world: World,
    names: BTreeMap<String, TaskId>,
}

/// The words of a deed after its verb: names, and `key=value` pairs.
struct Words<'a> {
    plain: Vec<&'a str>,
    pairs: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    fn of(text: &'a str) -> Self {
        let (pairs, plain): (Vec<_>, Vec<_>) =
            text.split_whitespace().partition(|word| word.contains('='));
        let pairs = pairs.into_iter().map(|pair| pair.split_once('=').unwrap()).collect();
        Self { plain, pairs }
    }

    fn number(&self, key: &str, otherwise: f64) -> f64 {
        self.pairs.get(key).map_or(otherwise, |value| value.parse().unwrap())
    }

    fn list<T: std::str::FromStr<Err: std::fmt::Debug>, C: FromIterator<T>>(&self, key: &str) -> C {
        let words = self.pairs.get(key).into_iter().flat_map(|list| list.split(','));
        words.map(|word| word.parse().unwrap()).collect()
    }

    fn span(&self, key: &str, otherwise: Span) -> Span {
        self.pairs.get(key).map_or(otherwise, |text| span(text))
    }
}

fn span(text: &str) -> Span {
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    let number = digits.parse().unwrap();
    match text.trim_start_matches(|c: char| c.is_ascii_digit()) {
        "s" => Span::from_secs(number),
        "ms" => Span::from_millis(number),
        "us" => Span::from_micros(number),
        other => panic!("{other:?} is no unit of time"),
    }
}

impl Stage {
    fn act(&mut self, deed: &str) -> Vec<String> {
        let (verb, rest) = deed.split_once(' ').unwrap_or((deed, ""));
        let words = Words::of(rest);
        let first = words.plain.first().copied().unwrap_or_default();
        match verb {
            "cluster" => self.cluster(first, &words),
            "submit" => self.submit(first, &words),
            "pass" => {
                let events = self.world.pass(span(first));
                self.tell(&events)
            }
            "explain" => self.explain(first),
            "link" => match self.world.link(first, words.number("life", 1.0) as u128) {
                Ok(events) => self.tell(&events),
                Err(refused) => vec![format!("refused: {} {refused}", refused.code())],
            },
            "unlink" => self.send(&Command::Unlink(first.parse().unwrap())),
            "drain" => self.send(&Command::DrainCluster(first.parse().unwrap(), true)),
            "remove" => {
                let force = words.plain.contains(&"force");
                self.send(&Command::RemoveCluster { name: first.parse().unwrap(), force })
            }
            "restart" => {
                let skipped = words.span("skipped", Span::ZERO);
                self.world.now = self.world.now.after(skipped);
                self.send(&Command::Restart { skipped })
            }
            "cancel" => self.send(&Command::Cancel(self.names[first])),
            task => self.report(task, first, &words),
        }
    }

    fn send(&mut self, command: &Command) -> Vec<String> {
        match self.world.send(command) {
            Ok((events, _)) => self.tell(&events),
            Err(refused) => vec![format!("refused: {} {refused}", refused.code())],
        }
    }

    fn cluster(&mut self, name: &str, words: &Words<'_>) -> Vec<String> {
        let spec = ClusterSpec {
            weight: Amount::from_units(words.number("weight", 1.0)).unwrap(),
            prefer: words.plain.contains(&"prefer"),
            tags: words.list("tags"),
            max_utilisation: Amount::from_units(words.number("max_utilisation", 1.0)).unwrap(),
            max_tasks: words.pairs.get("max_tasks").map(|max| max.parse().unwrap()),
            job_interval: words.span("job_interval", Span::ZERO),
            breaker_failures: words.number("breaker", 5.0) as u32,
            ..ClusterSpec::default()
        };
        let before = self.world.journal.len();
        self.world.cluster(name, spec, &words.list::<u32, Vec<_>>("cores"));
        let events: Vec<Event> =
            self.world.journal[before..].iter().map(|(_, event)| event.clone()).collect();
        self.tell(&events)
    }

    fn submit(&mut self, name: &str, words: &Words<'_>) -> Vec<String> {
        let code = Digest([words.number("code", 1.0) as u8; 32]);
        let work = match words.pairs.get("kind").copied().unwrap_or("function") {
            "function" => Work::Function(code),
            "actor" => Work::Actor(code),
            "job" => Work::Job,
            "call" => Work::Call { actor: self.names[words.pairs["actor"]], method: "m".into() },
            other => panic!("{other} is no kind"),
        };
        let cores = if matches!(work, Work::Call { .. }) { 0.0 } else { 1.0 };
        let mut spec = spec(work, words.number("cpu", cores) as u32);
        spec.shape.priority = Priority::try_from(words.number("priority", 5.0)).unwrap();
        spec.shape.affinity.required = words.list("tags");
        spec.shape.affinity.preferred = words.list("preferred");
        spec.shape.affinity.avoided = words.list("avoided");
        spec.shape.affinity.cluster = words.pairs.get("on").map(|name| name.parse().unwrap());
        if words.plain.contains(&"only") {
            spec.shape.affinity.otherwise = Otherwise::Wait;
        }
        if let Some(python) = words.pairs.get("python") {
            spec.shape.python = Some(python.parse::<PythonVersion>().unwrap());
        }
        spec.retries.lost = words.number("lost", f64::from(spec.retries.lost)) as u16;
        spec.retries.raised = words.number("raised", 0.0) as u16;
        spec.timeout = words.pairs.get("timeout").map(|text| span(text));
        spec.on_lost = match words.pairs.get("on_lost").copied().unwrap_or("replace") {
            "wait" => OnLost::Wait,
            "fail" => OnLost::Fail,
            _ => OnLost::Replace,
        };
        let before = self.world.journal.len();
        match self.world.submit(name, &Arc::new(spec)) {
            Ok(task) => {
                self.names.insert(name.to_owned(), task);
                let events: Vec<Event> =
                    self.world.journal[before..].iter().map(|(_, event)| event.clone()).collect();
                self.tell(&events)
            }
            Err(refused) => {
                let mut lines = vec![format!("refused: {} {refused}", refused.code())];
                if let mesh_core::Rejection::Infeasible(verdicts) = &refused {
                    lines.extend(
                        verdicts.iter().map(|(name, verdict)| format!("{name}: {verdict}")),
                    );
                }
                lines
            }
        }
    }

    fn report(&mut self, name: &str, what: &str, words: &Words<'_>) -> Vec<String> {
        let task = self.names[name];
        let ran = words.plain.get(1).copied().unwrap_or("1ms");
        let what = match what {
            "starts" => Seen::Started,
            "returns" => Seen::Returned,
            "stops" => Seen::Stopped { ran: span(ran) },
            "finishes" => finished(span(ran).millis()),
            "raises" => failed(Cause::Raised),
            "dies" => failed(Cause::WorkerDied),
            "cannot-start" => failed(Cause::NotStarted),
            other => panic!("{other} is nothing that a task does"),
        };
        let cluster = self.world.mesh.cluster_of(task);
        let cluster = cluster.and_then(|id| self.world.mesh.cluster_by_id(id));
        let cluster = words.pairs.get("from").map_or_else(
            || cluster.expect("the task is somewhere").name.to_string(),
            ToString::to_string,
        );
        let events = self.world.report(&cluster, task, what);
        self.tell(&events)
    }

    fn name(&self, id: TaskId) -> String {
        let named = self.names.iter().find(|(_, task)| **task == id);
        let key = self.world.mesh.task(id).map(|task| task.key.to_string());
        named.map(|(name, _)| name.clone()).or(key).unwrap_or_default()
    }

    fn explain(&self, name: &str) -> Vec<String> {
        let explanation = self.world.mesh.explain(self.world.now, self.names[name]).unwrap();
        let because = match &explanation.because {
            Because::Delayed { last, .. } => format!("delayed after {}", last.message),
            other => format!("{other:?}"),
        };
        let verdicts = explanation.clusters.iter();
        std::iter::once(because)
            .chain(verdicts.map(|(cluster, verdict)| format!("{cluster}: {verdict}")))
            .collect()
    }

    fn tell(&self, events: &[Event]) -> Vec<String> {
        events.iter().filter_map(|event| self.sentence(event)).collect()
    }

    /// An event in words; what says nothing new is left out.
    fn sentence(&self, event: &Event) -> Option<String> {
        let cluster = |id| self.world.mesh.cluster_by_id(id).map_or("?", |c| c.name.as_str());
        let at = |id| self.world.mesh.lease(id).map_or("?", |lease| cluster(lease.cluster));
        let names = |tasks: &[TaskId]| {
            tasks.iter().map(|task| self.name(*task)).collect::<Vec<_>>().join(" ")
        };
        Some(match event {
            Event::Assigned(lease, tasks) => {
                format!("{} assigned to {} ({lease})", names(tasks), at(*lease))
            }
            Event::Started(task) => format!("{} runs", self.name(*task)),
            Event::Returned(task) => format!("{} queued again", self.name(*task)),
            Event::Requeued(task) => format!("{} queued again after its wait", self.name(*task)),
            Event::StopAsked(task, why) => format!("{} told to stop: {why:?}", self.name(*task)),
            Event::Retried { task, failure, until } => {
                let wait = until.since(self.world.now);
                format!("{} failed ({:?}), again in {wait}", self.name(*task), failure.cause)
            }
            Event::Ended { task, outcome, .. } => {
                let how = match outcome {
                    mesh_core::model::task::Outcome::Failed(failure) => {
                        format!("failed: {:?}, {}", failure.cause, failure.message)
                    }
                    other => format!("{other:?}").to_lowercase(),
                };
                format!("{} {how}", self.name(*task))
            }
            Event::LateReport(task, attempt) => {
                format!("{} {attempt}: late report, nothing changed", self.name(*task))
            }
            Event::ClusterSuspected(id) => format!("{} is suspect", cluster(*id)),
            Event::ClusterLost(id) => format!("{} is lost", cluster(*id)),
            Event::ClusterLinked(id, _) => format!("{} is up", cluster(*id)),
            Event::BreakerOpened(id, _) => format!("breaker of {} opens", cluster(*id)),
            Event::BreakerHalfOpened(id) => format!("breaker of {} half opens", cluster(*id)),
            Event::ClockSkipped(span) => format!("{span} were skipped"),
            Event::Released(lease) => format!("{lease} released"),
            Event::ClusterAdded(..)
            | Event::ClusterChanged(..)
            | Event::ClusterDrained(..)
            | Event::ClusterRemoved(_)
            | Event::NodesSeen(..)
            | Event::SpecDefined(..)
            | Event::Submitted { .. }
            | Event::Leased { .. }
            | Event::Forgotten(_)
            | Event::CodeForgotten(_) => return None,
        })
    }
}
