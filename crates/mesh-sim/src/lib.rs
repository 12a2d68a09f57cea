//! Tests the promises of ScheduleMesh: a seeded simulator of everything around the control plane.
//!
//! The control plane in it is the production one: the engine that decides, commits and dispatches, the
//! meaning of every frame of the agent link, the cursor of the event stream and the reckoning of time.
//! Around it nothing is real: clock, disk, network, Ray clusters, agents and clients follow from a
//! seed, and so does everything that goes wrong. What happens is judged at every step by the laws in
//! [`history`].

#![expect(
    clippy::indexing_slicing,
    reason = "this is a test: an index that is wrong is a bug that must be seen at once"
)]

pub mod canary;
pub mod crash;
pub mod history;
pub mod page;
mod panics;
pub mod plan;
pub mod report;
pub mod shrink;
pub mod sweep;
pub mod world;
