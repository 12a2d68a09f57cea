//! The simulator, tested: it repeats itself to the byte, it finds nothing where nothing is wrong, and
//! (with the feature `bugs`) it finds what was put in.

#[cfg(feature = "bugs")]
mod bugs;
mod worlds;
