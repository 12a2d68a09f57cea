//! The nouns: what a mesh is made of, as types that cannot be wrong.

pub mod amount;
pub mod cluster;
pub mod id;
pub mod label;
pub mod priority;
pub mod task;
pub mod time;
