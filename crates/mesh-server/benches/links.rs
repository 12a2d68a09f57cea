//! How many tasks go through a control plane: submitted over a client link, made durable, handed to
//! an agent that runs nothing, reported, and told to the client. Both peers run in this process and
//! share its cores.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a benchmark that prints"
)]

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use mesh_api::LINK_PROTOCOL;
use mesh_api::agent::{
    CodeFrame, DataFrame, FromAgent, Happened, Hello, Node, ReportFrame, ReportItem, ToAgent,
};
use mesh_api::client_link::{FromClient, SubmitFrame, SubmitTask, ToClient};
use mesh_api::convert::{Accept, Prepared};
use mesh_api::v1::{AffinityBody, RetriesBody, SpecBody, WorkBody};
use mesh_core::Command;
use mesh_server::config::Config;
use mesh_server::{RunningServer, Server};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

const CODE: &[u8] = b"def f(): ...";
const PAYLOAD: &[u8] = &[7; 64];
const TASKS: usize = 50_000;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Config::embedded(dir.path()).unwrap()).await.unwrap();
    let handle = server.handle();
    handle.put_code(vec![(mesh_api::convert::digest_of(CODE), CODE.into())]).await.unwrap();
    println!("{:<44} {:>12}", "what", "tasks/s");
    for size in [1, 10, 100, 1_000] {
        durable(&server, size).await;
    }
    let spec = Box::default();
    handle.command(Command::AddCluster("a".parse().unwrap(), spec)).await.unwrap();
    let agent = link(&server, "/v1/link/agent").await;
    tokio::spawn(echo(agent));
    drain(&server).await;
    for size in [100, 1_000] {
        through(&server, size).await;
    }
    one_at_a_time(&server).await;
    server.shutdown().await;
}

/// Submissions through the driver alone, so many in a batch, four batches at a time.
async fn durable(server: &RunningServer, size: usize) {
    let prepared = Prepared::read(&spec()).unwrap();
    let total = (size * 2_000).clamp(500, TASKS);
    let begun = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..4 {
        let (handle, prepared) = (server.handle().clone(), prepared.clone());
        workers.spawn(async move {
            for batch in 0..total / size / 4 {
                let accept = |n| accept(&prepared, &format!("{size}-{worker}-{batch}-{n}"));
                let accepts: Vec<Accept> = (0..size).map(accept).collect();
                for result in handle.submit(accepts).await.unwrap() {
                    result.unwrap();
                }
            }
        });
    }
    while let Some(joined) = workers.join_next().await {
        joined.unwrap();
    }
    show(&format!("durable submissions, {size} in a batch"), total, begun);
}

fn accept(prepared: &Prepared, key: &str) -> Accept {
    prepared.link(task(key.to_owned())).unwrap()
}

fn task(key: String) -> SubmitTask {
    SubmitTask { spec: 0, key, name: None, payload: DataFrame::Inline(PAYLOAD.into()) }
}

