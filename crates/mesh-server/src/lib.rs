//! The ScheduleMesh control plane: HTTP, links, clock, configuration and the task that owns the state.

pub mod accept;
pub mod auth;
pub mod config;
pub mod hosts;
pub mod state_dir;
pub mod tls;
