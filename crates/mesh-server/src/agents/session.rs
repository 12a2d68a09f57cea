//! One agent link, from hello to goodbye, over any WebSocket.

use std::time::Duration;

use axum::extract::ws::WebSocket;
use bytes::Bytes;
use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use mesh_api::agent::{Heartbeat, ToAgent};
use mesh_api::problem::Problem;
use mesh_core::model::id::ClusterName;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::blobs::BlobDesk;
use super::protocol::{self, Greeting, Heard, bad_frame};
use super::{FRAME_BYTES_MAX, next_id};
use crate::driver::ask::{AgentSaid, Ask, LinkAsk, LinkId};
use crate::handle::{Handle, claim_results};
use crate::outbox::{Inbox, Outbox, outbox};

/// How long an agent may take to say hello.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// How long one frame may take to be written before the agent counts as gone.
const WRITE_WITHIN: Duration = Duration::from_mins(1);
/// How long a link may take to be closed.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);

/// What either kind of WebSocket carries.
#[derive(Debug)]
pub(super) enum Wire {
    /// A frame.
    Frame(Bytes),
    /// Something that carries no frame, but shows that the peer is there.
    Other,
    /// The peer says goodbye.
    Closed,
}

/// Serves the link of an agent that dialled. `claim` is the cluster that its token stands for;
/// nothing for a token that stands for all of them.
pub async fn serve(socket: WebSocket, handle: Handle, claim: Option<ClusterName>) {
    use axum::extract::ws::Message;

    let (sink, stream) = socket.split();
    let stream = stream.map(|message| match message {
        Ok(Message::Binary(bytes)) => Wire::Frame(bytes),
        Ok(Message::Text(_) | Message::Ping(_) | Message::Pong(_)) => Wire::Other,
        Ok(Message::Close(_)) | Err(_) => Wire::Closed,
    });
    let sink = sink.with(|bytes: Bytes| async { Ok::<_, axum::Error>(Message::Binary(bytes)) });
    drop(run(Box::pin(sink), stream, handle, claim).await); // logged where it happened
}

/// Runs a link until it ends; the refusal when there never was one.
pub(super) async fn run(
    mut sink: impl Sink<Bytes> + Unpin + Send + 'static,
    mut stream: impl Stream<Item = Wire> + Unpin,
    handle: Handle,
    claim: Option<ClusterName>,
) -> Result<(), Problem> {
    let (to_agent, inbox) = outbox(FRAME_BYTES_MAX);
    let link = next_id();
    // Says that the link is gone, also when this is cut short.
    let goodbye = match greet(&mut stream, &handle, claim, link, &to_agent).await {
        Ok(goodbye) => goodbye,
        Err(problem) => {
            tracing::warn!(code = %problem.code, message = %problem.message, "agent refused");
            write(&mut sink, &ToAgent::Refused(problem.clone())).await;
            drop(timeout(GOODBYE_WITHIN, sink.close()).await);
            return Err(problem);
        }
    };
    let cluster = goodbye.cluster.clone();
    tracing::info!(%cluster, link, "agent linked");
    let heartbeat = handle.shared.heartbeat;
    let mut writer = tokio::spawn(write_all(sink, inbox, heartbeat));
    let desk = BlobDesk::new(handle.blobs().clone(), to_agent.clone());
    let mut reader =
        Reader { handle: handle.clone(), cluster: cluster.clone(), link, to_agent, desk };
    let why = tokio::select! {
        why = reader.run(&mut stream, heartbeat * protocol::SILENCE_BEATS) => why,
        _ = &mut writer => "it could not be written to, or was replaced",
    };
    tracing::info!(%cluster, link, why, "agent unlinked");
    reader.to_agent.close();
    if !writer.is_finished() {
        drop(timeout(GOODBYE_WITHIN, &mut writer).await);
    }
    writer.abort();
    Ok(())
}

/// The end of a link.
struct Goodbye {
    handle: Handle,
    cluster: ClusterName,
    link: LinkId,
    to_agent: Outbox<ToAgent>,
}

impl Drop for Goodbye {
    fn drop(&mut self) {
        self.to_agent.close();
        let (handle, cluster, link) = (self.handle.clone(), self.cluster.clone(), self.link);
        // Without a runtime everything ends, and a restart knows that no agent is linked.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let gone = Ask::Agent { link, cluster, said: AgentSaid::Gone };
                drop(handle.send(0, gone).await); // or the driver is gone, which is as well
            });
        }
    }
}

