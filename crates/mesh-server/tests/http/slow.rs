//! Clients that take their time: each is cut within its bound, and nobody else notices.

use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::{get, post};
use mesh_server::accept::{self, Bound, Bounds};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower_http::timeout::RequestBodyDeadlineLayer;

/// Sends bytes and reads until the server closes the connection.
pub(crate) async fn exchange(address: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    // A reset after the answer is an end like any other.
    drop(stream.read_to_end(&mut answer).await);
    String::from_utf8_lossy(&answer).into_owned()
}

/// What a client does, what it sends, and what the answer begins with.
type Case = (&'static str, &'static [u8], &'static str);

const BOUNDS: Bounds = Bounds {
    handshake: Duration::from_millis(300),
    first_request: Duration::from_millis(400),
    header: Duration::from_millis(300),
    ping: Duration::from_millis(200),
    drain: Duration::from_millis(300),
    connections: 64,
    connections_each: 8,
};

async fn serve(bounds: Bounds) -> (String, CancellationToken, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/echo", post(|body: String| async { body }))
        .route("/never", get(std::future::pending::<String>))
        .layer(RequestBodyDeadlineLayer::new(Duration::from_millis(300)));
    let bound = Bound { listener, tls: None, url: format!("http://{address}") };
    let closing = CancellationToken::new();
    let served = tokio::spawn(accept::serve(bound, router, bounds, closing.clone()));
    (address, closing, served)
}

#[tokio::test]
async fn every_way_to_say_too_little_ends_within_its_bound() {
    let (address, closing, served) = serve(BOUNDS).await;
    let h2: &'static [u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    let half = h2.split_at(12).0;
    let cases: [Case; 7] = [
        ("nothing", b"", ""),
        ("one byte", b"P", ""),
        ("a partial header", b"GET / HTTP/1.1\r\nhost: x\r\nx-a: ", ""),
        ("half a preface", half, ""),
        ("a preface and silence", h2, ""),
        (
            "a body that does not come",
            b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\na",
            "HTTP/1.1 400",
        ),
        ("a request and silence", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", "HTTP/1.1 200"),
    ];
    let longest = Duration::from_secs(5); // the bounds add up to less than one; the rest is a busy machine
    let asked = cases.map(|(what, bytes, begin)| {
        let address = address.clone();
        async move {
            let start = Instant::now();
            let answer = tokio::time::timeout(longest, exchange(&address, bytes)).await;
            let answer =
                answer.unwrap_or_else(|_| panic!("{what}: open after {:?}", start.elapsed()));
            assert!(answer.starts_with(begin), "{what}: {answer}");
        }
    });
    futures_util::future::join_all(asked).await;
    closing.cancel();
    served.await.unwrap();
}

#[tokio::test]
async fn one_address_can_not_take_every_connection() {
    let bounds = Bounds { first_request: Duration::from_secs(30), ..BOUNDS };
    let (address, closing, served) = serve(bounds).await;
    let mut held = Vec::new();
    for _ in 0..bounds.connections_each {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        held.push(stream);
    }
    let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let refused = exchange(&address, request).await;
    assert_eq!(refused, "", "the ninth connection must be closed without an answer");
    drop(held);
    // The places come back once the server has seen that the connections are gone.
    let mut answer = String::new();
    while answer.is_empty() {
        answer = exchange(&address, request).await;
    }
    assert!(answer.ends_with("hello"), "{answer}");
    closing.cancel();
    served.await.unwrap();
}

#[tokio::test]
async fn a_server_that_stops_lets_requests_end_but_not_for_ever() {
    let (address, closing, served) = serve(BOUNDS).await;
    let mut stream = TcpStream::connect(&address).await.unwrap();
    stream.write_all(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let answered =
        exchange(&address, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answered.ends_with("hello"));
    closing.cancel();
    tokio::time::timeout(Duration::from_secs(5), served).await.unwrap().unwrap();
    assert!(TcpStream::connect(&address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn an_open_address_without_tls_is_refused() {
    let listen = mesh_server::config::HostPort { host: "0.0.0.0".to_owned(), port: 0 };
    let problem = accept::bind(&listen, false).await.unwrap_err();
    assert_eq!(problem.code, "INSECURE_BIND");
    assert_eq!(
        problem.message,
        "0.0.0.0:0 can be reached from other machines, and there is no TLS"
    );
    assert!(accept::bind(&listen, true).await.is_ok());
}
