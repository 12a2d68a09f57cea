//! Failpoints: named places in the control plane at which a test can kill it, hold it up, or tell it
//! that the disk failed.
//!
//! Only a build with the feature `failpoints` has them; in every other build [`pass`] and [`fault`]
//! are empty and cost nothing. In a build that has them, the environment says what happens when the
//! program starts:
//!
//! * `SCHEDULEMESH_FAILPOINTS="store.append.after_commit=kill(7);blob.before_sync=pause(200)"` - the
//!   seventh time that the first place is passed, the process kills itself as `kill -9` does; each
//!   time that the second one is passed, it sleeps. The actions are in [`Action`].
//! * `SCHEDULEMESH_FAILPOINTS_COUNTS=FILE` - how often each place was passed is written to this file
//!   as it happens, eight bytes for each of [`POINTS`], added to what is there.
//!
//! Why not the crate `fail`: it counts passes in memory, where a kill takes them away, has no action
//! that kills as power loss does, and takes names that nobody declared. This is as short as its glue.

#[cfg(feature = "failpoints")]
mod on;
mod plan;

pub use plan::{Action, Fault, Order, orders};

/// The variable that says what happens.
pub const ORDERS_VARIABLE: &str = "SCHEDULEMESH_FAILPOINTS";
/// The variable that says where passes are counted.
pub const COUNTS_VARIABLE: &str = "SCHEDULEMESH_FAILPOINTS_COUNTS";

/// Every failpoint, by name. The order is that of the file in which passes are counted.
pub const POINTS: &[&str] = &[
    "state.token.before_sync",
    "state.token.before_rename",
    "state.token.after_rename",
    "state.secret.before_sync",
    "state.secret.before_rename",
    "state.secret.after_rename",
    "state.announce.before_sync",
    "state.announce.before_rename",
    "state.announce.after_rename",
    "store.create.before_schema",
    "store.create.after_schema",
    "store.create.before_rename",
    "store.create.before_dir_sync",
    "store.open.before_log",
    "store.open.after_ends",
    "store.append.begin",
    "store.append.after_events",
    "store.append.after_data",
    "store.append.after_code",
    "store.append.before_commit",
    "store.append.after_commit",
    "store.snapshot.before_part",
    "store.snapshot.after_part",
    "store.snapshot.before_flip",
    "store.snapshot.after_flip",
    "store.snapshot.clearing",
    "store.journal.before_drop",
    "store.journal.after_drop",
    "store.checkpoint.begin",
    "store.checkpoint.copied",
    "store.checkpoint.before_restart",
    "store.checkpoint.after_restart",
    "store.reserve.before_hold",
    "store.reserve.after_hold",
    "store.reserve.before_release",
    "store.reserve.after_release",
    "store.close",
    "engine.begin.before",
    "engine.begin.after",
    "engine.commit.before",
    "engine.commit.after",
    "engine.commit.failed",
    "engine.dispatch.after",
    "engine.answer.after",
    "engine.fold.before",
    "engine.fold.after",
    "server.fold.replayed",
    "server.fold.after",
    "blob.create",
    "blob.write",
    "blob.before_sync",
    "blob.before_rename",
    "blob.before_dir_sync",
    "blob.after_dir_sync",
    "blob.claim",
    "blob.collect.before_delete",
    "blob.collect.after_delete",
    "agent.welcome.before",
    "agent.welcome.after",
    "agent.ack.before",
    "agent.report.heard",
    "agent.blob.part",
    "client.submit.heard",
    "client.accepted.before",
    "client.accepted.after",
    "client.ended.before",
    "client.cancelled.before",
    "http.submit.before_answer",
    "http.cancel.before_answer",
    "http.code.before_keep",
    "http.code.after_keep",
    "http.package.after_keep",
];

/// Passes a failpoint at which nothing can be reported: the process may be killed or held up here.
#[inline]
pub fn pass(point: &'static str) {
    #[cfg(feature = "failpoints")]
    drop(on::pass(point)); // an order for an error has no effect where there is nobody to tell
    #[cfg(not(feature = "failpoints"))]
    let _: &str = point;
}

/// Passes a failpoint at which the system may fail: as [`pass`], and the error that was ordered.
#[cfg_attr(
    not(feature = "failpoints"),
    expect(clippy::unnecessary_wraps, reason = "a build with failpoints has errors to tell")
)]
#[inline]
pub fn fault(point: &'static str) -> std::io::Result<()> {
    #[cfg(feature = "failpoints")]
    return on::pass(point);
    #[cfg(not(feature = "failpoints"))]
    {
        let _: &str = point;
        Ok(())
    }
}

/// A bound that tests want to reach sooner: `usual`, or `soon` in a build with failpoints.
#[inline]
pub const fn sooner<T: Copy>(usual: T, soon: T) -> T {
    if cfg!(feature = "failpoints") { soon } else { usual }
}
