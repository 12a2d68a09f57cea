//! The stream of events: the journal, as people and dashboards follow it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use futures_util::{Stream, StreamExt as _, stream};
use mesh_api::problem::Problem;
use mesh_api::v1::EventView;
use mesh_core::Event;
use mesh_core::model::id::{ClusterId, ClusterName, LeaseId, TaskId};
use mesh_core::model::task::{Outcome, Stop};
use serde::Deserialize;

use super::App;
use super::failure::{Answer, Query};
use super::view;
use crate::tail::EventStream;

/// How often a quiet stream says that it is there. Shorter than clients' and proxies' patience.
const ALIVE: Duration = Duration::from_secs(10);

/// Where to begin.
#[derive(Clone, Copy, Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsQuery {
    /// Everything after the event of this number; only what is new when nothing is said. A
    /// `Last-Event-ID` header counts more.
    after: Option<u64>,
}

/// Events as they become durable, without gaps, as server-sent events; each message's id is its
/// number, with which to resume. Events that were given up are refused with `CURSOR_COMPACTED`.
#[utoipa::path(
    get, path = "/v1/events", tag = "server",
    params(EventsQuery, ("last-event-id" = Option<u64>, Header, description = "As `after`")),
    responses((status = 200, description = "The stream", body = EventView,
               content_type = "text/event-stream"),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json"))
)]
pub(crate) async fn events(
    State(app): State<App>,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Answer<Sse<impl Stream<Item = Result<Message, Infallible>>>> {
    let resumed = headers.get("last-event-id").map(|id| {
        let id = id.to_str().ok().and_then(|id| id.parse::<u64>().ok());
        id.ok_or_else(|| Problem::new("INVALID", "Last-Event-ID is no number", "send a number"))
    });
    let last = app.handle.status().seq;
    let after = resumed.transpose()?.or(query.after).unwrap_or(last);
    if after > last {
        let message = format!("event {after} has not happened yet, the last one is {last}");
        return Err(Problem::new("INVALID", message, "begin again without a cursor").into());
    }
    let events = app.handle.events(after).await?;
    let names = app.handle.read(|mesh, _now| {
        mesh.clusters().map(|cluster| (cluster.id, cluster.name.clone())).collect()
    });
    let narrator = Narrator { clusters: names.await?, leases: BTreeMap::new() };
    let stream = messages(events, narrator).take_until(app.closing.clone().cancelled_owned());
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(ALIVE)))
}

/// Ends after the first problem, which is its last message.
fn messages(
    events: EventStream,
    narrator: Narrator,
) -> impl Stream<Item = Result<Message, Infallible>> {
    let batches = stream::unfold(Some((events, narrator)), |state| async {
        let (mut events, mut narrator) = state?;
        match events.next().await {
            Ok(entry) => {
                let at = view::seconds(entry.at);
                let numbered = (entry.first..).zip(&entry.events);
                let batch: Vec<Message> =
                    numbered.map(|(seq, event)| message(&narrator.tell(seq, at, event))).collect();
                Some((batch, Some((events, narrator))))
            }
            Err(problem) => Some((vec![farewell(&problem)], None)),
        }
    });
    batches.flat_map(|batch| stream::iter(batch.into_iter().map(Ok)))
}

fn message(view: &EventView) -> Message {
    let message = Message::default().id(view.seq.to_string()).event(&view.kind);
    message.json_data(view).unwrap_or_else(|error| {
        let message = format!("event {} can't be written: {error}", view.seq);
        farewell(&Problem::new("INTERNAL", message, ""))
    })
}

fn farewell(problem: &Problem) -> Message {
    let text = serde_json::to_string(problem).unwrap_or_default();
    Message::default().event("problem").data(text)
}

/// Puts events into words, with the names of what they are about.
struct Narrator {
    clusters: BTreeMap<ClusterId, ClusterName>,
    leases: BTreeMap<LeaseId, ClusterId>,
}

