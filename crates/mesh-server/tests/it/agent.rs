//! An agent that plays Ray: it speaks the real protocol, and does with its tasks what the test says.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use mesh_api::LINK_PROTOCOL;
use mesh_api::agent::{
    DataFrame, FromAgent, Happened, HeldTask, Hello, Node, RemoteError, ReportFrame, ReportItem,
    StartTask, StopTask, ToAgent, Welcome,
};
use mesh_api::problem::Problem;
use mesh_server::RunningServer;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::PATIENCE;

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Opens a link's WebSocket.
pub(crate) async fn connect(server: &RunningServer, path: &str, token: &str) -> Socket {
    let url = format!("{}{path}", server.url().replace("http://", "ws://"));
    let mut request = url.into_client_request().unwrap();
    let bearer = format!("Bearer {token}").parse().unwrap();
    request.headers_mut().insert("authorization", bearer);
    connect_async(request).await.unwrap().0
}

/// An agent with one node.
pub(crate) struct Agent {
    socket: Socket,
    pub(crate) hello: Hello,
    pub(crate) welcome: Welcome,
    next: u64,
    starts: VecDeque<StartTask>,
    stops: VecDeque<StopTask>,
    code: BTreeMap<String, Bytes>,
    pub(crate) acked: u64,
}

/// The hello of an agent of a cluster with one node of so many cores.
pub(crate) fn hello(cluster: &str, cpus: f64) -> Hello {
    Hello {
        protocol: LINK_PROTOCOL,
        cluster: cluster.into(),
        incarnation: uuid::Uuid::now_v7().to_string(),
        version: "0.1.0".into(),
        python: "3.11.7".into(),
        ray: "2.60.0".into(),
        platform: "linux x86_64".into(),
        held: Vec::new(),
        nodes: vec![Node {
            id: format!("{cluster}-node"),
            address: "127.0.0.1".into(),
            labels: BTreeMap::new(),
            total: BTreeMap::from([("CPU".to_owned(), cpus), ("memory".to_owned(), 1e9)]),
            foreign: BTreeMap::new(),
        }],
    }
}

impl Agent {
    /// Links a new agent with two cores.
    pub(crate) async fn link(server: &RunningServer, cluster: &str) -> Self {
        Self::link_as(server, hello(cluster, 2.0)).await.unwrap()
    }

    /// Links an agent that says this.
    pub(crate) async fn link_as(server: &RunningServer, hello: Hello) -> Result<Self, Problem> {
        let socket = connect(server, "/v1/link/agent", server.admin_token()).await;
        Self::greet(socket, hello).await
    }

