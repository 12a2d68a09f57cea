//! Dialling agents that listen: for clusters whose entry names the address of an agent, because only
//! the control plane can reach out.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use mesh_api::convert::{Reach, reach};
use mesh_api::problem::Problem;
use mesh_api::{FRAME_MAX, LINK_PROTOCOL};
use mesh_core::model::id::ClusterName;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use super::session::{Wire, run};
use crate::handle::Handle;
use crate::secret::resolve;

/// How often the list of clusters is compared with what is dialled.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a connection may take to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// The waits between attempts.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));

/// Keeps dialling every agent that listens, until the driver ends.
pub(crate) async fn dial_listening_agents(handle: Handle) {
    let mut dialled: BTreeMap<ClusterName, (Reach, AbortHandle)> = BTreeMap::new();
    loop {
        let wanted = handle.read(|mesh, _now| {
            let reached =
                mesh.clusters().map(|cluster| (cluster.name.clone(), reach(&cluster.spec)));
            reached.filter(|(_, reach)| reach.agent.is_some()).collect::<BTreeMap<_, _>>()
        });
        let Ok(wanted) = wanted.await else { break };
        dialled.retain(|name, (reach, task)| {
            let keep = wanted.get(name) == Some(&*reach);
            if !keep {
                task.abort();
            }
            keep
        });
        for (name, reach) in wanted {
            dialled.entry(name).or_insert_with_key(|name| {
                let task = tokio::spawn(keep_dialling(handle.clone(), name.clone(), reach.clone()));
                (reach, task.abort_handle())
            });
        }
        sleep(LOOK_EVERY).await;
    }
    for (_, task) in dialled.into_values() {
        task.abort();
    }
}

async fn keep_dialling(handle: Handle, cluster: ClusterName, reach: Reach) {
    let (shortest, longest) = BACKOFF;
    let mut wait = shortest;
    loop {
        match dial(&handle, &cluster, &reach).await {
            Ok(()) => wait = shortest,
            Err(problem) => {
                let message = &problem.message;
                tracing::warn!(%cluster, code = %problem.code, %message, "agent not reached");
                handle.shared.agents.set_trouble(&cluster, Some(problem.message));
                wait = (wait * 2).min(longest);
            }
        }
        sleep(wait.mul_f64(0.5 + jitter() / 2.0)).await;
    }
}

/// A number between 0 and 1.
fn jitter() -> f64 {
    f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX)
}

async fn dial(handle: &Handle, cluster: &ClusterName, reach: &Reach) -> Result<(), Problem> {
    let socket = connect(reach).await.map_err(|why| {
        let url = reach.agent.as_deref().unwrap_or_default();
        Problem::new(
            "AGENT_UNREACHABLE",
            format!("the agent of cluster {cluster} at {url} can't be reached: {why}"),
            "check the address, and that the agent runs with --listen",
        )
    })?;
    handle.shared.agents.set_trouble(cluster, None);
    let (sink, stream) = socket.split();
    let stream = stream.map(|message| match message {
        Ok(Message::Binary(bytes)) => Wire::Frame(bytes),
        Ok(Message::Close(_)) | Err(_) => Wire::Closed,
        Ok(_) => Wire::Other,
    });
    let sink =
        sink.with(|bytes: Bytes| async { Ok::<_, tungstenite::Error>(Message::Binary(bytes)) });
    run(Box::pin(sink), stream, handle.clone(), Some(cluster.clone())).await
}

async fn connect(reach: &Reach) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>, String> {
    let url = reach.agent.as_deref().unwrap_or_default();
    let url =
        if url.split('/').count() > 3 { url.to_owned() } else { format!("{url}/v1/link/agent") };
    let mut request = url.into_client_request().map_err(|error| error.to_string())?;
    let headers = request.headers_mut();
    headers.insert("x-schedulemesh-protocol", HeaderValue::from(LINK_PROTOCOL));
    if let Some(reference) = &reach.token {
        let token = resolve(reference).map_err(|problem| problem.message)?;
        let bearer = HeaderValue::try_from(format!("Bearer {token}"));
        let mut bearer = bearer.map_err(|_why| "its token holds characters that a header can't")?;
        bearer.set_sensitive(true);
        headers.insert("authorization", bearer);
    }
    let config = WebSocketConfig::default()
        .max_message_size(Some(FRAME_MAX))
        .max_frame_size(Some(FRAME_MAX));
    match timeout(CONNECT_WITHIN, connect_async_with_config(request, Some(config), true)).await {
        Ok(Ok((socket, _response))) => Ok(socket),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_elapsed) => Err(format!("no answer within {CONNECT_WITHIN:?}")),
    }
}
