//! What runs where, and in which order: the queue of classes, the index of free room, and one
//! cycle over both.

pub(crate) mod cycle;
pub(crate) mod place;
pub(crate) mod queue;
pub(crate) mod room;
