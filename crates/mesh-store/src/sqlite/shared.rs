//! What the connections of one store share: who may write now, and whether anybody still may.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::{Result, StoreError};

/// Shared by the owner's connection and those that work beside it.
///
/// SQLite lets one connection write at a time, and makes the others ask again and again, with waits
/// that grow. Taking turns here instead, a commit of the owner waits for one step of somebody else's
/// work at most, and is woken at once.
#[derive(Debug, Default)]
pub(super) struct Shared {
    turns: Mutex<Turns>,
    turn_ended: Condvar,
    poison: OnceLock<String>,
    closing: AtomicBool,
}

#[derive(Debug, Default)]
struct Turns {
    taken: bool,
    owner_waits: bool,
}

/// Leave to write, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    shared: &'a Shared,
}

impl Shared {
    /// Waits for the step that somebody else is at, and for nothing more.
    pub(super) fn owner_turn(&self) -> Turn<'_> {
        let mut turns = self.turns();
        turns.owner_waits = true;
        while turns.taken {
            turns = self.turn_ended.wait(turns).unwrap_or_else(PoisonError::into_inner);
        }
        *turns = Turns { taken: true, owner_waits: false };
        Turn { shared: self }
    }

    /// Waits for whoever is at work, and lets the owner go first.
    pub(super) fn guest_turn(&self) -> Turn<'_> {
        let mut turns = self.turns();
        while turns.taken || turns.owner_waits {
            turns = self.turn_ended.wait(turns).unwrap_or_else(PoisonError::into_inner);
        }
        turns.taken = true;
        Turn { shared: self }
    }

    /// Takes note of an error after which nobody knows what the disk holds, and passes it on.
    pub(super) fn poison_if_grave<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result
            && error.poisons()
        {
            // The first reason stays: later ones follow from it.
            let _first = self.poison.get_or_init(|| error.to_string());
        }
        result
    }

    /// Refuses to write after such an error.
    pub(super) fn check_poison(&self, path: &Path) -> Result<()> {
        let Some(why) = self.poison.get() else { return Ok(()) };
        let source = format!("it failed before ({why}) and must be opened again").into();
        Err(StoreError::Failed { path: path.into(), doing: "write to", source })
    }

    /// Asks whoever works beside the owner to end early.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Whether the owner is about to go.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// A panic elsewhere leaves nothing half done here: every change is made in one step.
    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.shared.turns().taken = false;
        self.shared.turn_ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn the_owner_goes_before_others_that_came_first() {
        let shared = Shared::default();
        let (order, ended) = channel();
        std::thread::scope(|scope| {
            let first = shared.guest_turn();
            let owner = order.clone();
            scope.spawn(|| {
                let _turn = shared.owner_turn();
                owner.send("owner").unwrap();
                drop(owner);
            });
            while !shared.turns().owner_waits {
                std::thread::yield_now();
            }
            scope.spawn(|| {
                let _turn = shared.guest_turn();
                order.send("guest").unwrap();
                drop(order);
            });
            drop(first);
        });
        assert_eq!(ended.iter().collect::<Vec<_>>(), ["owner", "guest"]);
    }

    #[test]
    fn the_first_grave_error_is_the_one_that_is_told() {
        let shared = Shared::default();
        let path = Path::new("mesh.db");
        let failed = |doing| StoreError::Failed { path: path.into(), doing, source: "no".into() };
        let full = StoreError::Full { path: path.into() };
        assert!(shared.poison_if_grave::<()>(Err(full)).is_err());
        shared.check_poison(path).unwrap();
        for doing in ["sync", "read"] {
            assert!(shared.poison_if_grave::<()>(Err(failed(doing))).is_err());
        }
        let refusal = shared.check_poison(path).unwrap_err().to_string();
        assert!(refusal.contains("(cannot sync mesh.db: no)"), "{refusal}");
    }
}
