//! `EmbeddedServer`: a control plane inside this Python process.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use mesh_api::problem::Problem;
use mesh_server::config::Config;
use mesh_server::{RunningServer, Server};
use pyo3::prelude::*;
use tokio::runtime::{Builder, Runtime};

use crate::error::exception;
use crate::wait::wait;

/// Threads that answer. The driver has one of its own.
const THREADS: usize = 2;

/// How long what still runs may take after everything was made durable.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// A control plane that runs in this process, on threads of its own.
#[pyclass(frozen, module = "schedulemesh._native")]
pub(crate) struct EmbeddedServer {
    url: String,
    token: String,
    running: Mutex<Option<(Runtime, RunningServer)>>,
    /// The process that started it: its threads do not exist in a fork.
    process: u32,
}

#[pymethods]
impl EmbeddedServer {
    /// Starts a control plane on the loopback address: at this port when it is free, else at another.
    #[staticmethod]
    #[pyo3(signature = (state_dir, port=0))]
    fn start(py: Python<'_>, state_dir: &str, port: u16) -> PyResult<Self> {
        let config = |port| {
            Config::embedded_in_process(Path::new(state_dir), port)
                .map_err(|problem| exception(py, problem))
        };
        let (wanted, other) = (config(port)?, config(0)?);
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("schedulemesh-server")
            .enable_all()
            .build()
            .map_err(|error| {
                let message = format!("this process cannot start threads: {error}");
                exception(py, Problem::new("INTERNAL", message, "raise the limit of processes"))
            })?;
        let start = async move {
            match Server::start(wanted).await {
                Err(problem) if port != 0 && problem.code == "CANNOT_LISTEN" => {
                    Server::start(other).await
                }
                started => started,
            }
        };
        let server = wait(py, runtime.handle(), start)?;
        Ok(Self {
            url: server.url().to_owned(),
            token: server.admin_token().to_owned(),
            running: Mutex::new(Some((runtime, server))),
            process: std::process::id(),
        })
    }

    /// Where it listens.
    #[getter]
    fn url(&self) -> &str {
        &self.url
    }

    /// The token that opens everything.
    #[getter]
    fn token(&self) -> &str {
        &self.token
    }

    /// Makes everything durable and ends it.
    fn shutdown(&self, py: Python<'_>) -> PyResult<()> {
        let Some((runtime, server)) = self.take() else { return Ok(()) };
        let ended = wait(py, runtime.handle(), async move {
            server.shutdown().await;
            Ok(())
        });
        py.detach(|| runtime.shutdown_timeout(END_TIMEOUT));
        ended
    }
}

impl EmbeddedServer {
    fn take(&self) -> Option<(Runtime, RunningServer)> {
        if self.process != std::process::id() {
            return None;
        }
        self.running.lock().ok().and_then(|mut running| running.take())
    }
}

impl Drop for EmbeddedServer {
    fn drop(&mut self) {
        // Nothing that was accepted is lost: it is as if the process had been killed.
        if let Some((runtime, server)) = self.take() {
            drop(server);
            runtime.shutdown_background();
        }
    }
}
