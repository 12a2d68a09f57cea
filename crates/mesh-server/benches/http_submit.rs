//! Durable submissions a second over HTTP, beside what SQLite alone does with the same batches.
//!
//! Both write 256 bytes a task with full sync, in turns, so that a busy machine slows both. SQLite
//! has one writer, the API several connections that are all answered durably: a commit holds what
//! waited while the one before it was written.
//! `cargo bench -p mesh-server --bench http_submit`

#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use mesh_api::convert::digest_of;
use mesh_server::config::{Config, Sources};
use mesh_server::{RunningServer, Server};
use rusqlite::Connection;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Bytes of arguments of one task.
const PAYLOAD_BYTES: usize = 256;
/// Tasks in one request.
const SIZES: [usize; 4] = [1, 10, 100, 1_000];
/// Connections that submit at the same time.
const CONNECTIONS: usize = 16;
/// How long one of the two writes before it is the other's turn.
const TURN: Duration = Duration::from_millis(200);
/// Turns of each for each size.
const TURNS: usize = 5;
/// What the server makes of connections' requests is all that is waited for.
const CODE: &[u8] = b"code";

#[tokio::main]
async fn main() -> Result<(), Failure> {
    println!(
        "tasks per request | SQLite alone | HTTP, {CONNECTIONS} connections | ratio \
         | HTTP, one connection: p50 | SQLite commits in that"
    );
    for size in SIZES {
        let dir = tempfile::tempdir()?;
        let mut bare = Bare::open(&dir.path().join("bare.db"))?;
        let server = serve(&dir.path().join("state")).await?;
        let request = request(&server, size)?;
        let (mut alone, mut many, mut waits) = (Vec::new(), Vec::new(), Vec::new());
        for _turn in 0..TURNS {
            let (rate, commit) = bare.turn(size)?;
            let api = rate_of(&server, &request, size, CONNECTIONS).await?.0;
            let (_rate, wait) = rate_of(&server, &request, size, 1).await?;
            alone.push(rate);
            many.push((api, api / rate));
            waits.push((wait, wait / commit));
        }
        let ratio = median(many.iter().map(|turn| turn.1).collect());
        let rate = median(many.into_iter().map(|turn| turn.0).collect());
        let commits = median(waits.iter().map(|turn| turn.1).collect());
        let wait = median(waits.into_iter().map(|turn| turn.0).collect()) * 1e6;
        let alone = median(alone);
        println!(
            "{size:17} | {alone:10.0}/s | {rate:20.0}/s | {ratio:5.2} | {wait:22.0} µs | {commits:5.2}"
        );
        server.shutdown().await;
    }
    Ok(())
}

async fn serve(dir: &Path) -> Result<RunningServer, Failure> {
    let flag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let dir = dir.to_string_lossy();
    let flags =
        vec![flag("listen", "127.0.0.1:0"), flag("state-dir", &dir), flag("queue-max", "50000000")];
    let server = Server::start(Config::resolve(&Sources { flags, ..Sources::default() })?).await?;
    server.handle().put_code(vec![(digest_of(CODE), Bytes::from_static(CODE))]).await?;
    Ok(server)
}

/// A whole request: the server makes up the keys, so that it can be sent again and again.
fn request(server: &RunningServer, size: usize) -> Result<Vec<u8>, Failure> {
    let code = digest_of(CODE).to_string();
    let spec = json!({"work": {"function": {"code": code}}, "wait_for_growth": true});
    let task = json!({"payload": STANDARD.encode([7_u8; PAYLOAD_BYTES])});
    let body = serde_json::to_vec(&json!({"specs": [spec], "tasks": vec![task; size]}))?;
    let head = format!(
        "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        server.admin_token(),
        body.len()
    );
    Ok([head.into_bytes(), body].concat())
}

/// Tasks a second, and the median time of one request in seconds.
async fn rate_of(
    server: &RunningServer,
    request: &[u8],
    size: usize,
    connections: usize,
) -> Result<(f64, f64), Failure> {
    let address = server.url().trim_start_matches("http://").to_owned();
    let begin = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for _connection in 0..connections {
        running.spawn(submit(address.clone(), request.to_vec(), begin));
    }
    let mut waits = Vec::new();
    while let Some(done) = running.join_next().await {
        waits.extend(done??);
    }
    Ok((count(waits.len() * size) / begin.elapsed().as_secs_f64(), median(waits)))
}

/// Submits until the turn is over; how long each request took.
async fn submit(address: String, request: Vec<u8>, begin: Instant) -> Result<Vec<f64>, Failure> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut waits, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    while begin.elapsed() < TURN {
        let start = Instant::now();
        stream.write_all(&request).await?;
        answer(&mut stream, &mut buffer).await?;
        waits.push(start.elapsed().as_secs_f64());
    }
    Ok(waits)
}

/// Reads one whole answer, which must be a success.
async fn answer(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<(), Failure> {
    let (mut head, mut left) = (Vec::new(), None);
    while left != Some(0) {
        let read = stream.read(buffer).await?;
        if read == 0 {
            return Err("the server closed the connection".into());
        }
        if let Some(left) = &mut left {
            *left -= read;
            continue;
        }
        head.extend_from_slice(buffer.get(..read).unwrap_or_default());
        left = body_left(&head)?;
    }
    Ok(())
}

/// How much of the body has not arrived; nothing when the head has not either.
fn body_left(answer: &[u8]) -> Result<Option<usize>, Failure> {
    let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(answer.get(..end).unwrap_or_default()).to_ascii_lowercase();
    if !head.starts_with("http/1.1 200") {
        return Err(String::from_utf8_lossy(answer).into());
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.ok_or("no content-length")?.parse()?;
    Ok(Some(end + 4 + length - answer.len()))
}

/// One table, and nothing that is not needed.
struct Bare {
    connection: Connection,
    next: i64,
}

impl Bare {
    fn open(path: &Path) -> Result<Self, Failure> {
        let connection = Connection::open(path)?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             PRAGMA wal_autocheckpoint = 10000;
             CREATE TABLE record (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL);",
        )?;
        Ok(Self { connection, next: 0 })
    }

    /// Records a second, and the median time of one commit in seconds.
    fn turn(&mut self, size: usize) -> Result<(f64, f64), Failure> {
        let (begin, mut commits) = (Instant::now(), Vec::new());
        while begin.elapsed() < TURN {
            let start = Instant::now();
            self.commit(size)?;
            commits.push(start.elapsed().as_secs_f64());
        }
        Ok((count(commits.len() * size) / begin.elapsed().as_secs_f64(), median(commits)))
    }

    fn commit(&mut self, size: usize) -> Result<(), Failure> {
        let bytes = [7_u8; PAYLOAD_BYTES];
        let tx = self.connection.transaction()?;
        let mut insert = tx.prepare_cached("INSERT INTO record (id, bytes) VALUES (?1, ?2)")?;
        for _record in 0..size {
            self.next += 1;
            insert.execute(rusqlite::params![self.next, bytes])?;
        }
        drop(insert);
        Ok(tx.commit()?)
    }
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "for people")]
fn count(number: usize) -> f64 {
    number as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
