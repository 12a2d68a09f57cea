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
mod place;
mod shared;
mod wait;

use std::path::PathBuf;

use mesh_api::convert::blob_text;
use pyo3::prelude::*;

/// The BLAKE3 digest of some bytes, in hex.
#[pyfunction]
fn digest(data: &[u8]) -> String {
    blake3::hash(data).to_hex().to_string()
}

/// The id of the package that a file holds: the first half of its BLAKE3 digest, in hex.
#[pyfunction]
fn package_id(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    let digest = py.detach(|| {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(std::fs::File::open(path)?)?;
        Ok::<_, std::io::Error>(hasher.finalize())
    })?;
    Ok(blob_text(mesh_api::package::id_of(&digest)))
}

/// The native module.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::blobs::{BlobReader, BlobWriter};
    #[pymodule_export]
    use super::client::{Client, Code, Spec};
    #[pymodule_export]
    use super::embedded::EmbeddedServer;
    #[pymodule_export]
    use super::{digest, package_id};

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("PACKAGE_MAX", mesh_api::package::PACKAGE_MAX)?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