/// Waits until the agent has run everything that was submitted so far.
async fn drain(server: &RunningServer) {
    let begun = Instant::now();
    let (mut left, mut first) = (1, None);
    while left > 0 {
        left = server
            .handle()
            .read(|mesh, _| {
                let counts = mesh.counts();
                counts.waiting() + counts.assigned + counts.running
            })
            .await
            .unwrap();
        first.get_or_insert(left);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    show("queued tasks handed to an agent and ended", first.unwrap(), begun);
}

/// Tasks from a client to an agent and back.
async fn through(server: &RunningServer, size: usize) {
    let mut client = link(server, "/v1/link/client").await;
    let begun = Instant::now();
    let (mut sent, mut ended) = (0, 0);
    while ended < TASKS {
        while sent < TASKS && sent < ended + 8 * size.max(500) {
            let keys = (sent..sent + size).map(|n| task(format!("through-{size}-{n}")));
            let frame = SubmitFrame {
                id: sent as u64,
                specs: vec![spec()],
                code: Vec::new(),
                tasks: keys.collect(),
            };
            send(&mut client, &FromClient::Submit(frame)).await;
            sent += size;
        }
        if let ToClient::Ended { tasks } = receive(&mut client).await {
            ended += tasks.len();
        }
    }
    show(&format!("client to agent and back, {size} in a frame"), TASKS, begun);
}

/// One task at a time.
async fn one_at_a_time(server: &RunningServer) {
    const TIMES: usize = 1_000;
    let mut client = link(server, "/v1/link/client").await;
    let mut took = Vec::with_capacity(TIMES);
    for n in 0..TIMES {
        let begun = Instant::now();
        let tasks = vec![task(format!("one-{n}"))];
        let frame = SubmitFrame { id: n as u64, specs: vec![spec()], code: Vec::new(), tasks };
        send(&mut client, &FromClient::Submit(frame)).await;
        while !matches!(receive(&mut client).await, ToClient::Ended { .. }) {}
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    let at = |share: usize| took.get(TIMES * share / 100).map_or(0, std::time::Duration::as_micros);
    println!("one task at a time: p50 {} us, p99 {} us", at(50), at(99));
}

/// An agent that ends everything at once, until the server closes the link.
async fn echo(mut socket: Socket) {
    let mut seq = 1;
    while let Some(said) = next(&mut socket).await {
        let mut items = Vec::new();
        if let ToAgent::Start(frame) = said {
            let item = |task: mesh_api::agent::StartTask| ReportItem {
                task: task.task,
                attempt: task.attempt,
                what: Happened::Finished { run_us: 10, result: task.payload },
            };
            items.extend(frame.tasks.into_iter().map(item));
        }
        if !items.is_empty() {
            let count = items.len() as u64;
            send(&mut socket, &FromAgent::Report(ReportFrame { seq, items })).await;
            seq += count;
        }
    }
}

fn show(what: &str, count: usize, begun: Instant) {
    println!("{what:<44} {:>12.0}", count as f64 / begun.elapsed().as_secs_f64());
}

fn spec() -> SpecBody {
    SpecBody {
        title: None,
        work: WorkBody::Function { code: mesh_api::convert::digest_of(CODE).to_string() },
        resources: None,
        priority: None,
        affinity: AffinityBody::default(),
        retries: RetriesBody::default(),
        timeout_ms: None,
        on_lost: None,
        wait_for_growth: true,
        python: None,
        runtime_env: None,
    }
}

async fn link(server: &RunningServer, path: &str) -> Socket {
    let url = format!("{}{path}", server.url().replace("http://", "ws://"));
    let mut request = url.into_client_request().unwrap();
    let bearer = format!("Bearer {}", server.admin_token()).parse().unwrap();
    request.headers_mut().insert("authorization", bearer);
    let mut socket = connect_async_with_config(request, None, true).await.unwrap().0;
    if path.ends_with("agent") {
        send(&mut socket, &FromAgent::Hello(hello())).await;
        let ToAgent::Welcome(_) = receive(&mut socket).await else { panic!("not welcome") };
    } else {
        let hello = FromClient::Hello { protocol: LINK_PROTOCOL, version: "0.1.0".into() };
        send(&mut socket, &hello).await;
        let ToClient::Welcome { .. } = receive(&mut socket).await else { panic!("not welcome") };
        let digest = mesh_api::convert::digest_of(CODE).to_string();
        let code = vec![CodeFrame { digest, bytes: Bytes::from_static(CODE) }];
        let frame = SubmitFrame { id: 0, specs: Vec::new(), code, tasks: Vec::new() };
        send(&mut socket, &FromClient::Submit(frame)).await;
        let ToClient::Accepted { .. } = receive(&mut socket).await else { panic!("not kept") };
    }
    socket
}

fn hello() -> Hello {
    Hello {
        protocol: LINK_PROTOCOL,
        cluster: "a".into(),
        incarnation: uuid::Uuid::now_v7().to_string(),
        version: "0.1.0".into(),
        python: "3.11.7".into(),
        ray: "2.60.0".into(),
        platform: "linux x86_64".into(),
        held: Vec::new(),
        nodes: vec![Node {
            id: "node".into(),
            address: "127.0.0.1".into(),
            labels: BTreeMap::new(),
            total: BTreeMap::from([("CPU".to_owned(), 2.0)]),
            foreign: BTreeMap::new(),
        }],
    }
}

async fn send<T: serde::Serialize>(socket: &mut Socket, frame: &T) {
    let bytes = mesh_api::encode(frame).unwrap();
    socket.send(Message::Binary(bytes.into())).await.unwrap();
}

async fn receive<T: serde::de::DeserializeOwned>(socket: &mut Socket) -> T {
    next(socket).await.expect("the link is up")
}

/// The next frame; nothing when the link was closed.
async fn next<T: serde::de::DeserializeOwned>(socket: &mut Socket) -> Option<T> {
    loop {
        match socket.next().await? {
            Ok(Message::Binary(bytes)) => return Some(mesh_api::decode(&bytes).unwrap()),
            Ok(Message::Close(_)) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}
