//! Sending agents what is to be done. What is sent follows from the state: a link that comes up is
//! sent all of it, and later only what is new.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use mesh_api::LINK_PROTOCOL;
use mesh_api::agent::{
    CodeFrame, LeaseFrame, StartFrame, StartTask, StopTask, ToAgent, Welcome, WorkFrame,
};
use mesh_api::convert::{data_frame, reach, resources_map, stop_frame};
use mesh_core::bug::{self, Bug};
use mesh_core::command::Held;
use mesh_core::model::id::{ClusterId, ClusterName, Digest, LeaseId};
use mesh_core::model::task::{Data, Kind, TaskSpec, Work};
use mesh_core::{Effect, Mesh, Rejection};
use mesh_store::{Side, Store};

use super::ask::{LinkAsk, LinkId};
use super::books::Books;
use super::engine::Engine;
use super::turn::Turn;
use crate::outbox::Outbox;

/// A frame is sent when it holds about so many bytes.
const FRAME_BYTES: usize = 4 << 20;
/// Most tasks in one frame.
const FRAME_TASKS: usize = 2_000;
/// About how many bytes a task takes in a frame, without its arguments.
const TASK_BYTES: usize = 160;
/// How long work may take to end by itself when it is told to stop.
const GRACE_MS: u64 = 5_000;

/// The agents that are linked.
#[derive(Debug, Default)]
pub(super) struct Seats {
    seats: HashMap<ClusterName, Seat>,
    /// For each cluster the life of its agent, and the last report that was heard of it. Kept over
    /// broken links, so that what is sent again is not taken in again. After a restart of the control
    /// plane it is empty; then fencing makes what is taken in twice harmless.
    heard: HashMap<ClusterName, (u128, u64)>,
}

#[derive(Debug)]
struct Seat {
    link: LinkId,
    cluster: ClusterId,
    outbox: Outbox<ToAgent>,
    code: HashSet<Digest>,
}

impl Seats {
    /// Whether a link is the one of its cluster.
    pub(super) fn holds(&self, cluster: &ClusterName, link: LinkId) -> bool {
        self.seats.get(cluster).is_some_and(|seat| seat.link == link)
    }

    /// A link is gone.
    pub(super) fn remove(&mut self, cluster: &ClusterName) {
        self.seats.remove(cluster);
    }

    /// All links are gone, and what was heard may not have been kept.
    pub(super) fn leave(&mut self) {
        self.seats.clear();
        self.heard.clear();
    }

    /// Takes note of numbered reports, and says how many of them were heard before.
    pub(super) fn hear(&mut self, cluster: &ClusterName, seq: u64, count: u64) -> usize {
        let Some((_, heard)) = self.heard.get_mut(cluster) else { return 0 };
        let known = (*heard + 1).saturating_sub(seq).min(count);
        *heard = (*heard).max((seq + count).saturating_sub(1));
        usize::try_from(known).unwrap_or(usize::MAX)
    }

    /// Has the agents of clusters that are not registered any more end what they run, and closes their
    /// links, which are returned.
    fn prune(
        &mut self,
        mesh: &Mesh,
        evicted: &HashMap<ClusterId, Vec<Held>>,
    ) -> Vec<(ClusterName, LinkId)> {
        let mut closed = Vec::new();
        let is_there = |name: &ClusterName, id: ClusterId| {
            mesh.cluster(name).is_some_and(|cluster| cluster.id == id)
        };
        self.seats.retain(|name, seat| {
            let keep = is_there(name, seat.cluster);
            if !keep {
                stop(&seat.outbox, evicted.get(&seat.cluster).into_iter().flatten());
                let gone = Rejection::UnknownCluster(name.clone());
                seat.outbox.push(ToAgent::Refused((&gone).into()), 256); // the last that is written
                closed.push((name.clone(), seat.link));
            }
            keep
        });
        self.heard.retain(|name, _| mesh.cluster(name).is_some());
        closed
    }

    fn sit(&mut self, ask: &LinkAsk, cluster: ClusterId) -> u64 {
        let (outbox, code) = (ask.outbox.clone(), HashSet::new());
        let seat = Seat { link: ask.link, cluster, outbox, code };
        self.seats.insert(ask.cluster.clone(), seat);
        let heard = self.heard.entry(ask.cluster.clone()).or_default();
        if heard.0 != ask.facts.incarnation && !bug::is(Bug::MixUpLives) {
            *heard = (ask.facts.incarnation, 0);
        }
        heard.1
    }

    pub(super) fn acknowledge(&self, cluster: &ClusterName) {
        let heard = self.heard.get(cluster).map(|(_, seq)| *seq);
        if let (Some(seat), Some(seq)) = (self.seats.get(cluster), heard) {
            mesh_fail::pass("agent.ack.before");
            seat.outbox.push(ToAgent::Ack { seq }, 16);
        }
    }
}

