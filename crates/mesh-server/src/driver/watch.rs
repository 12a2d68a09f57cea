//! Who wants to know when tasks start and end.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use mesh_api::client_link::Accepted;
use mesh_core::Mesh;
use mesh_core::model::id::TaskId;
use mesh_core::model::task::Phase;

use crate::clients::{ClientId, EndNotice, Notice, RESULT_BYTES_MAX};
use crate::handle::Reply;
use crate::outbox::Outbox;

/// About how many bytes a notice keeps that holds no result.
const NOTICE_BYTES: usize = 64;

/// Who wants to know when tasks start and end.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    clients: HashMap<ClientId, Outbox<Notice>>,
    tasks: HashMap<TaskId, Vec<Watcher>>,
}

#[derive(Debug)]
enum Watcher {
    Client(ClientId),
    Once(Reply<()>),
}

/// What one client is told in one turn.
#[derive(Default)]
struct News {
    started: Vec<TaskId>,
    ended: Vec<EndNotice>,
    unknown: Vec<TaskId>,
}

impl Watchers {
    /// A client link opened.
    pub(super) fn join(&mut self, client: ClientId, outbox: Outbox<Notice>) {
        self.clients.insert(client, outbox);
    }

    /// A client link closed. What it watched is let go of when those tasks end.
    pub(super) fn leave(&mut self, client: ClientId) {
        self.clients.remove(&client);
    }

    /// Tells a client what became of its submission, and watches for it what was accepted.
    pub(super) fn accepted(
        &mut self,
        mesh: &Mesh,
        client: ClientId,
        id: u64,
        results: Vec<Accepted>,
    ) {
        let Some(outbox) = self.clients.get(&client) else { return };
        let task = |result: &Accepted| match result {
            Accepted::Task { task, replayed } => Some((TaskId(*task), *replayed)),
            Accepted::Error(_) => None,
        };
        let tasks: Vec<(TaskId, bool)> = results.iter().filter_map(task).collect();
        let bytes = results.len() * NOTICE_BYTES;
        outbox.push(Notice::Accepted { id, results }, bytes);
        let mut replayed = Vec::new();
        for (task, again) in tasks {
            if again {
                replayed.push(task);
            } else {
                self.add(task, Watcher::Client(client));
            }
        }
        if !replayed.is_empty() {
            self.watch(mesh, client, &replayed);
        }
    }

    /// Watches tasks for a client; those that have ended are told at once.
    pub(super) fn watch(&mut self, mesh: &Mesh, client: ClientId, tasks: &[TaskId]) {
        if !self.clients.contains_key(&client) {
            return;
        }
        let mut news = News::default();
        for id in tasks {
            match mesh.task(*id).map(|task| &task.phase) {
                None => news.unknown.push(*id),
                Some(Phase::Ended(_)) => news.ended.extend(end_notice(mesh, *id)),
                Some(phase) => {
                    if matches!(phase, Phase::Running { .. }) {
                        news.started.push(*id);
                    }
                    self.add(*id, Watcher::Client(client));
                }
            }
        }
        self.deliver(client, news);
    }

    /// Answers when a task has ended, at once when it has already.
    pub(super) fn wait(&mut self, mesh: &Mesh, task: TaskId, reply: Reply<()>) {
        if mesh.task(task).is_none_or(|task| task.phase.is_ended()) {
            drop(reply.send(Ok(()))); // whoever hung up does not wait any more
        } else {
            self.add(task, Watcher::Once(reply));
        }
    }

    /// Tells everybody what happened in a turn.
    pub(super) fn tell(
        &mut self,
        mesh: &Mesh,
        started: &[TaskId],
        ended: &[TaskId],
        fresh: &HashMap<TaskId, Bytes>,
    ) {
        if self.tasks.is_empty() {
            return;
        }
        let mut news: BTreeMap<ClientId, News> = BTreeMap::new();
        for id in started {
            for watcher in self.tasks.get(id).into_iter().flatten() {
                if let Watcher::Client(client) = watcher {
                    news.entry(*client).or_default().started.push(*id);
                }
            }
        }
        for id in ended {
            for watcher in self.tasks.remove(id).unwrap_or_default() {
                match watcher {
                    Watcher::Once(reply) => drop(reply.send(Ok(()))),
                    Watcher::Client(client) => {
                        let end =
                            end_notice(mesh, *id).map(|end| self.with_bytes(client, end, fresh));
                        news.entry(client).or_default().ended.extend(end);
                    }
                }
            }
        }
        for (client, news) in news {
            self.deliver(client, news);
        }
    }

    /// Adds the bytes of a result while the client keeps up.
    fn with_bytes(
        &self,
        client: ClientId,
        end: EndNotice,
        fresh: &HashMap<TaskId, Bytes>,
    ) -> EndNotice {
        let keeps_up = self.clients.get(&client).is_some_and(|o| o.queued() < RESULT_BYTES_MAX);
        let bytes = if keeps_up { fresh.get(&end.task).cloned() } else { None };
        EndNotice { bytes, ..end }
    }

    fn deliver(&self, client: ClientId, news: News) {
        let Some(outbox) = self.clients.get(&client) else { return };
        let News { started, ended, unknown } = news;
        if !started.is_empty() {
            let bytes = started.len() * size_of::<TaskId>() + NOTICE_BYTES;
            outbox.push(Notice::Started(started), bytes);
        }
        if !ended.is_empty() {
            let bytes = ended.iter().map(EndNotice::size).sum();
            outbox.push(Notice::Ended(ended), bytes);
        }
        if !unknown.is_empty() {
            let bytes = unknown.len() * size_of::<TaskId>() + NOTICE_BYTES;
            outbox.push(Notice::Unknown(unknown), bytes);
        }
    }

    fn add(&mut self, task: TaskId, watcher: Watcher) {
        let watchers = self.tasks.entry(task).or_insert_with(|| Vec::with_capacity(1));
        watchers.retain(|watcher| match watcher {
            Watcher::Client(client) => self.clients.contains_key(client),
            Watcher::Once(reply) => !reply.is_closed(),
        });
        let is_there = |known: &Watcher| match (known, &watcher) {
            (Watcher::Client(known), Watcher::Client(new)) => known == new,
            _ => false,
        };
        if !watchers.iter().any(is_there) {
            watchers.push(watcher);
        }
    }
}

fn end_notice(mesh: &Mesh, id: TaskId) -> Option<EndNotice> {
    let Phase::Ended(end) = &mesh.task(id)?.phase else { return None };
    let cluster = end.cluster.and_then(|id| mesh.cluster_by_id(id));
    Some(EndNotice {
        task: id,
        outcome: end.outcome.clone(),
        cluster: cluster.map(|cluster| cluster.name.clone()),
        result: end.result,
        bytes: None,
    })
}
