//! Waiting for asynchronous work from a Python thread: without the interpreter, and so that Ctrl-C
//! ends it.

use std::future::Future;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use mesh_api::problem::Problem;
use pyo3::prelude::*;
use tokio::runtime::Handle;

use crate::error::exception;

/// How long a thread waits before it looks for signals.
pub(crate) const SIGNAL_CHECK: Duration = Duration::from_millis(50);

/// Runs `work` on the runtime and waits for it. A signal that raises in Python ends both.
pub(crate) fn wait<T: Send + 'static>(
    py: Python<'_>,
    runtime: &Handle,
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> PyResult<T> {
    let (sender, mut receiver) = sync_channel(1);
    let task = runtime.spawn(async move {
        // Whoever waited may have been interrupted.
        drop(sender.send(work.await));
    });
    loop {
        let (back, answer) = py.detach(move || {
            let answer = receiver.recv_timeout(SIGNAL_CHECK);
            (receiver, answer)
        });
        receiver = back;
        match answer {
            Ok(result) => return result.map_err(|problem| exception(py, problem)),
            Err(RecvTimeoutError::Timeout) => {
                py.check_signals().inspect_err(|_interrupt| task.abort())?;
            }
            Err(RecvTimeoutError::Disconnected) => {
                let gone = Problem::new("CLIENT_CLOSED", "the client was closed meanwhile", "");
                return Err(exception(py, gone));
            }
        }
    }
}

/// Calls `step` without the interpreter, for short times, until it answers, the time is over
/// (`None`), or a signal raises.
pub(crate) fn poll<T: Send>(
    py: Python<'_>,
    timeout: Option<Duration>,
    step: impl Fn(Duration) -> Option<T> + Sync,
) -> PyResult<Option<T>> {
    let start = std::time::Instant::now();
    loop {
        let left = timeout.map_or(SIGNAL_CHECK, |timeout| timeout.saturating_sub(start.elapsed()));
        let slice = left.min(SIGNAL_CHECK);
        if let Some(found) = py.detach(|| step(slice)) {
            return Ok(Some(found));
        }
        py.check_signals()?;
        if timeout.is_some_and(|timeout| start.elapsed() >= timeout) {
            return Ok(None);
        }
    }
}

/// Seconds from Python, as a duration; `None` and infinity mean for ever.
pub(crate) fn seconds(timeout: Option<f64>) -> Option<Duration> {
    timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok())
}
