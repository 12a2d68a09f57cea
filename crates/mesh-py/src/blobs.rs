//! Blobs on their way between Python's pickler and the control plane, in pieces and with bounded
//! memory.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use mesh_api::http_client::HttpClient;
use mesh_api::problem::Problem;
use mesh_api::v1::BlobView;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::error::exception;
use crate::wait::wait;

/// Pieces in memory at once, in each direction.
const PIECES_MAX: usize = 4;

/// Takes pieces in and uploads them as one blob.
#[pyclass(frozen, module = "schedulemesh._native")]
pub(crate) struct BlobWriter {
    runtime: Handle,
    upload: Mutex<Option<Upload>>,
}

struct Upload {
    pieces: mpsc::Sender<Result<Bytes, std::io::Error>>,
    answer: JoinHandle<Result<BlobView, Problem>>,
}

impl BlobWriter {
    /// Starts an upload: of a package when an id is given, else of a blob that gets one.
    pub(crate) fn start(runtime: &Handle, http: HttpClient, package: Option<String>) -> Self {
        let (pieces, receiver) = mpsc::channel(PIECES_MAX);
        let stream = futures_util::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|piece| (piece, receiver))
        });
        let answer = runtime.spawn(async move {
            match package {
                Some(id) => http.put_package(&id, stream).await,
                None => http.put_blob(stream).await,
            }
        });
        Self { runtime: runtime.clone(), upload: Mutex::new(Some(Upload { pieces, answer })) }
    }

    fn take(&self) -> Option<Upload> {
        self.upload.lock().ok().and_then(|mut upload| upload.take())
    }
}

#[pymethods]
impl BlobWriter {
    /// Sends one piece. Returns when there is room for another.
    fn write(&self, py: Python<'_>, data: &[u8]) -> PyResult<()> {
        let piece = Bytes::copy_from_slice(data);
        let sender = self
            .upload
            .lock()
            .ok()
            .and_then(|upload| upload.as_ref().map(|upload| upload.pieces.clone()));
        let Some(sender) = sender else {
            return Err(exception(py, Problem::new("INTERNAL", "the upload is over", "")));
        };
        // A receiver that went away has an answer that says why: `finish` tells it.
        wait(py, &self.runtime, async move {
            drop(sender.send(Ok(piece)).await);
            Ok(())
        })
    }

    /// Ends the upload. Returns the blob's id and size.
    fn finish(&self, py: Python<'_>) -> PyResult<(String, u64)> {
        let Some(Upload { pieces, answer }) = self.take() else {
            return Err(exception(py, Problem::new("INTERNAL", "the upload is over", "")));
        };
        drop(pieces);
        let view = wait(py, &self.runtime, async move {
            answer.await.unwrap_or_else(|stopped| {
                Err(Problem::new("UNAVAILABLE", format!("the upload ended: {stopped}"), ""))
            })
        })?;
        Ok((view.id, view.size))
    }

    /// Gives the upload up.
    fn abort(&self) {
        if let Some(upload) = self.take() {
            upload.answer.abort();
        }
    }
}

/// What a download gives out.
type Pieces = mpsc::Receiver<Result<Bytes, Problem>>;

/// Gives out a download, piece by piece.
#[pyclass(frozen, module = "schedulemesh._native")]
pub(crate) struct BlobReader {
    runtime: Handle,
    pieces: Arc<tokio::sync::Mutex<Pieces>>,
    download: JoinHandle<()>,
}

impl BlobReader {
    /// Starts to download what `open` opens.
    pub(crate) fn start<S>(
        runtime: &Handle,
        open: impl Future<Output = Result<S, Problem>> + Send + 'static,
    ) -> Self
    where
        S: Stream<Item = Result<Bytes, Problem>> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(PIECES_MAX);
        let download = runtime.spawn(async move {
            match open.await {
                Err(problem) => drop(sender.send(Err(problem)).await),
                Ok(stream) => {
                    let mut stream = std::pin::pin!(stream);
                    while let Some(piece) = stream.next().await {
                        if sender.send(piece).await.is_err() {
                            return;
                        }
                    }
                }
            }
        });
        let pieces = Arc::new(tokio::sync::Mutex::new(receiver));
        Self { runtime: runtime.clone(), pieces, download }
    }
}

#[pymethods]
impl BlobReader {
    /// The next piece; empty at the end.
    fn read<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let pieces = Arc::clone(&self.pieces);
        let piece = wait(py, &self.runtime, async move {
            pieces.lock().await.recv().await.unwrap_or_else(|| Ok(Bytes::new()))
        })?;
        Ok(PyBytes::new(py, &piece))
    }

    /// Gives the download up.
    fn close(&self) {
        self.download.abort();
    }
}

impl Drop for BlobReader {
    fn drop(&mut self) {
        self.download.abort();
    }
}
