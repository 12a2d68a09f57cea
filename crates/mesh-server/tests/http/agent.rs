//! A small agent that speaks the real protocol and answers every task with its arguments.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use mesh_api::agent::{
    AskAnswer, DataFrame, FromAgent, Happened, Heartbeat, Hello, Node, Question, RemoteError,
    ReportFrame, ReportItem, StartTask, ToAgent,
};
use mesh_api::{LINK_PROTOCOL, decode, encode};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// An agent of a cluster with one node of four cores. Returns once it is welcome.
pub(crate) async fn link(url: &str, token: &str, cluster: &str) -> JoinHandle<()> {
    let mut socket = dial(url, token, "/v1/link/agent").await.unwrap();
    say(&mut socket, &FromAgent::Hello(hello(cluster))).await;
    match hear(&mut socket).await {
        Some(ToAgent::Welcome(_)) => tokio::spawn(serve(socket)),
        other => panic!("no welcome but {other:?}"),
    }
}

pub(crate) async fn dial(
    url: &str,
    token: &str,
    path: &str,
) -> Result<Socket, tokio_tungstenite::tungstenite::Error> {
    let address = format!("{}{path}", url.replacen("http", "ws", 1));
    let mut request = address.into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    connect_async(request).await.map(|(socket, _answer)| socket)
}

fn hello(cluster: &str) -> Hello {
    Hello {
        protocol: LINK_PROTOCOL,
        cluster: cluster.to_owned(),
        incarnation: uuid::Uuid::now_v7().to_string(),
        version: "0.1.0".to_owned(),
        python: "3.11.7".to_owned(),
        ray: "2.60.0".to_owned(),
        platform: "linux x86_64".to_owned(),
        held: Vec::new(),
        nodes: vec![Node {
            id: "node1".to_owned(),
            address: "127.0.0.11".to_owned(),
            labels: BTreeMap::new(),
            total: BTreeMap::from([("CPU".to_owned(), 4.0)]),
            foreign: BTreeMap::new(),
        }],
    }
}

async fn serve(mut socket: Socket) {
    let mut seq = 1;
    while let Some(frame) = hear(&mut socket).await {
        let answer = match frame {
            ToAgent::Start(start) => {
                let items: Vec<ReportItem> = start.tasks.iter().map(run).collect();
                let frame = ReportFrame { seq, items };
                seq += u64::try_from(frame.items.len()).unwrap();
                FromAgent::Report(frame)
            }
            ToAgent::Ask(ask) => {
                let result = match ask.what {
                    Question::Logs { task, .. } => Ok(format!("task {task} says hi\n")),
                    Question::Health => Ok("Ray 2.60.0 answers".to_owned()),
                };
                FromAgent::Answer(AskAnswer { id: ask.id, result })
            }
            ToAgent::Heartbeat(_) => FromAgent::Heartbeat(Heartbeat::default()),
            _ => continue,
        };
        say(&mut socket, &answer).await;
    }
}

/// Returns the arguments; raises when they are `raise`.
fn run(task: &StartTask) -> ReportItem {
    let what = match &task.payload {
        DataFrame::Inline(bytes) if bytes.as_ref() == b"raise" => Happened::Failed {
            run_us: 5,
            error: RemoteError {
                cause: "raised".to_owned(),
                exception: "ValueError".to_owned(),
                message: "no good".to_owned(),
                traceback: "Traceback ...".to_owned(),
            },
            details: DataFrame::Inline(Bytes::from_static(b"pickled")),
        },
        payload => Happened::Finished { run_us: 5, result: payload.clone() },
    };
    ReportItem { task: task.task, attempt: task.attempt, what }
}

async fn say(socket: &mut Socket, frame: &FromAgent) {
    let bytes = encode(frame).unwrap();
    // A server that is gone ends the conversation in `hear`.
    drop(socket.send(Message::Binary(bytes.into())).await);
}

async fn hear(socket: &mut Socket) -> Option<ToAgent> {
    loop {
        match socket.next().await?.ok()? {
            Message::Binary(bytes) => return Some(decode(&bytes).unwrap()),
            Message::Close(_) => return None,
            _ => {}
        }
    }
}
