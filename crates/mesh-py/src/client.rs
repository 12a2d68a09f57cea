//! `Client`: what the SDK holds of one control plane.

use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mesh_api::agent::{BlobFrame, CodeFrame, DataFrame, RemoteError};
use mesh_api::client_link::EndedTask;
use mesh_api::problem::Problem;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use tokio::runtime::{Builder, Runtime};

use crate::blobs::{BlobReader, BlobWriter};
use crate::desk::{self, CODE_INLINE_MAX, Event, Shape, Submission};
use crate::error::{exception, parts};
use crate::link;
use crate::place::Place;
use crate::shared::{Guarded, LinkState, Offer, Shared};
use crate::wait::{SIGNAL_CHECK, poll, seconds, wait};

/// Kinds of events, as `schedulemesh.client` reads them.
const STARTED: u8 = 0;
const SUCCEEDED: u8 = 1;
const FAILED: u8 = 2;
const CANCELLED: u8 = 3;
const REFUSED: u8 = 4;
const UNKNOWN: u8 = 5;

/// Pickled code and its digest.
#[pyclass(frozen, module = "schedulemesh._native")]
pub(crate) struct Code {
    inner: Arc<desk::Code>,
}

#[pymethods]
impl Code {
    #[new]
    fn new(data: &[u8]) -> Self {
        let digest = blake3::hash(data).to_hex().to_string();
        let frame = CodeFrame { digest, bytes: Bytes::copy_from_slice(data) };
        Self { inner: Arc::new(desk::Code { frame }) }
    }

    /// The BLAKE3 digest of the bytes, in hex.
    #[getter]
    fn digest(&self) -> &str {
        &self.inner.frame.digest
    }

    /// How many bytes there are.
    #[getter]
    fn size(&self) -> usize {
        self.inner.frame.bytes.len()
    }
}

/// What several submissions share.
#[pyclass(frozen, module = "schedulemesh._native")]
pub(crate) struct Spec {
    inner: Arc<Shape>,
}

#[pymethods]
impl Spec {
    #[new]
    #[pyo3(signature = (body, code=None))]
    fn new(py: Python<'_>, body: &str, code: Option<&Code>) -> PyResult<Self> {
        let body = serde_json::from_str(body).map_err(|error| {
            let message = format!("these options make no specification: {error}");
            exception(py, Problem::new("INVALID", message, "check the values of the options"))
        })?;
        let code = code.map(|code| Arc::clone(&code.inner));
        Ok(Self { inner: Arc::new(Shape { body, code }) })
    }
}

/// One control plane, as seen from this process.
#[pyclass(frozen, module = "schedulemesh._native")]
pub(crate) struct Client {
    shared: Arc<Shared>,
    place: Arc<Place>,
    runtime: ManuallyDrop<Runtime>,
    /// The process that made it: its threads do not exist in a fork.
    process: u32,
    ended: AtomicBool,
}

#[pymethods]
impl Client {
    #[new]
    #[pyo3(signature = (url, token=None, state_dir=None))]
    fn new(
        py: Python<'_>,
        url: &str,
        token: Option<&str>,
        state_dir: Option<PathBuf>,
    ) -> PyResult<Self> {
        let place = Place::new(url, token, state_dir).map_err(|problem| exception(py, problem))?;
        let place = Arc::new(place);
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("schedulemesh-link")
            .enable_all()
            .build()
            .map_err(|error| {
                let message = format!("this process cannot start a thread: {error}");
                exception(py, Problem::new("INTERNAL", message, "raise the limit of processes"))
            })?;
        let shared = Arc::new(Shared::new());
        runtime.spawn(link::keep(Arc::clone(&shared), Arc::clone(&place)));
        Ok(Self {
            shared,
            place,
            runtime: ManuallyDrop::new(runtime),
            process: std::process::id(),
            ended: AtomicBool::new(false),
        })
    }

