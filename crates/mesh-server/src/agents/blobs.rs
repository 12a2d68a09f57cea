//! Blobs over an agent link: parts are asked for or confirmed one by one, so that neither side holds
//! more than a few.

use std::collections::HashMap;

use bytes::Bytes;
use mesh_api::agent::{
    BLOB_PART_MAX, BlobFrame, PieceFrame, PullFrame, PushFrame, PushedFrame, ToAgent,
};
use mesh_api::convert::{blob_id, blob_text};
use mesh_api::problem::Problem;

use super::protocol::bad_frame;
use crate::blobs::{BlobWriter, Blobs};
use crate::outbox::Outbox;

/// Most blobs that one agent may bring at a time.
const UPLOADS_MAX: usize = 64;
/// Above so many waiting bytes, an agent that asks for more is told to ask again.
const WAITING_MAX: usize = 64 << 20;

/// The blobs that travel over one link.
#[derive(Debug)]
pub(super) struct BlobDesk {
    blobs: Blobs,
    uploads: HashMap<u64, BlobWriter>,
    to_agent: Outbox<ToAgent>,
}

impl BlobDesk {
    pub(super) fn new(blobs: Blobs, to_agent: Outbox<ToAgent>) -> Self {
        Self { blobs, uploads: HashMap::new(), to_agent }
    }

    /// Answers with a part of a blob, or why there is none.
    pub(super) async fn pull(&self, pull: &PullFrame) {
        let piece = match self.piece(pull).await {
            Ok(bytes) => {
                PieceFrame { id: pull.id.clone(), offset: pull.offset, bytes, problem: None }
            }
            Err(problem) => PieceFrame {
                id: pull.id.clone(),
                offset: pull.offset,
                bytes: Bytes::new(),
                problem: Some(problem),
            },
        };
        let size = piece.bytes.len() + 256;
        self.to_agent.push(ToAgent::Piece(piece), size);
    }

    async fn piece(&self, pull: &PullFrame) -> Result<Bytes, Problem> {
        if self.to_agent.queued() > WAITING_MAX {
            return Err(Problem {
                retry_after_ms: Some(1_000),
                ..Problem::new(
                    "OVERLOADED",
                    "too many parts of blobs are on their way",
                    "ask again",
                )
            });
        }
        let len = usize::try_from(pull.len).unwrap_or(usize::MAX).min(BLOB_PART_MAX);
        self.blobs.read(blob_id(&pull.id)?, pull.offset).await?.next(len).await
    }

    /// Writes a part of a new blob and confirms it, or gives the upload up and says why.
    pub(super) async fn push(&mut self, push: PushFrame) -> Result<(), Problem> {
        if push.bytes.len() > BLOB_PART_MAX {
            let size = push.bytes.len();
            return Err(bad_frame(&format!("a part of {size} bytes; {BLOB_PART_MAX} are allowed")));
        }
        let upload = push.upload;
        let answer = match self.written(push).await {
            Ok(answer) => answer,
            Err(problem) => {
                self.uploads.remove(&upload);
                PushedFrame { upload, offset: 0, blob: None, problem: Some(problem) }
            }
        };
        self.to_agent.push(ToAgent::Pushed(answer), 256);
        Ok(())
    }

    async fn written(&mut self, push: PushFrame) -> Result<PushedFrame, Problem> {
        let PushFrame { upload, offset, bytes, done } = push;
        if offset == 0 {
            self.uploads.remove(&upload);
            if self.uploads.len() >= UPLOADS_MAX {
                return Err(Problem {
                    retry_after_ms: Some(1_000),
                    ..Problem::new(
                        "OVERLOADED",
                        format!("{UPLOADS_MAX} uploads are open already"),
                        "finish one of them first",
                    )
                });
            }
            self.uploads.insert(upload, self.blobs.create().await?);
        }
        let Some(writer) = self.uploads.get_mut(&upload) else {
            return Err(bad_frame(&format!("upload {upload} was not begun, or was given up")));
        };
        if writer.size() != offset {
            let size = writer.size();
            return Err(bad_frame(&format!(
                "upload {upload} continues at {size}, not at {offset}"
            )));
        }
        mesh_fail::pass("agent.blob.part");
        writer.write(&bytes).await?;
        let offset = writer.size();
        let finished = if done { self.uploads.remove(&upload) } else { None };
        let blob = match finished {
            None => None,
            Some(writer) => {
                let (id, size) = writer.finish().await?;
                Some(BlobFrame { id: blob_text(id), size })
            }
        };
        Ok(PushedFrame { upload, offset, blob, problem: None })
    }
}
