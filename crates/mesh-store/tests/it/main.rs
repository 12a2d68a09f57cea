//! What a store promises, on a real disk.

mod crash;
mod damage;
mod dump;
mod fault;
mod format;
mod keep;
mod model;
mod refuse;
mod sample;
