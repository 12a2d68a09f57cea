//! The command line as its users meet it: the real binary, the codes, the reference pages.

mod codes;
mod reference;
