//! One client link, from hello to goodbye.

use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use mesh_api::agent::{DataFrame, Heartbeat};
use mesh_api::client_link::{EndedTask, FailureRecord, FromClient, SubmitFrame, ToClient};
use mesh_api::convert::{
    Accept, Prepared, data_frame, digest, digest_of, outcome_word, remote_error,
};
use mesh_api::problem::Problem;
use mesh_api::{CODE_MAX, INLINE_MAX, LINK_PROTOCOL};
use mesh_core::Command;
use mesh_core::model::id::{Digest, TaskId};
use mesh_core::model::task::{Data, Outcome};
use mesh_store::Side;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{ClientId, EndNotice, NOTICE_BYTES_MAX, Notice, next_id};
use crate::driver::ask::{Ask, ClientSubmit};
use crate::handle::{Handle, accept_bytes, claim_blobs};
use crate::outbox::{Inbox, outbox};

/// How long a client may take to say hello.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// How long one frame may take to be written before the client counts as gone.
const WRITE_WITHIN: Duration = Duration::from_secs(30);
/// How long a link may take to be closed.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);
/// A frame of ends is sent when it holds about so many bytes.
const FRAME_BYTES: usize = 2 << 20;
/// Answers to cancellations that wait to be written.
const ANSWERS_MAX: usize = 64;

/// Serves a client link until it ends.
pub async fn serve(socket: WebSocket, handle: Handle) {
    let (mut sink, mut stream) = socket.split();
    match hello(&mut stream).await {
        Ok(()) => {}
        Err(problem) => {
            tracing::info!(code = %problem.code, message = %problem.message, "client refused");
            if write(&mut sink, &ToClient::Refused(problem)).await {
                close(&mut sink).await;
            }
            return;
        }
    }
    let client = next_id();
    let heartbeat = handle.shared.heartbeat;
    let (notices, inbox) = outbox(NOTICE_BYTES_MAX);
    let (answers, answered) = mpsc::channel(ANSWERS_MAX);
    if handle.send(0, Ask::Client { client, outbox: notices }).await.is_err() {
        return;
    }
    let writer = Writer { sink, inbox, answered, handle: handle.clone(), heartbeat };
    let reader = Reader { stream, handle: handle.clone(), client, answers };
    let mut writer = tokio::spawn(writer.run());
    tokio::select! {
        // The writer sees that nobody answers any more, and says goodbye.
        () = reader.run(heartbeat * 4) => drop(timeout(GOODBYE_WITHIN, &mut writer).await),
        _ = &mut writer => {}
    }
    writer.abort();
    drop(handle.send(0, Ask::ClientGone { client }).await); // or the driver is gone, which is as well
}

async fn hello(stream: &mut SplitStream<WebSocket>) -> Result<(), Problem> {
    let first = timeout(HELLO_WITHIN, stream.next()).await;
    let Ok(Some(Ok(Message::Binary(bytes)))) = first else {
        return Err(bad_frame("the first frame must be a hello, within ten seconds"));
    };
    match decode(&bytes)? {
        FromClient::Hello { protocol: LINK_PROTOCOL, .. } => Ok(()),
        FromClient::Hello { protocol, version } => Err(upgrade("client", &version, protocol)),
        _ => Err(bad_frame("the first frame must be a hello")),
    }
}

/// The refusal of a peer that speaks another version of the links.
pub(crate) fn upgrade(who: &str, version: &str, protocol: u16) -> Problem {
    let ours = env!("CARGO_PKG_VERSION");
    Problem::new(
        "UPGRADE_NEEDED",
        format!(
            "the {who} (version {version}) speaks link protocol {protocol}, \
             this server (version {ours}) speaks {LINK_PROTOCOL}"
        ),
        format!("install version {ours} of schedulemesh there, or upgrade the server"),
    )
}

fn bad_frame(what: &str) -> Problem {
    Problem::new("INVALID", what, "use a ScheduleMesh client, or see the link protocol")
}

fn decode(bytes: &[u8]) -> Result<FromClient, Problem> {
    mesh_api::decode(bytes).map_err(|error| bad_frame(&format!("a frame can't be read: {error}")))
}

struct Reader {
    stream: SplitStream<WebSocket>,
    handle: Handle,
    client: ClientId,
    answers: mpsc::Sender<ToClient>,
}

