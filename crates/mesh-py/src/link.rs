//! Keeps the client link: dials, says hello, carries frames both ways, and dials again for ever.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use mesh_api::agent::Heartbeat;
use mesh_api::client_link::{FromClient, ToClient};
use mesh_api::problem::Problem;
use mesh_api::{FRAME_MAX, LINK_PROTOCOL, decode, encode};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};

use crate::place::{Address, Place};
use crate::shared::{LinkState, Shared};

/// How long dialling and introducing may take.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Wait before the first new try; doubles with each one.
const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// Longest wait between two tries.
const BACKOFF_MAX: Duration = Duration::from_secs(3);

/// After so many missed heartbeats the server counts as gone.
const SILENT_BEATS: u32 = 4;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What a welcome says.
struct Terms {
    heartbeat: Duration,
    inline_max: usize,
}

/// Why there is no link.
enum Failure {
    /// Trying again may help.
    Trouble(Problem),
    /// It will not.
    Final(Problem),
}

/// Keeps the link up until the client is closed or refused for good.
pub(crate) async fn keep(shared: Arc<Shared>, place: Arc<Place>) {
    let mut wait = BACKOFF_MIN;
    let mut was_up = false;
    while !shared.is_closed() {
        let why = match find(&place).await {
            Ok((socket, terms)) => {
                wait = BACKOFF_MIN;
                was_up = true;
                shared.set_link(LinkState::Up { inline_max: terms.inline_max });
                let why = carry(&shared, socket, terms.heartbeat).await;
                shared.lock().desk.link_lost();
                why
            }
            // The token was right: somebody else has the address of one that ended.
            Err(Failure::Final(problem)) if was_up && place.moves() => problem,
            Err(Failure::Final(problem)) => return shared.refuse(problem),
            Err(Failure::Trouble(problem)) => problem,
        };
        shared.set_link(LinkState::Down(Some(why)));
        if !shared.is_closed() {
            tokio::select! {
                () = tokio::time::sleep(wait.mul_f64(0.5 + 0.5 * chance())) => {}
                () = shared.redial.notified() => {}
            }
            wait = (wait * 2).min(BACKOFF_MAX);
        }
    }
}

async fn find(place: &Place) -> Result<(Socket, Terms), Failure> {
    let address = place.look().map_err(Failure::Trouble)?;
    match tokio::time::timeout(HELLO_TIMEOUT, dial(&address)).await {
        Ok(dialled) => dialled,
        Err(_elapsed) => Err(Failure::Trouble(unavailable(&address.url, "it does not answer"))),
    }
}

async fn dial(address: &Address) -> Result<(Socket, Terms), Failure> {
    let request = request(address).map_err(Failure::Final)?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(2 * FRAME_MAX))
        .max_frame_size(Some(2 * FRAME_MAX));
    let nodelay = true;
    let (mut socket, _response) =
        connect_async_tls_with_config(request, Some(config), nodelay, None)
            .await
            .map_err(|error| refusal(&address.url, error))?;
    let hello = FromClient::Hello {
        protocol: LINK_PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let broken = |error: Error| Failure::Trouble(unavailable(&address.url, &error.to_string()));
    socket.send(message(&hello).map_err(Failure::Final)?).await.map_err(broken)?;
    loop {
        let answer = socket.next().await.unwrap_or(Err(Error::ConnectionClosed)).map_err(broken)?;
        let Message::Binary(bytes) = answer else { continue };
        return match decode(&bytes) {
            Ok(ToClient::Welcome { heartbeat_ms, inline_max, .. }) => {
                let heartbeat = Duration::from_millis(heartbeat_ms.max(10));
                Ok((socket, Terms { heartbeat, inline_max }))
            }
            Ok(ToClient::Refused(problem)) => Err(refused(problem)),
            Ok(other) => Err(Failure::Final(strange(&format!("{other:?} instead of a welcome")))),
            Err(error) => Err(Failure::Final(strange(&error.to_string()))),
        };
    }
}

