//! The command line as its users meet it: the real binary, the codes, the reference pages.

#![expect(clippy::unwrap_used, reason = "a test may stop, and its helpers with it")]

mod codes;
mod recovery;
mod reference;
mod terminal;
