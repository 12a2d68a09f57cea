//! Problems, as Python exceptions. The classes, and which code belongs to which of them, are
//! `schedulemesh.errors`.

use mesh_api::problem::Problem;
use pyo3::prelude::*;

/// What a problem is to Python: `(code, message, remedy, details, retry_after_ms)`.
pub(crate) type ProblemParts = (String, String, String, Vec<String>, Option<u64>);

/// Takes a problem apart.
pub(crate) fn parts(problem: Problem) -> ProblemParts {
    let Problem { code, message, remedy, details, retry_after_ms } = problem;
    (code, message, remedy, details, retry_after_ms)
}

/// The exception for a problem.
pub(crate) fn exception(py: Python<'_>, problem: Problem) -> PyErr {
    let made = py
        .import("schedulemesh.errors")
        .and_then(|module| module.call_method1("from_problem", parts(problem)));
    match made {
        Ok(value) => PyErr::from_value(value),
        Err(error) => error,
    }
}