fn request(address: &Address) -> Result<Request, Problem> {
    let base = address.url.trim_end_matches('/');
    let base = base
        .strip_prefix("http")
        .ok_or_else(|| Problem::new("INVALID", format!("{base} is no HTTP address"), ""))?;
    let mut request = format!("ws{base}/v1/link/client")
        .into_client_request()
        .map_err(|error| unavailable(&address.url, &error.to_string()))?;
    if let Some(token) = &address.token {
        let value = HeaderValue::from_str(&format!("Bearer {}", token.trim())).map_err(|_bad| {
            Problem::new("UNAUTHENTICATED", "the token holds characters that no token has", "")
        })?;
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    Ok(request)
}

/// Carries frames until something breaks.
async fn carry(shared: &Shared, socket: Socket, heartbeat: Duration) -> Problem {
    let (sink, stream) = socket.split();
    tokio::select! {
        why = send_all(shared, sink, heartbeat) => why,
        why = receive_all(shared, stream, heartbeat * SILENT_BEATS) => why,
    }
}

async fn send_all(
    shared: &Shared,
    mut sink: SplitSink<Socket, Message>,
    heartbeat: Duration,
) -> Problem {
    loop {
        let sent = tokio::select! {
            sent = send_outgoing(shared, &mut sink) => sent,
            () = tokio::time::sleep(heartbeat * SILENT_BEATS) => return lost("it takes no data"),
        };
        if let Err(why) = sent {
            return why;
        }
        if shared.is_closed() {
            drop(sink.send(Message::Close(None)).await);
            return lost("it was closed");
        }
        let paused = shared.lock().paused_until;
        let pause = async {
            match paused {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shared.outgoing.notified() => {}
            () = pause => shared.lock().paused_until = None,
            () = tokio::time::sleep(heartbeat) => {
                let beat = message(&FromClient::Heartbeat(Heartbeat::default()));
                match beat {
                    Ok(beat) => if let Err(error) = sink.feed(beat).await {
                        return lost(&error.to_string());
                    },
                    Err(why) => return why,
                }
            }
        }
    }
}

async fn send_outgoing(
    shared: &Shared,
    sink: &mut SplitSink<Socket, Message>,
) -> Result<(), Problem> {
    loop {
        let frame = {
            let mut guarded = shared.lock();
            let may_submit = guarded.paused_until.is_none();
            guarded.desk.next_frame(may_submit)
        };
        let Some(frame) = frame else { break };
        sink.feed(message(&frame)?).await.map_err(|error| lost(&error.to_string()))?;
    }
    sink.flush().await.map_err(|error| lost(&error.to_string()))
}

async fn receive_all(
    shared: &Shared,
    mut stream: SplitStream<Socket>,
    silence: Duration,
) -> Problem {
    loop {
        shared.wait_for_reader().await;
        let message = match tokio::time::timeout(silence, stream.next()).await {
            Err(_elapsed) => return lost("it fell silent"),
            Ok(None) => return lost("it closed the connection"),
            Ok(Some(Err(error))) => return lost(&error.to_string()),
            Ok(Some(Ok(message))) => message,
        };
        let Message::Binary(bytes) = message else { continue };
        match decode::<ToClient>(&bytes) {
            Ok(frame) => {
                if let Some(why) = take(shared, frame) {
                    return why;
                }
            }
            Err(error) => return strange(&error.to_string()),
        }
    }
}

/// Hands one frame to the desk. Returns why the link must be given up, if it must.
fn take(shared: &Shared, frame: ToClient) -> Option<Problem> {
    let mut guarded = shared.lock();
    match frame {
        ToClient::Accepted { id, results } => {
            if let Some(pause) = guarded.desk.accepted(id, results) {
                guarded.paused_until = Some(Instant::now() + pause);
            }
            shared.outgoing.notify_one();
        }
        ToClient::Cancelled { id, .. } => guarded.desk.cancel_answered(id),
        ToClient::Started { tasks } => guarded.desk.started(&tasks),
        ToClient::Ended { tasks } => guarded.desk.ended(tasks),
        ToClient::Heartbeat(_) => return None,
        ToClient::Refused(problem) => return Some(problem),
        ToClient::Welcome { .. } => return Some(strange("a second welcome")),
    }
    drop(guarded);
    shared.announce();
    None
}

fn message(frame: &FromClient) -> Result<Message, Problem> {
    let bytes = encode(frame)
        .map_err(|error| Problem::new("INTERNAL", format!("a frame has no form: {error}"), ""))?;
    Ok(Message::Binary(Bytes::from(bytes)))
}

/// Whether a refusal at the door is worth another try.
fn refusal(url: &str, error: Error) -> Failure {
    let Error::Http(response) = error else {
        return Failure::Trouble(unavailable(url, &error.to_string()));
    };
    let status = response.status();
    let told = response.body().as_ref().and_then(|body| serde_json::from_slice(body).ok());
    match (status, told) {
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, Some(problem)) => {
            Failure::Final(problem)
        }
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, None) => Failure::Final(Problem::new(
            "UNAUTHENTICATED",
            format!("{url} does not accept the token"),
            "pass token=..., set SCHEDULEMESH_TOKEN, or name the state directory that holds admin.token",
        )),
        (_, Some(problem)) => refused(problem),
        (_, None) => Failure::Trouble(unavailable(url, &format!("it answers {status}"))),
    }
}

fn refused(problem: Problem) -> Failure {
    match problem.code.as_str() {
        "UNAUTHENTICATED" | "FORBIDDEN" | "UPGRADE_NEEDED" | "NO_SUCH_ROUTE" => {
            Failure::Final(problem)
        }
        _ => Failure::Trouble(problem),
    }
}

fn unavailable(url: &str, why: &str) -> Problem {
    Problem::new(
        "UNAVAILABLE",
        format!("no control plane answers at {url}: {why}"),
        "start one with `schedulemesh serve`, or say where it is with url=... or SCHEDULEMESH_URL",
    )
}

fn lost(why: &str) -> Problem {
    Problem::new(
        "UNAVAILABLE",
        format!("the link to the control plane broke: {why}"),
        "nothing that was accepted is lost; the client dials again by itself",
    )
}

fn strange(what: &str) -> Problem {
    Problem::new(
        "UPGRADE_NEEDED",
        format!("the control plane says what this client does not understand: {what}"),
        "install the same version of schedulemesh on both sides",
    )
}

/// A number from 0 to 1 that differs between clients, so that they do not all come back at once.
fn chance() -> f64 {
    let hash = RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(hash >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}
