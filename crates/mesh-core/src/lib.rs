//! The brain of ScheduleMesh. It decides what runs where and when, and knows nothing of the world:
//! no clock, no disk, no network, no thread, no randomness. What it needs to know, it is told.
//!
//! ```text
//! Command ──▶ Mesh::decide(&self, now, command) ──▶ events | Rejection
//!             Mesh::apply(&mut self, at, event)      replay uses the same
//!             Mesh::schedule(&mut self, now)         gives out free room: events, already applied
//!             Mesh::effect(&self, task)              what the world should be made to match
//! ```
//!
//! The driver makes events durable before anybody hears of them.

pub mod bug;
pub mod check;
pub mod command;
pub mod effect;
pub mod event;
pub mod explain;
mod mesh;
pub mod model;
mod schedule;
pub mod snapshot;
mod table;

pub use command::{Answer, Command, Rejection};
pub use effect::Effect;
pub use event::Event;
pub use mesh::{ClusterState, Counts, Lease, Limits, Mesh, NodeState};
