//! `schedulemesh._native`: the embedded control plane and the client link, for Python.
//!
//! It knows no rules and never sees a Python object of the user: what crosses it are opaque bytes.
//! Whatever waits does so without holding the interpreter.

mod blobs;
mod client;
mod desk;
mod embedded;
mod error;
mod link;
mod shared;
mod wait;

use pyo3::prelude::*;

/// The BLAKE3 digest of some bytes, in hex.
#[pyfunction]
fn digest(data: &[u8]) -> String {
    blake3::hash(data).to_hex().to_string()
}

/// The native module.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::blobs::{BlobReader, BlobWriter};
    #[pymodule_export]
    use super::client::{Client, Code, Spec};
    #[pymodule_export]
    use super::digest;
    #[pymodule_export]
    use super::embedded::EmbeddedServer;

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
