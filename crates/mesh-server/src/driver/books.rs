//! What the driver keeps beside the state: which blobs and which code are in use, and the arguments
//! of tasks that will be started soon. All of it can be found again from the state and the store.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use mesh_core::model::id::{Digest, TaskId};
use mesh_core::model::task::{BlobId, Data, Phase};
use mesh_core::{Event, Mesh};
use mesh_store::{Batch, Side, Store, StoreError};

/// Most bytes of arguments that are kept in memory until their tasks start; the rest is read back.
const PAYLOADS_MAX: usize = 64 << 20;

/// What the driver keeps beside the state.
#[derive(Debug, Default)]
pub(super) struct Books {
    blobs: HashMap<BlobId, u32>,
    code: HashSet<Digest>,
    payloads: HashMap<TaskId, Bytes>,
    payload_bytes: usize,
}

impl Books {
    /// The books that go with a state.
    pub(super) fn of(mesh: &Mesh) -> Self {
        let mut books = Self::default();
        for task in mesh.tasks_before(None) {
            match &task.phase {
                Phase::Ended(end) => books.refer(end.result),
                _ => books.refer(task.payload),
            }
        }
        books
    }

    /// Takes note of an event that is about to become true, and of what it makes superfluous.
    pub(super) fn before(&mut self, mesh: &Mesh, event: &Event, batch: &mut Batch) {
        match event {
            Event::Submitted { payload, .. } => self.refer(*payload),
            Event::Ended { task, result, .. } => {
                self.refer(*result);
                let payload = mesh.task(*task).map(|task| task.payload).unwrap_or_default();
                self.give_up(*task, Side::Payload, payload, batch);
                self.take_payload(*task);
            }
            Event::Forgotten(tasks) => {
                for id in tasks {
                    let Some(task) = mesh.task(*id) else { continue };
                    if let Phase::Ended(end) = &task.phase {
                        self.give_up(*id, Side::Result, end.result, batch);
                    }
                }
            }
            Event::CodeForgotten(digests) => {
                for digest in digests {
                    self.code.remove(digest);
                    batch.code.retain(|(kept, _)| kept != digest);
                    batch.drop_code.push(*digest);
                }
            }
            _ => {}
        }
    }

    fn refer(&mut self, data: Data) {
        if let Data::Blob(id, _) = data {
            *self.blobs.entry(id).or_default() += 1;
        }
    }

    fn give_up(&mut self, task: TaskId, side: Side, data: Data, batch: &mut Batch) {
        match data {
            Data::None => {}
            Data::Inline(_) => batch.drop_data.push((task, side)),
            Data::Blob(id, _) => {
                if let Some(count) = self.blobs.get_mut(&id) {
                    *count -= 1;
                    if *count == 0 {
                        self.blobs.remove(&id);
                    }
                }
            }
        }
    }

    /// The blobs that something refers to.
    pub(super) fn used_blobs(&self) -> HashSet<BlobId> {
        self.blobs.keys().copied().collect()
    }

    /// Keeps code, unless it is kept already.
    pub(super) fn put_code(
        &mut self,
        code: Vec<(Digest, Bytes)>,
        store: &dyn Store,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        for (digest, bytes) in code {
            let dropped = batch.drop_code.contains(&digest);
            if dropped {
                batch.drop_code.retain(|other| *other != digest);
            } else if self.has_code(&digest, store)? {
                continue;
            }
            self.code.insert(digest);
            batch.code.push((digest, bytes));
        }
        Ok(())
    }

    /// Whether code is kept.
    pub(super) fn has_code(
        &mut self,
        digest: &Digest,
        store: &dyn Store,
    ) -> Result<bool, StoreError> {
        let known = self.code.contains(digest) || store.has_code(digest)?;
        if known {
            self.code.insert(*digest);
        }
        Ok(known)
    }

    /// Keeps arguments at hand, while there is room for them.
    pub(super) fn keep_payload(&mut self, task: TaskId, bytes: &Bytes) {
        if self.payload_bytes + bytes.len() <= PAYLOADS_MAX {
            self.payload_bytes += bytes.len();
            self.payloads.insert(task, bytes.clone());
        }
    }

    /// Arguments that were kept at hand; they are not kept any longer.
    pub(super) fn take_payload(&mut self, task: TaskId) -> Option<Bytes> {
        let bytes = self.payloads.remove(&task)?;
        self.payload_bytes -= bytes.len();
        Some(bytes)
    }
}
