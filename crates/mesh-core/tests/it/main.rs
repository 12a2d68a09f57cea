//! Laws and stories of the core.

mod laws;
mod stories;
mod world;
