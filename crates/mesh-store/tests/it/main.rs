//! What a store promises, on a real disk.

mod keep;
mod sample;
