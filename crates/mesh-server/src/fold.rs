//! Folding the journal into a snapshot now and then, so that a restart reads little: a second
//! reader replays it into a copy of the state, and a second writer keeps that, while the driver goes
//! on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_core::{Limits, Mesh};
use mesh_store::{Seq, SnapshotWriter, SqliteStore, StoreError};

use crate::driver::EVENTS_KEPT;
use crate::handle::Handle;

/// The journal is folded when it holds so many events that the snapshot does not, or as many as there
/// are tasks, whichever is more: the larger the snapshot, the more it must be worth.
const EVENTS_MIN: u64 = mesh_fail::sooner(200_000, 400);
/// How often that is looked at.
const LOOK_EVERY: Duration = mesh_fail::sooner(Duration::from_secs(5), Duration::from_millis(100));

/// Folds the journal of a state directory now and then, until the driver ends.
pub(crate) async fn fold_journal(
    handle: Handle,
    dir: PathBuf,
    limits: Limits,
    mut writer: Box<dyn SnapshotWriter>,
) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = handle.shared.asks.closed() => return,
        }
        let Ok(tasks) = handle.read(|mesh, _now| mesh.len()).await else { return };
        let tasks = u64::try_from(tasks).unwrap_or(u64::MAX);
        let grown = handle.shared.tail.last().saturating_sub(handle.shared.tail.folded());
        if grown < mesh_fail::sooner(EVENTS_MIN.max(tasks), EVENTS_MIN) {
            continue;
        }
        let dir = dir.clone();
        let folding = tokio::task::spawn_blocking(move || {
            let folded = fold(&dir, limits, writer.as_mut());
            (folded, writer)
        });
        let folded = match folding.await {
            Ok((folded, returned)) => {
                writer = returned;
                folded
            }
            Err(error) => return tracing::error!(%error, "folding panicked"),
        };
        match folded {
            Ok(Some(seq)) => {
                handle.shared.tail.set_folded(seq);
                tracing::info!(seq, grown, "journal folded");
            }
            Ok(None) => {}
            Err(StoreError::Closed) => return,
            // Nothing depends on it: whether the disk is full or broken shows at the next commit.
            Err(error) => tracing::warn!(%error, "journal not folded"),
        }
    }
}

/// Keeps the state as the journal has it now as a snapshot, and gives up the journal before it,
/// except for those who still follow it. Nothing happens when there is no journal.
fn fold(
    dir: &Path,
    limits: Limits,
    writer: &mut dyn SnapshotWriter,
) -> Result<Option<Seq>, StoreError> {
    let Some((seq, mesh)) = replayed(dir, limits)? else { return Ok(None) };
    mesh_fail::pass("server.fold.replayed");
    writer.save(seq, &mesh.snapshot(), seq.saturating_sub(EVENTS_KEPT))?;
    mesh_fail::pass("server.fold.after");
    Ok(Some(seq))
}

/// A state, and the last event that led to it.
type Replayed = (Seq, Mesh);

/// The state as the journal has it now; nothing when there is no journal.
fn replayed(dir: &Path, limits: Limits) -> Result<Option<Replayed>, StoreError> {
    let Some(reader) = SqliteStore::open_read_only(dir)? else { return Ok(None) };
    let (mut seq, mut mesh) = match reader.load_snapshot()? {
        Some((seq, snapshot)) => (seq, Mesh::restore(snapshot, limits)),
        None => (0, Mesh::new(limits)),
    };
    reader.replay(seq, &mut |entry| {
        entry.events.iter().for_each(|event| mesh.apply(entry.at, event));
        mesh.take_changes();
        seq = entry.last();
        true
    })?;
    Ok(Some((seq, mesh)))
}

#[cfg(test)]
mod tests {
    use mesh_core::Event;
    use mesh_core::model::cluster::ClusterSpec;
    use mesh_core::model::id::ClusterId;
    use mesh_store::{Batch, Store as _};

    use super::*;

    #[test]
    fn what_is_folded_is_the_state_that_the_journal_tells() {
        let dir = tempfile::tempdir().unwrap();
        assert!(replayed(dir.path(), Limits::default()).unwrap().is_none());
        let mut store = SqliteStore::open(dir.path()).unwrap();
        let mut writer = store.snapshots();
        let mut live = Mesh::new(Limits::default());
        for (id, name) in [(1, "a"), (2, "b")] {
            let spec = Box::new(ClusterSpec::default());
            let event = Event::ClusterAdded(ClusterId(id), name.parse().unwrap(), spec);
            live.apply(live.at(), &event);
            store.append(&Batch { events: vec![event], ..Batch::default() }).unwrap();
            let seq = fold(dir.path(), Limits::default(), writer.as_mut()).unwrap();
            assert_eq!(seq, Some(u64::from(id)));
            let kept = store.load_snapshot().unwrap();
            assert_eq!(kept, Some((u64::from(id), live.snapshot())));
        }
    }
}
