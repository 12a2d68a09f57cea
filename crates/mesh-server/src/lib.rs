//! The ScheduleMesh control plane: HTTP, links, clock, configuration and the task that owns the state.

pub mod accept;
pub mod agents;
pub mod auth;
pub mod blobs;
mod bootstrap;
pub mod clients;
pub mod clock;
pub mod config;
mod disk;
pub mod driver;
mod fold;
pub mod handle;
pub mod hosts;
pub mod http;
pub mod metrics;
pub mod outbox;
pub mod packages;
pub mod secret;
mod server;
pub mod state_dir;
pub mod tail;
pub mod tls;

pub use server::{RunningServer, Server};