impl Reader {
    /// Reads until the client is gone or silent for too long.
    async fn run(mut self, silence: Duration) {
        loop {
            let message = match timeout(silence, self.stream.next()).await {
                Ok(Some(Ok(message))) => message,
                Ok(Some(Err(_)) | None) => return,
                Err(_elapsed) => {
                    tracing::info!(client = self.client, "client fell silent");
                    return;
                }
            };
            let bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Close(_) => return,
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) => continue,
            };
            let heard = match decode(&bytes) {
                Ok(frame) => self.hear(frame).await,
                Err(problem) => Err(problem),
            };
            if let Err(problem) = heard {
                drop(self.answers.send(ToClient::Refused(problem)).await);
                return;
            }
        }
    }

    async fn hear(&mut self, frame: FromClient) -> Result<(), Problem> {
        match frame {
            FromClient::Hello { .. } => Err(bad_frame("a second hello")),
            FromClient::Heartbeat(_) => Ok(()),
            FromClient::Watch { tasks } => {
                let tasks = tasks.into_iter().map(TaskId).collect();
                self.handle.send(0, Ask::Watch { client: self.client, tasks }).await
            }
            FromClient::Submit(frame) => {
                mesh_fail::pass("client.submit.heard");
                let mut submit = self.prepare(frame)?;
                claim_blobs(&self.handle, &mut submit.tasks).await;
                let bytes = submit.tasks.iter().flatten().map(accept_bytes).sum::<usize>()
                    + submit.code.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
                self.handle.send(bytes, Ask::ClientSubmit(Box::new(submit))).await
            }
            FromClient::Cancel { id, tasks } => {
                let commands =
                    tasks.into_iter().map(|task| Command::Cancel(TaskId(task))).collect();
                let answers = self.handle.ask(0, |reply| Ask::Commands { commands, reply }).await?;
                let errors = answers.into_iter().map(Result::err).collect();
                mesh_fail::pass("client.cancelled.before");
                drop(self.answers.send(ToClient::Cancelled { id, errors }).await);
                Ok(())
            }
        }
    }

    /// Parses a submission: each specification once, each mistake as the answer of its tasks.
    fn prepare(&self, frame: SubmitFrame) -> Result<ClientSubmit, Problem> {
        let mut code = Vec::with_capacity(frame.code.len());
        for piece in frame.code {
            code.push(checked_code(&piece.digest, piece.bytes)?);
        }
        let specs: Vec<_> = frame.specs.iter().map(Prepared::read).collect();
        let read = |task: mesh_api::client_link::SubmitTask| -> Result<Accept, Problem> {
            let index = usize::try_from(task.spec).unwrap_or(usize::MAX);
            match specs.get(index) {
                Some(Ok(spec)) => spec.link(task),
                Some(Err(problem)) => Err(problem.clone()),
                None => Err(bad_frame(&format!("there is no specification {index} in the frame"))),
            }
        };
        let tasks = frame.tasks.into_iter().map(read).collect();
        Ok(ClientSubmit { client: self.client, id: frame.id, tasks, code })
    }
}

/// Code whose digest is that of its bytes.
pub(crate) fn checked_code(claimed: &str, bytes: Bytes) -> Result<(Digest, Bytes), Problem> {
    let claimed = digest(claimed)?;
    if bytes.len() > CODE_MAX {
        return Err(code_too_large(bytes.len()));
    }
    let actual = digest_of(&bytes);
    if claimed == actual {
        return Ok((claimed, bytes));
    }
    Err(Problem::new(
        "INVALID",
        format!("code was sent as {claimed}, but its digest is {actual}"),
        "send the BLAKE3 digest of exactly the bytes that are sent",
    ))
}

/// The refusal of code that no frame to an agent could hold.
pub(crate) fn code_too_large(size: usize) -> Problem {
    Problem::new(
        "TOO_LARGE",
        format!("the code has {size} bytes, {CODE_MAX} are allowed"),
        "pass large data as an argument instead of capturing it in the function",
    )
}

struct Writer {
    sink: SplitSink<WebSocket, Message>,
    inbox: Inbox<Notice>,
    answered: mpsc::Receiver<ToClient>,
    handle: Handle,
    heartbeat: Duration,
}

