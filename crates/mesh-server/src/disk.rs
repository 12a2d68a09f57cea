//! The room on the disk of the state directory, watched, so that somebody hears of it before it is
//! gone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_store::Space;

use crate::handle::Handle;

/// How often the room is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Below these parts of the disk somebody is told, each time more loudly.
const LOW: f64 = 0.10;
const VERY_LOW: f64 = 0.05;
/// How much more there must be again before it counts as mended, so that a disk around a mark does
/// not fill its last room with log lines.
const MENDED: f64 = 0.01;

/// How much room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Enough,
    Low,
    VeryLow,
}

impl Level {
    fn of(ratio: f64) -> Self {
        if ratio < VERY_LOW {
            Self::VeryLow
        } else if ratio < LOW {
            Self::Low
        } else {
            Self::Enough
        }
    }

    /// The level now, after it was another one.
    fn after(self, ratio: f64) -> Self {
        let found = Self::of(ratio);
        if found < self { Self::of(ratio - MENDED) } else { found }
    }
}

/// Watches the disk of a state directory until the driver ends.
pub(crate) async fn watch(handle: Handle, dir: PathBuf) {
    let mut level = Level::Enough;
    loop {
        level = look(&handle, &dir, level);
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = handle.shared.asks.closed() => return,
        }
    }
}

fn look(handle: &Handle, dir: &Path, before: Level) -> Level {
    let space = match Space::of(dir) {
        Ok(space) => space,
        Err(error) => {
            tracing::warn!(%error, dir = %dir.display(), "room on disk not known");
            return before;
        }
    };
    handle.shared.metrics.disk(space);
    let level = before.after(space.free_ratio());
    if level != before {
        say(level, space, dir);
    }
    level
}

fn say(level: Level, space: Space, dir: &Path) {
    let (free, dir) = (space.free, dir.display());
    let percent = space.free_ratio() * 100.0;
    let told = format!("{percent:.1} % of the disk of the state directory is free");
    match level {
        Level::Enough => tracing::info!(free, %dir, "{told} again"),
        Level::Low => {
            let fix = "free some space, or keep records for less long";
            tracing::warn!(free, %dir, "{told}: {fix}");
        }
        Level::VeryLow => {
            let then = "when it is full, nothing new is accepted until there is room again";
            tracing::error!(free, %dir, "{told}: {then}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_around_a_mark_is_told_of_once() {
        let mut level = Level::Enough;
        let mut told = Vec::new();
        for ratio in [0.5, 0.101, 0.099, 0.101, 0.099, 0.049, 0.051, 0.07, 0.105, 0.12] {
            let next = level.after(ratio);
            if next != level {
                told.push((ratio, next));
            }
            level = next;
        }
        let expected = [
            (0.099, Level::Low),
            (0.049, Level::VeryLow),
            (0.07, Level::Low),
            (0.12, Level::Enough),
        ];
        assert_eq!(told, expected);
    }
}
