//! The control plane as its agents and clients meet it: the real server, the real store in a
//! temporary folder, the real protocols over loopback. Only Ray is played.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that can't go on says so"
)]

mod agent;
mod client;
mod support;

mod blobs;
mod faults;
mod links;
mod restarts;
mod tasks;