/// An event's kind, tasks, cluster and sentence.
type Told = (&'static str, Vec<TaskId>, Option<ClusterId>, String);

impl Narrator {
    fn tell(&mut self, seq: u64, at: f64, event: &Event) -> EventView {
        self.learn(event);
        let (kind, tasks, cluster, message) =
            self.fleet(event).or_else(|| self.work(event)).unwrap_or_default();
        EventView {
            seq,
            at,
            kind: kind.to_owned(),
            tasks: tasks.iter().map(TaskId::to_string).collect(),
            cluster: cluster.map(|id| self.name(id)),
            message,
        }
    }

    fn learn(&mut self, event: &Event) {
        match event {
            Event::ClusterAdded(id, name, _spec) => {
                self.clusters.insert(*id, name.clone());
            }
            Event::Leased { lease, cluster, .. } => {
                self.leases.insert(*lease, *cluster);
            }
            _ => {}
        }
        if let Event::Released(lease) = event {
            self.leases.remove(lease);
        }
    }

    fn name(&self, id: ClusterId) -> String {
        self.clusters.get(&id).map_or_else(|| id.to_string(), ClusterName::to_string)
    }

    /// What happened to clusters.
    fn fleet(&self, event: &Event) -> Option<Told> {
        let (kind, id, what) = match event {
            Event::ClusterAdded(id, ..) => ("cluster_added", id, "was registered".to_owned()),
            Event::ClusterChanged(id, _) => ("cluster_changed", id, "was changed".to_owned()),
            Event::ClusterDrained(id, true) => {
                ("cluster_drained", id, "gets no new work".to_owned())
            }
            Event::ClusterDrained(id, false) => {
                ("cluster_drained", id, "gets work again".to_owned())
            }
            Event::ClusterRemoved(id) => ("cluster_removed", id, "was forgotten".to_owned()),
            Event::ClusterLinked(id, agent) => (
                "cluster_linked",
                id,
                format!("is linked: Ray {}, Python {}", agent.ray, agent.python),
            ),
            Event::ClusterSuspected(id) => ("cluster_suspected", id, "fell silent".to_owned()),
            Event::ClusterLost(id) => ("cluster_lost", id, "counts as lost".to_owned()),
            Event::NodesSeen(id, nodes) => {
                let there = nodes.iter().filter(|(_id, alive, _facts)| *alive).count();
                let gone = nodes.len() - there;
                ("nodes_seen", id, format!("has {there} changed or new nodes, {gone} gone"))
            }
            Event::BreakerOpened(id, _) => {
                ("breaker_opened", id, "gets no work: it failed to start some too often".to_owned())
            }
            Event::BreakerHalfOpened(id) => {
                ("breaker_half_opened", id, "is tried with one task".to_owned())
            }
            _ => return None,
        };
        Some((kind, Vec::new(), Some(*id), format!("cluster {} {what}", self.name(*id))))
    }

    /// What happened to tasks and grants.
    fn work(&self, event: &Event) -> Option<Told> {
        let one = |kind, task: &TaskId, what: String| {
            Some((kind, vec![*task], None, format!("task {task} {what}")))
        };
        match event {
            Event::ClockSkipped(span) => {
                let what = format!("the clock was set forward by {span}: timers were put off");
                Some(("clock_skipped", Vec::new(), None, what))
            }
            Event::SpecDefined(spec, _) => {
                Some(("spec_defined", Vec::new(), None, format!("{spec} was seen first")))
            }
            Event::Submitted { task, key, .. } => {
                one("submitted", task, format!("was accepted under key {key}"))
            }
            Event::Leased { lease, cluster, node, .. } => {
                let place = format!("{node} of cluster {}", self.name(*cluster));
                Some((
                    "leased",
                    Vec::new(),
                    Some(*cluster),
                    format!("{lease} was granted on {place}"),
                ))
            }
            Event::Assigned(lease, tasks) => {
                let count = tasks.len();
                let plural = if count == 1 { "task was" } else { "tasks were" };
                let message = format!("{count} {plural} given to {lease}");
                Some(("assigned", tasks.clone(), self.leases.get(lease).copied(), message))
            }
            Event::Released(lease) => {
                Some(("released", Vec::new(), None, format!("{lease} was given back")))
            }
            Event::Started(task) => one("started", task, "runs".to_owned()),
            Event::Returned(task) => one("returned", task, "was handed back unstarted".to_owned()),
            Event::StopAsked(task, Stop::Cancelled) => {
                one("stop_asked", task, "was told to stop: cancelled".to_owned())
            }
            Event::StopAsked(task, Stop::TimedOut) => {
                one("stop_asked", task, "was told to stop: it ran too long".to_owned())
            }
            Event::Retried { task, failure, .. } => {
                one("retried", task, format!("is tried again after: {}", failure.message))
            }
            Event::Requeued(task) => one("requeued", task, "is queued again".to_owned()),
            Event::Ended { task, outcome, ran, .. } => {
                one("ended", task, format!("{} after {ran}", ending(outcome)))
            }
            Event::LateReport(task, attempt) => {
                one("late_report", task, format!("was reported on late, for attempt {attempt}"))
            }
            Event::Forgotten(tasks) => {
                let message = format!("the records of {} tasks were given up", tasks.len());
                Some(("forgotten", tasks.clone(), None, message))
            }
            Event::CodeForgotten(digests) => {
                let message = format!("{} pieces of code were given up", digests.len());
                Some(("code_forgotten", Vec::new(), None, message))
            }
            _ => None,
        }
    }
}

fn ending(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Succeeded => "succeeded".to_owned(),
        Outcome::Failed(failure) => format!("failed ({})", failure.message),
        Outcome::Cancelled => "was cancelled".to_owned(),
    }
}