impl Writer {
    /// Writes until the link is to be closed.
    async fn run(mut self) {
        let welcome = ToClient::Welcome {
            protocol: LINK_PROTOCOL,
            version: env!("CARGO_PKG_VERSION").into(),
            heartbeat_ms: u64::try_from(self.heartbeat.as_millis()).unwrap_or(u64::MAX),
            inline_max: INLINE_MAX,
        };
        let mut alive = write(&mut self.sink, &welcome).await;
        let mut beat = interval(self.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while alive {
            alive = tokio::select! {
                biased;
                notice = self.inbox.next() => match notice {
                    Some(notice) => self.tell(notice).await,
                    None => false,
                },
                answer = self.answered.recv() => match answer {
                    Some(answer) => {
                        let last = matches!(answer, ToClient::Refused(_));
                        write(&mut self.sink, &answer).await && !last
                    }
                    None => false,
                },
                _ = beat.tick() => {
                    write(&mut self.sink, &ToClient::Heartbeat(Heartbeat::default())).await
                }
            };
        }
        close(&mut self.sink).await;
    }

    async fn tell(&mut self, notice: Notice) -> bool {
        match notice {
            Notice::Accepted { id, results } => {
                mesh_fail::pass("client.accepted.before");
                let written = write(&mut self.sink, &ToClient::Accepted { id, results }).await;
                mesh_fail::pass("client.accepted.after");
                written
            }
            Notice::Started(tasks) => {
                let tasks = tasks.into_iter().map(|task| task.0).collect();
                write(&mut self.sink, &ToClient::Started { tasks }).await
            }
            Notice::Unknown(tasks) => {
                let tasks = tasks.into_iter().map(unknown).collect();
                write(&mut self.sink, &ToClient::Ended { tasks }).await
            }
            Notice::Ended(ends) => {
                mesh_fail::pass("client.ended.before");
                self.tell_ends(ends).await
            }
        }
    }

    async fn tell_ends(&mut self, ends: Vec<EndNotice>) -> bool {
        let (mut tasks, mut size) = (Vec::with_capacity(ends.len()), 0);
        for mut end in ends {
            if let Err(problem) = fetch(&self.handle, &mut end).await {
                // The client links again, and asks again: it must not be told what is not so.
                tracing::warn!(task = %end.task, code = %problem.code, "end not told");
                return false;
            }
            size += end.size();
            tasks.push(ended(end));
            if size > FRAME_BYTES {
                let frame = ToClient::Ended { tasks: std::mem::take(&mut tasks) };
                if !write(&mut self.sink, &frame).await {
                    return false;
                }
                size = 0;
            }
        }
        tasks.is_empty() || write(&mut self.sink, &ToClient::Ended { tasks }).await
    }
}

/// Reads the result of a task that ended, unless it is at hand.
async fn fetch(handle: &Handle, end: &mut EndNotice) -> Result<(), Problem> {
    if end.bytes.is_none() && matches!(end.result, Data::Inline(_)) {
        end.bytes = handle.data(end.task, Side::Result).await?;
    }
    Ok(())
}

fn unknown(task: TaskId) -> EndedTask {
    EndedTask {
        task: task.0,
        outcome: "unknown".into(),
        cluster: None,
        result: DataFrame::None,
        error: None,
    }
}

/// The frame of an end. A result whose record was given up meanwhile is as unknown as its task.
fn ended(end: EndNotice) -> EndedTask {
    let EndNotice { task, outcome, cluster, result, bytes } = end;
    if matches!(result, Data::Inline(_)) && bytes.is_none() {
        return unknown(task);
    }
    let word = outcome_word(&outcome).to_owned();
    let (result, error) = match &outcome {
        Outcome::Succeeded | Outcome::Cancelled => (data_frame(result, bytes), None),
        Outcome::Failed(failure) => {
            match bytes.and_then(|bytes| mesh_api::decode::<FailureRecord>(&bytes).ok()) {
                Some(record) if record.pickle.is_empty() => (DataFrame::None, Some(record.error)),
                Some(record) => (DataFrame::Inline(record.pickle), Some(record.error)),
                None => (DataFrame::None, Some(remote_error(failure))),
            }
        }
    };
    EndedTask { task: task.0, outcome: word, cluster: cluster.map(String::from), result, error }
}

async fn write(sink: &mut SplitSink<WebSocket, Message>, frame: &ToClient) -> bool {
    match mesh_api::encode(frame) {
        Ok(bytes) => {
            let sent = timeout(WRITE_WITHIN, sink.send(Message::Binary(bytes.into()))).await;
            matches!(sent, Ok(Ok(())))
        }
        Err(error) => {
            tracing::error!(%error, "frame not encoded");
            false
        }
    }
}

async fn close(sink: &mut SplitSink<WebSocket, Message>) {
    // The peer may be gone already; then there is nobody to say goodbye to.
    drop(timeout(Duration::from_secs(1), sink.close()).await);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_result_that_can_not_be_read_any_more_is_not_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let store = mesh_store::SqliteStore::open(dir.path()).unwrap();
        let settings = crate::driver::Settings::default();
        let (handle, driver) = crate::driver::start(dir.path(), Box::new(store), settings).unwrap();
        let mut end = EndNotice {
            task: TaskId(1),
            outcome: Outcome::Succeeded,
            cluster: None,
            result: Data::Inline(3),
            bytes: None,
        };
        fetch(&handle, &mut end).await.unwrap();
        handle.clone().kill().await;
        driver.join().unwrap();
        assert_eq!(fetch(&handle, &mut end).await.unwrap_err().code, "UNAVAILABLE");
    }
}