    /// Waits to be dialled, with this token, and links.
    pub(crate) async fn answer(listener: &TcpListener, hello: Hello, token: &str) -> Self {
        use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

        let (stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        let mut shown = None;
        let mut path = String::new();
        #[expect(clippy::result_large_err, reason = "the type is the library's")]
        let look = |request: &Request, response: Response| {
            shown = request.headers().get("authorization").cloned();
            request.uri().path().clone_into(&mut path);
            Ok(response)
        };
        let stream = MaybeTlsStream::Plain(stream);
        let socket = tokio_tungstenite::accept_hdr_async(stream, look).await.unwrap();
        assert_eq!(path, "/v1/link/agent");
        assert_eq!(shown.unwrap(), token);
        Self::greet(socket, hello).await.unwrap()
    }

    async fn greet(mut socket: Socket, hello: Hello) -> Result<Self, Problem> {
        send(&mut socket, &FromAgent::Hello(hello.clone())).await;
        let welcome = match receive(&mut socket).await.expect("an answer to the hello") {
            ToAgent::Welcome(welcome) => welcome,
            ToAgent::Refused(problem) => return Err(problem),
            other => panic!("{other:?} before the welcome"),
        };
        let (next, acked) = (welcome.acked + 1, welcome.acked);
        let (starts, stops) = (VecDeque::new(), VecDeque::new());
        Ok(Self { socket, hello, welcome, next, starts, stops, code: BTreeMap::new(), acked })
    }

    /// The next frame that is not a heartbeat; nothing when the link is closed.
    pub(crate) async fn hear(&mut self) -> Option<ToAgent> {
        receive(&mut self.socket).await
    }

    /// Takes in one frame of work.
    async fn take(&mut self) {
        match self.hear().await.expect("the link is up") {
            ToAgent::Start(frame) => {
                for code in frame.code {
                    assert!(self.code.insert(code.digest, code.bytes).is_none(), "code sent twice");
                }
                for task in &frame.tasks {
                    let known = frame.leases.iter().any(|lease| lease.lease == task.lease);
                    assert!(known, "{task:?} has no lease in its frame");
                }
                for lease in &frame.leases {
                    assert!(lease.resources.contains_key("CPU"), "{lease:?} lacks its resources");
                }
                self.starts.extend(frame.tasks);
            }
            ToAgent::Stop(stops) => self.stops.extend(stops),
            ToAgent::Ack { seq } => self.acked = seq,
            other => panic!("{other:?}"),
        }
    }

    /// The next attempt to start.
    pub(crate) async fn start(&mut self) -> StartTask {
        loop {
            if let Some(start) = self.starts.pop_front() {
                return start;
            }
            self.take().await;
        }
    }

    /// The next attempt to end.
    pub(crate) async fn stop(&mut self) -> StopTask {
        loop {
            if let Some(stop) = self.stops.pop_front() {
                return stop;
            }
            self.take().await;
        }
    }

    /// The code of a digest, as it was sent.
    pub(crate) fn code(&self, digest: &str) -> Option<&Bytes> {
        self.code.get(digest)
    }

    /// Reports what happened, and returns the number of the report.
    pub(crate) async fn report(&mut self, task: &StartTask, what: Happened) -> u64 {
        let item = ReportItem { task: task.task, attempt: task.attempt, what };
        let seq = self.next;
        self.next += 1;
        self.say(&FromAgent::Report(ReportFrame { seq, items: vec![item] })).await;
        seq
    }

    /// Reports and waits until the report is durable.
    pub(crate) async fn report_durably(&mut self, task: &StartTask, what: Happened) {
        let seq = self.report(task, what).await;
        while self.acked < seq {
            self.take().await;
        }
    }

    /// Says something.
    pub(crate) async fn say(&mut self, frame: &FromAgent) {
        send(&mut self.socket, frame).await;
    }

    /// Runs tasks until so many have finished, each with its arguments as its result.
    pub(crate) async fn echo(&mut self, count: usize) {
        for _ in 0..count {
            let task = self.start().await;
            let result = task.payload.clone();
            self.report(&task, Happened::Finished { run_us: 10, result }).await;
        }
    }

    /// Breaks the link without a goodbye.
    pub(crate) fn vanish(self) -> Hello {
        self.hello
    }
}

/// A result.
pub(crate) fn finished(value: &str) -> Happened {
    Happened::Finished { run_us: 10, result: DataFrame::Inline(value.to_owned().into()) }
}

/// A failure of the task's own code.
pub(crate) fn raised(message: &str) -> Happened {
    let error = RemoteError {
        cause: "raised".into(),
        exception: "ValueError".into(),
        message: message.into(),
        traceback: "Traceback (most recent call last)".into(),
    };
    Happened::Failed { run_us: 10, error, details: DataFrame::Inline("pickle".into()) }
}

/// An attempt that is held.
pub(crate) fn held(task: &StartTask) -> HeldTask {
    HeldTask { task: task.task, attempt: task.attempt }
}

pub(crate) async fn send<T: serde::Serialize>(socket: &mut Socket, frame: &T) {
    let bytes = mesh_api::encode(frame).unwrap();
    socket.send(Message::Binary(bytes.into())).await.unwrap();
}

async fn receive(socket: &mut Socket) -> Option<ToAgent> {
    loop {
        let message = timeout(PATIENCE, socket.next()).await.expect("a frame in time");
        match message {
            Some(Ok(Message::Binary(bytes))) => match mesh_api::decode(&bytes).unwrap() {
                ToAgent::Heartbeat(_) => {}
                frame => return Some(frame),
            },
            Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
            Some(Ok(_)) => {}
        }
    }
}