    /// The address of the control plane.
    #[getter]
    fn url(&self) -> String {
        self.place.http().url().to_owned()
    }

    /// Waits until the link is up. Returns how many bytes travel inside a frame.
    #[pyo3(signature = (timeout=None))]
    fn wait_up(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<usize> {
        self.check_fork(py)?;
        let state = poll(py, seconds(timeout), |slice| {
            self.shared.wait_for(slice, |guarded| match &guarded.link {
                LinkState::Up { inline_max } => Some(Ok(*inline_max)),
                LinkState::Down(_) => None,
                LinkState::Refused(_) | LinkState::Closed => guarded.over().map(Err),
            })
        })?;
        let late = || {
            let told = match &self.shared.lock().link {
                LinkState::Down(why) => why.clone(),
                LinkState::Up { .. } | LinkState::Refused(_) | LinkState::Closed => None,
            };
            let message = format!("no control plane answers at {}", self.url());
            let remedy = "start one with `schedulemesh serve`, or say where it is with url=...";
            Err(told.unwrap_or_else(|| Problem::new("UNAVAILABLE", message, remedy)))
        };
        state.unwrap_or_else(late).map_err(|problem| exception(py, problem))
    }

    /// Whether the link is up now.
    fn is_up(&self, py: Python<'_>) -> PyResult<bool> {
        self.check_fork(py)?;
        Ok(matches!(self.shared.lock().link, LinkState::Up { .. }))
    }

    /// Waits until the control plane is gone whose place this process may take: whether it is. `None`
    /// when this client is over.
    fn wait_orphaned(&self, py: Python<'_>, timeout: f64) -> PyResult<Option<bool>> {
        self.check_fork(py)?;
        let wait = seconds(Some(timeout)).unwrap_or(SIGNAL_CHECK);
        let gone = |guarded: &mut Guarded| match &guarded.link {
            LinkState::Closed | LinkState::Refused(_) => Some(None),
            LinkState::Down(Some(_)) => self.place.is_heritable().then_some(Some(true)),
            LinkState::Down(None) | LinkState::Up { .. } => None,
        };
        Ok(py.detach(|| self.shared.wait_for(wait, gone)).unwrap_or(Some(false)))
    }

    /// Dials now, if the link is down, instead of after the wait that it is in.
    fn redial(&self, py: Python<'_>) -> PyResult<()> {
        self.check_fork(py)?;
        self.shared.redial.notify_one();
        Ok(())
    }

    /// Queues a task for submission and returns its key. Waits only while too many are not accepted.
    #[pyo3(signature = (ticket, spec, payload=None, blob=None, key=None, name=None))]
    #[expect(
        clippy::too_many_arguments,
        reason = "one call for each task: a struct would cost more"
    )]
    fn submit(
        &self,
        py: Python<'_>,
        ticket: u64,
        spec: &Spec,
        payload: Option<&[u8]>,
        blob: Option<(String, u64)>,
        key: Option<String>,
        name: Option<String>,
    ) -> PyResult<String> {
        self.check_fork(py)?;
        let payload = match (payload, blob) {
            (_, Some((id, size))) => DataFrame::Blob(BlobFrame { id, size }),
            (Some(bytes), None) => DataFrame::Inline(Bytes::copy_from_slice(bytes)),
            (None, None) => DataFrame::None,
        };
        let key = key.unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        let shape = Arc::clone(&spec.inner);
        let submission = Submission {
            ticket,
            shape,
            key: key.clone(),
            name,
            payload,
            code_again: false,
            in_doubt: false,
        };
        self.place(py, submission)?;
        Ok(key)
    }

    /// Uploads code that is too large for a frame; does nothing for other code.
    fn put_code(&self, py: Python<'_>, code: &Code) -> PyResult<()> {
        self.check_fork(py)?;
        if code.size() <= CODE_INLINE_MAX {
            return Ok(());
        }
        let (http, bytes) = (self.place.http(), code.inner.frame.bytes.clone());
        wait(py, self.runtime.handle(), async move { http.put_code(bytes).await.map(drop) })
    }

    /// Watches a task that was submitted elsewhere, under a new ticket.
    fn watch(&self, py: Python<'_>, ticket: u64, task: u64) -> PyResult<()> {
        self.check_fork(py)?;
        let mut guarded = self.shared.lock();
        if let Some(problem) = guarded.over() {
            drop(guarded);
            return Err(exception(py, problem));
        }
        guarded.desk.watch(ticket, task);
        drop(guarded);
        self.shared.outgoing.notify_one();
        Ok(())
    }

    /// Asks for the end of a task. `False` when it is not under way any more.
    fn cancel(&self, py: Python<'_>, ticket: u64) -> PyResult<bool> {
        self.check_fork(py)?;
        let known = self.shared.lock().desk.cancel(ticket);
        self.shared.outgoing.notify_one();
        Ok(known)
    }

    /// The number of an accepted task that is under way.
    fn task_of(&self, py: Python<'_>, ticket: u64) -> PyResult<Option<u64>> {
        self.check_fork(py)?;
        Ok(self.shared.lock().desk.task_of(ticket).flatten())
    }

    /// Waits until a submission is accepted or over. Returns whether it is either.
    #[pyo3(signature = (ticket, timeout=None))]
    fn wait_accepted(&self, py: Python<'_>, ticket: u64, timeout: Option<f64>) -> PyResult<bool> {
        self.check_fork(py)?;
        let found = poll(py, seconds(timeout), |slice| {
            self.shared.wait_for(slice, |guarded| match guarded.desk.task_of(ticket) {
                Some(None) => None,
                Some(Some(_)) | None => Some(()),
            })
        })?;
        Ok(found.is_some())
    }

    /// Waits until everything submitted or cancelled so far is answered. Returns whether it is.
    #[pyo3(signature = (timeout=None))]
    fn flush(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        self.check_fork(py)?;
        let done = poll(py, seconds(timeout), |slice| {
            self.shared.wait_for(slice, |guarded| guarded.desk.is_settled().then_some(()))
        })?;
        Ok(done.is_some())
    }

    /// The news, in batches; an empty list when there were none for a while, `None` when there will
    /// be no more.
    fn next_events<'py>(
        &self,
        py: Python<'py>,
        timeout: f64,
    ) -> PyResult<Option<Bound<'py, PyList>>> {
        self.check_fork(py)?;
        let wait = seconds(Some(timeout)).unwrap_or(SIGNAL_CHECK);
        let Some(events) = py.detach(|| self.shared.next_events(wait)) else { return Ok(None) };
        let tuples: Vec<_> =
            events.into_iter().map(|event| tuple(py, event)).collect::<PyResult<_>>()?;
        PyList::new(py, tuples).map(Some)
    }

    /// Calls a route of the HTTP API. Returns the body of the answer.
    #[pyo3(signature = (method, path, body=None))]
    fn request<'py>(
        &self,
        py: Python<'py>,
        method: String,
        path: String,
        body: Option<Vec<u8>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        self.check_fork(py)?;
        let http = self.place.http();
        let answer =
            wait(py, self.runtime.handle(), async move { http.raw(&method, &path, body).await })?;
        Ok(PyBytes::new(py, &answer))
    }

    /// Starts to upload a blob.
    fn blob_writer(&self, py: Python<'_>) -> PyResult<BlobWriter> {
        self.check_fork(py)?;
        Ok(BlobWriter::start(self.runtime.handle(), self.place.http(), None))
    }

    /// Starts to upload a package.
    fn package_writer(&self, py: Python<'_>, package: String) -> PyResult<BlobWriter> {
        self.check_fork(py)?;
        Ok(BlobWriter::start(self.runtime.handle(), self.place.http(), Some(package)))
    }

    /// Starts to download a blob.
    fn blob_reader(&self, py: Python<'_>, blob: String) -> PyResult<BlobReader> {
        self.check_fork(py)?;
        let http = self.place.http();
        Ok(BlobReader::start(self.runtime.handle(), async move { http.blob(&blob).await }))
    }

    /// Ends the link. What was accepted goes on.
    fn close(&self, py: Python<'_>) {
        if self.process == std::process::id() && !self.ended.swap(true, Ordering::Relaxed) {
            py.detach(|| self.shared.close());
        }
    }
}

