//! The doors of the links: from here on, WebSocket.

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::{WebSocket, WebSocketUpgrade, rejection::WebSocketUpgradeRejection};
use axum::response::Response;
use mesh_api::FRAME_MAX;
use mesh_api::problem::Problem;

use super::App;
use super::failure::Answer;
use crate::auth::Claim;

/// Where agents dial; the only route that their tokens open.
pub(crate) const AGENT_PATH: &str = "/v1/link/agent";

/// What a frame may have around the bytes that it carries.
const ENVELOPE: usize = 1 << 20;

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// The link of a cluster's agent: MessagePack frames over WebSocket.
#[utoipa::path(
    get, path = "/v1/link/agent", tag = "links", operation_id = "agent_link",
    responses((status = 101, description = "The link"),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json"))
)]
pub(crate) async fn agent(
    State(app): State<App>,
    Extension(claim): Extension<Claim>,
    upgrade: Upgrade,
) -> Answer<Response> {
    let cluster = match claim {
        Claim::Admin => None,
        Claim::Agent(cluster) => Some(cluster),
    };
    open(upgrade, move |socket| crate::agents::serve(socket, app.handle, cluster))
}

/// The link of a client: MessagePack frames over WebSocket.
#[utoipa::path(
    get, path = "/v1/link/client", tag = "links", operation_id = "client_link",
    responses((status = 101, description = "The link"),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json"))
)]
pub(crate) async fn client(State(app): State<App>, upgrade: Upgrade) -> Answer<Response> {
    open(upgrade, move |socket| crate::clients::serve(socket, app.handle))
}

fn open<F>(
    upgrade: Upgrade,
    serve: impl FnOnce(WebSocket) -> F + Send + 'static,
) -> Answer<Response>
where
    F: Future<Output = ()> + Send + 'static,
{
    let upgrade = upgrade.map_err(|refused| {
        let remedy = "links are opened by agents and clients, with a WebSocket handshake";
        Problem::new("INVALID", refused.body_text(), remedy)
    })?;
    let upgrade =
        upgrade.max_frame_size(FRAME_MAX + ENVELOPE).max_message_size(FRAME_MAX + ENVELOPE);
    Ok(upgrade.on_upgrade(serve))
}