impl Engine {
    /// Sends what a durable turn wants done.
    pub(super) fn dispatch(&mut self, turn: &mut Turn) {
        if turn.removed {
            for (cluster, link) in self.seats.prune(&self.mesh, &turn.evicted) {
                self.links.remove(&cluster, link);
            }
        }
        let to_do = std::mem::take(&mut turn.to_do);
        let mesh = &self.mesh;
        let effects = to_do.into_iter().filter_map(|task| mesh.effect(task));
        let (store, books) = (self.store.as_ref(), &mut self.books);
        let desk = Desk { mesh, store, books, unreadable: &mut self.unreadable };
        desk.send(&mut self.seats, effects);
        turn.reported.sort_unstable();
        turn.reported.dedup();
        for cluster in turn.reported.drain(..) {
            self.seats.acknowledge(&cluster);
        }
        for link in std::mem::take(&mut turn.linked) {
            self.welcome(link);
        }
    }

    /// The first frames of a link: the welcome, and everything that is still to be done.
    fn welcome(&mut self, ask: LinkAsk) {
        let Some(cluster) = self.mesh.cluster(&ask.cluster).map(|cluster| cluster.id) else {
            return; // removed in the very turn in which its agent linked
        };
        let acked = self.seats.sit(&ask, cluster);
        self.links.insert(&ask.cluster, ask.link, ask.outbox.clone());
        let welcome = Welcome {
            protocol: LINK_PROTOCOL,
            version: env!("CARGO_PKG_VERSION").into(),
            acked,
            heartbeat_ms: u64::try_from(self.heartbeat.as_millis()).unwrap_or(u64::MAX),
            inline_max: mesh_api::INLINE_MAX,
        };
        mesh_fail::pass("agent.welcome.before");
        ask.outbox.push(ToAgent::Welcome(welcome), 64);
        if !bug::is(Bug::KeepStale) {
            stop(&ask.outbox, &self.mesh.stale(cluster, &ask.held));
        }
        if bug::is(Bug::ForgetToResend) {
            return;
        }
        let mesh = &self.mesh;
        let held: HashSet<_> = ask.held.iter().map(|held| (held.task, held.attempt)).collect();
        let effects = mesh.effects(cluster).into_iter().filter(|effect| match effect {
            Effect::Start { task, attempt, .. } => !held.contains(&(*task, *attempt)),
            Effect::Stop { .. } => true,
        });
        let (store, books) = (self.store.as_ref(), &mut self.books);
        let desk = Desk { mesh, store, books, unreadable: &mut self.unreadable };
        desk.send(&mut self.seats, effects);
        mesh_fail::pass("agent.welcome.after");
        drop(ask.reply.send(Ok(()))); // a link that broke meanwhile says so itself
    }
}

/// Tells an agent to end attempts.
fn stop<'a>(outbox: &Outbox<ToAgent>, held: impl IntoIterator<Item = &'a Held>) {
    let stops: Vec<_> = held.into_iter().map(|held| stop_frame(*held, GRACE_MS)).collect();
    if !stops.is_empty() {
        let bytes = stops.len() * size_of::<StopTask>();
        outbox.push(ToAgent::Stop(stops), bytes);
    }
}

/// What is needed to turn effects into frames.
struct Desk<'a> {
    mesh: &'a Mesh,
    store: &'a dyn Store,
    books: &'a mut Books,
    unreadable: &'a mut Vec<Held>,
}

/// Frames for one cluster, growing.
struct Draft<'a> {
    seat: &'a mut Seat,
    runtime_env: Option<String>,
    frame: StartFrame,
    leases: BTreeSet<LeaseId>,
    bytes: usize,
    stops: Vec<StopTask>,
}