/// Hears the hello and asks the driver; the welcome is the first frame in the queue then. The goodbye
/// is ready before the driver is asked, because it may link what nobody waits for any more.
async fn greet(
    stream: &mut (impl Stream<Item = Wire> + Unpin),
    handle: &Handle,
    claim: Option<ClusterName>,
    link: LinkId,
    outbox: &Outbox<ToAgent>,
) -> Result<Goodbye, Problem> {
    let Ok(Some(Wire::Frame(bytes))) = timeout(HELLO_WITHIN, stream.next()).await else {
        return Err(bad_frame("the first frame must be a hello, within ten seconds"));
    };
    let Greeting { cluster, facts, held, nodes } = protocol::greeting(&bytes, claim.as_ref())?;
    let (to_agent, outbox) = (outbox.clone(), outbox.clone());
    let goodbye = Goodbye { handle: handle.clone(), cluster: cluster.clone(), link, to_agent };
    handle
        .ask(0, |reply| {
            Ask::Link(Box::new(LinkAsk { link, cluster, facts, held, nodes, outbox, reply }))
        })
        .await?;
    Ok(goodbye)
}

struct Reader {
    handle: Handle,
    cluster: ClusterName,
    link: LinkId,
    to_agent: Outbox<ToAgent>,
    desk: BlobDesk,
}

impl Reader {
    /// Reads until the agent is gone or silent for too long, and says why.
    async fn run(
        &mut self,
        stream: &mut (impl Stream<Item = Wire> + Unpin),
        silence: Duration,
    ) -> &'static str {
        loop {
            let bytes = match timeout(silence, stream.next()).await {
                Ok(Some(Wire::Frame(bytes))) => bytes,
                Ok(Some(Wire::Other)) => continue,
                Ok(Some(Wire::Closed) | None) => return "it closed the link",
                Err(_elapsed) => return "it fell silent",
            };
            let heard = match protocol::hear(&bytes) {
                Ok(heard) => self.pass_on(heard, bytes.len()).await,
                Err(problem) => Err(problem),
            };
            if let Err(problem) = heard {
                tracing::warn!(cluster = %self.cluster, code = %problem.code,
                    message = %problem.message, details = ?problem.details, "agent misspoke");
                self.to_agent.push(ToAgent::Refused(problem), 256);
                return "it was not understood";
            }
        }
    }

    async fn pass_on(&mut self, heard: Heard, bytes: usize) -> Result<(), Problem> {
        match heard {
            Heard::Nothing => Ok(()),
            Heard::Said(mut said) => {
                if let AgentSaid::Reports { items, .. } = &mut said {
                    mesh_fail::pass("agent.report.heard");
                    claim_results(self.handle.blobs(), items).await;
                }
                self.say(said, bytes).await
            }
            Heard::Answer(answer) => {
                self.handle.shared.agents.answer(&self.cluster, answer);
                Ok(())
            }
            Heard::Pull(pull) => {
                self.desk.pull(&pull).await;
                Ok(())
            }
            Heard::Push(push) => self.desk.push(push).await,
        }
    }

    async fn say(&self, said: AgentSaid, bytes: usize) -> Result<(), Problem> {
        let cluster = self.cluster.clone();
        self.handle.send(bytes, Ask::Agent { link: self.link, cluster, said }).await
    }
}

/// Writes what the driver queues, and a heartbeat when it queues nothing for a while.
async fn write_all(
    mut sink: impl Sink<Bytes> + Unpin,
    mut inbox: Inbox<ToAgent>,
    heartbeat: Duration,
) {
    let mut beat = interval(heartbeat);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat.tick().await; // the first one comes at once, and before the welcome there is nothing to say
    let mut alive = true;
    while alive {
        alive = tokio::select! {
            biased;
            frame = inbox.next() => match frame {
                Some(frame) => {
                    let last = matches!(frame, ToAgent::Refused(_));
                    write(&mut sink, &frame).await && !last
                }
                None => false,
            },
            _ = beat.tick() => write(&mut sink, &ToAgent::Heartbeat(Heartbeat::default())).await,
        };
    }
    // The peer may be gone already; then there is nobody to say goodbye to.
    drop(timeout(GOODBYE_WITHIN, sink.close()).await);
}

async fn write(sink: &mut (impl Sink<Bytes> + Unpin), frame: &ToAgent) -> bool {
    match mesh_api::encode(frame) {
        Ok(bytes) => matches!(timeout(WRITE_WITHIN, sink.send(bytes.into())).await, Ok(Ok(()))),
        Err(error) => {
            tracing::error!(%error, "frame not encoded");
            false
        }
    }
}
