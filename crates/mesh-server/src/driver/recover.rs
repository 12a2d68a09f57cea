//! Reading the state back from the store.

use mesh_core::{Limits, Mesh};
use mesh_store::{Seq, Store};

use super::StartError;

/// The state that the store holds: its newest snapshot, whose last event is told too, and every
/// event since.
pub(super) fn load(store: &dyn Store, limits: Limits) -> Result<(Seq, Mesh), StartError> {
    let (after, mut mesh) = match store.load_snapshot()? {
        Some((seq, snapshot)) => (seq, Mesh::restore(snapshot, limits)),
        None => (0, Mesh::new(limits)),
    };
    let mut replayed = 0_usize;
    store.replay(after, &mut |entry| {
        entry.events.iter().for_each(|event| mesh.apply(entry.at, event));
        replayed += entry.events.len();
        true
    })?;
    mesh.take_changes();
    if cfg!(debug_assertions) {
        mesh.check().map_err(StartError::Contradiction)?;
    }
    tracing::info!(snapshot = after, replayed, tasks = mesh.len(), "state recovered");
    Ok((after, mesh))
}