impl Client {
    fn check_fork(&self, py: Python<'_>) -> PyResult<()> {
        let here = std::process::id();
        if here == self.process {
            return Ok(());
        }
        let message = format!(
            "this client was made in process {}; process {here} is a fork of it and has no link",
            self.process
        );
        let remedy = "call schedulemesh.connect() in the child, or start processes with `spawn`";
        Err(exception(py, Problem::new("FORKED", message, remedy)))
    }

    fn place(&self, py: Python<'_>, submission: Submission) -> PyResult<()> {
        let mut submission = submission;
        loop {
            match self.shared.offer(submission) {
                Offer::Taken => return Ok(()),
                Offer::Never(problem) => return Err(exception(py, problem)),
                Offer::Full(back) => submission = *back,
            }
            py.detach(|| self.shared.wait_for_room(SIGNAL_CHECK));
            py.check_signals()?;
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The threads of the runtime exist only where it was made; a fork must not wait for them.
        if self.process != std::process::id() {
            return;
        }
        self.shared.close();
        #[expect(unsafe_code, reason = "the only way to take a value out in `drop`")]
        // SAFETY: nothing uses the runtime after `drop`.
        let runtime = unsafe { ManuallyDrop::take(&mut self.runtime) };
        runtime.shutdown_timeout(Duration::from_millis(200));
    }
}

/// `(kind, ticket, task, cluster, data, error)`, as `schedulemesh.client` reads it.
fn tuple(py: Python<'_>, event: Event) -> PyResult<Bound<'_, PyTuple>> {
    match event {
        Event::Started { ticket, task } => {
            (STARTED, ticket, Some(task), None::<&str>, None::<&str>, None::<&str>)
                .into_pyobject(py)
        }
        Event::Dropped { ticket } => {
            (CANCELLED, ticket, None::<u64>, None::<&str>, None::<&str>, None::<&str>)
                .into_pyobject(py)
        }
        Event::Refused { ticket, problem } => {
            (REFUSED, ticket, None::<u64>, None::<&str>, None::<&str>, parts(problem))
                .into_pyobject(py)
        }
        Event::Ended { ticket, end } => ended(py, ticket, end),
    }
}

fn ended(py: Python<'_>, ticket: u64, end: EndedTask) -> PyResult<Bound<'_, PyTuple>> {
    let EndedTask { task, outcome, cluster, result, error } = end;
    let kind = match outcome.as_str() {
        "succeeded" => SUCCEEDED,
        "failed" => FAILED,
        "cancelled" => CANCELLED,
        _ => UNKNOWN,
    };
    let error = error.map(|RemoteError { cause, exception, message, traceback }| {
        (cause, exception, message, traceback)
    });
    (kind, ticket, Some(task), cluster, data(py, result)?, error).into_pyobject(py)
}

/// Bytes, `(id, size)` of a blob, or `None`.
fn data(py: Python<'_>, frame: DataFrame) -> PyResult<Option<Bound<'_, PyAny>>> {
    match frame {
        DataFrame::None => Ok(None),
        DataFrame::Inline(bytes) => Ok(Some(PyBytes::new(py, &bytes).into_any())),
        DataFrame::Blob(BlobFrame { id, size }) => {
            (id, size).into_pyobject(py).map(|pair| Some(pair.into_any()))
        }
    }
}