impl Desk<'_> {
    /// Sends effects, in their order, to the agents of their clusters. Those of clusters without a
    /// link are left: they are sent when there is one.
    fn send(mut self, seats: &mut Seats, effects: impl Iterator<Item = Effect>) {
        let mut by_cluster: BTreeMap<ClusterId, Vec<Effect>> = BTreeMap::new();
        for effect in effects {
            let cluster = match &effect {
                Effect::Start { cluster, .. } | Effect::Stop { cluster, .. } => *cluster,
            };
            by_cluster.entry(cluster).or_default().push(effect);
        }
        for (id, effects) in by_cluster {
            let Some(cluster) = self.mesh.cluster_by_id(id) else { continue };
            let Some(seat) = seats.seats.get_mut(&cluster.name) else { continue };
            let mut draft = Draft {
                seat,
                runtime_env: reach(&cluster.spec).runtime_env,
                frame: StartFrame::default(),
                leases: BTreeSet::new(),
                bytes: 0,
                stops: Vec::new(),
            };
            for effect in effects {
                self.add(&mut draft, effect);
            }
            draft.flush();
            if !draft.stops.is_empty() {
                let bytes = draft.stops.len() * size_of::<StopTask>();
                draft.seat.outbox.push(ToAgent::Stop(draft.stops), bytes);
            }
        }
    }

    fn add(&mut self, draft: &mut Draft<'_>, effect: Effect) {
        match effect {
            Effect::Stop { task, attempt, .. } => {
                draft.stops.push(stop_frame(Held { task, attempt }, GRACE_MS));
            }
            Effect::Start { task, attempt, lease, node, spec, payload, .. } => {
                let inline = match payload {
                    Data::Inline(_) => match self.payload(task) {
                        Some(bytes) => Some(bytes),
                        // It must not run without its arguments.
                        None => return self.unreadable.push(Held { task, attempt }),
                    },
                    Data::None | Data::Blob(..) => None,
                };
                self.add_code(draft, &spec); // first, because it may begin a new frame
                if draft.leases.insert(lease) {
                    let lease = self.lease(lease, node.as_str(), &spec, draft);
                    draft.bytes += lease.runtime_env.as_ref().map_or(0, String::len);
                    draft.frame.leases.push(lease);
                }
                draft.bytes += inline.as_ref().map_or(0, Bytes::len) + TASK_BYTES;
                draft.frame.tasks.push(StartTask {
                    task: task.0,
                    attempt: attempt.0,
                    lease: lease.0,
                    work: work_frame(&spec.work),
                    payload: data_frame(payload, inline),
                });
                if draft.bytes > FRAME_BYTES || draft.frame.tasks.len() >= FRAME_TASKS {
                    draft.flush();
                }
            }
        }
    }

    /// The grant of a lease. All tasks that share it have the same shape, so that the one which is
    /// sent says what it is; only a call goes by its actor.
    fn lease(&self, id: LeaseId, node: &str, spec: &TaskSpec, draft: &Draft<'_>) -> LeaseFrame {
        let shape = match spec.work {
            Work::Function(_) | Work::Actor(_) | Work::Job => Some(&spec.shape),
            Work::Call { .. } => {
                let holder = self.mesh.lease(id).and_then(|lease| self.mesh.spec(lease.spec));
                holder.map(|spec| &spec.shape)
            }
        };
        let own = shape.and_then(|shape| shape.runtime_env.as_deref()).map(str::to_owned);
        // A job's environment is in its arguments; the cluster's is what it falls back to.
        let is_job = shape.is_some_and(|shape| shape.kind == Kind::Job);
        let runtime_env = if is_job {
            draft.runtime_env.clone().or(own)
        } else {
            own.or_else(|| draft.runtime_env.clone())
        };
        LeaseFrame {
            lease: id.0,
            node: node.to_owned(),
            resources: shape.map(|shape| resources_map(&shape.resources)).unwrap_or_default(),
            runtime_env,
        }
    }

    fn add_code(&self, draft: &mut Draft<'_>, spec: &TaskSpec) {
        let Some(digest) = spec.work.code().filter(|digest| draft.seat.code.insert(*digest)) else {
            return;
        };
        match self.store.code(&digest) {
            Ok(Some(bytes)) => {
                if draft.bytes + bytes.len() > FRAME_BYTES {
                    draft.flush(); // together they could be more than a frame may hold
                }
                draft.bytes += bytes.len();
                draft.frame.code.push(CodeFrame { digest: digest.to_string(), bytes });
            }
            // The agent reports the task as unreadable, which says what is wrong to whom it concerns.
            Ok(None) => tracing::error!(%digest, "code missing"),
            Err(error) => tracing::error!(%digest, %error, "code not read"),
        }
    }

    fn payload(&mut self, task: mesh_core::model::id::TaskId) -> Option<Bytes> {
        if let Some(bytes) = self.books.take_payload(task) {
            return Some(bytes);
        }
        self.store.data(task, Side::Payload).unwrap_or_else(|error| {
            tracing::error!(%task, %error, "arguments not read");
            None
        })
    }
}

impl Draft<'_> {
    fn flush(&mut self) {
        if self.frame.tasks.is_empty() {
            return;
        }
        let frame = std::mem::take(&mut self.frame);
        self.leases.clear();
        self.seat.outbox.push(ToAgent::Start(frame), self.bytes);
        self.bytes = 0;
    }
}

fn work_frame(work: &Work) -> WorkFrame {
    match work {
        Work::Function(digest) => WorkFrame::Function { code: digest.to_string() },
        Work::Actor(digest) => WorkFrame::Actor { code: digest.to_string() },
        Work::Call { actor, method } => {
            WorkFrame::Call { actor: actor.0, method: method.as_ref().to_owned() }
        }
        Work::Job => WorkFrame::Job,
    }
}
