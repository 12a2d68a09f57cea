//! A WebSocket to the server, with frames instead of messages.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::board::Board;

/// How long anything on a link may take before it counts as broken.
const PATIENCE: Duration = Duration::from_secs(2);

/// An open link.
#[derive(Debug)]
pub(crate) struct Link {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Link {
    /// Dials; nothing when nobody answers.
    pub(crate) async fn dial(board: &Board, path: &str) -> Option<Self> {
        let url = format!("{}{path}", board.url.replace("http://", "ws://"));
        let mut request = url.into_client_request().ok()?;
        let bearer = format!("Bearer {}", board.token).parse().ok()?;
        request.headers_mut().insert("authorization", bearer);
        let dialled = timeout(PATIENCE, connect_async(request)).await.ok()?;
        Some(Self { socket: dialled.ok()?.0 })
    }

    /// Sends a frame; nothing when the link is broken.
    pub(crate) async fn send(&mut self, frame: &impl Serialize) -> Option<()> {
        let bytes = mesh_api::encode(frame).ok()?;
        let sent = timeout(PATIENCE, self.socket.send(Message::Binary(bytes.into()))).await;
        matches!(sent, Ok(Ok(()))).then_some(())
    }

    /// The next frame; nothing when the link is broken or silent for too long. Cancelling loses
    /// nothing.
    pub(crate) async fn receive<T: DeserializeOwned>(&mut self) -> Option<T> {
        loop {
            match timeout(PATIENCE, self.socket.next()).await.ok()??.ok()? {
                Message::Binary(bytes) => return mesh_api::decode(&bytes).ok(),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }
}
