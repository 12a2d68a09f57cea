//! What a store promises, on a real disk.

#![expect(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test may stop, and its helpers with it"
)]

mod crash;
mod damage;
mod dump;
mod fault;
mod format;
mod full;
mod keep;
mod model;
mod refuse;
mod sample;
