//! The accept loop: who may connect, how many, and how long a client may take over each step.
//!
//! `axum::serve` sets no timers, so that a client that says nothing, or half a word, holds a
//! connection for ever. Here every step is bounded; `tests/http/slow.rs` holds the table.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use mesh_api::problem::Problem;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::config::{Config, HostPort};

/// How long a client may take, and how many there may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// For a TLS handshake.
    pub handshake: Duration,
    /// From the connection to the first whole request head, which covers a client that says nothing.
    pub first_request: Duration,
    /// For a request head, and between two requests of one connection.
    pub header: Duration,
    /// How often an HTTP/2 client is asked whether it is there, and how long it may take to answer.
    pub ping: Duration,
    /// For open requests to end when the server stops.
    pub drain: Duration,
    /// Connections in all.
    pub connections: usize,
    /// Connections from one address.
    pub connections_each: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            first_request: Duration::from_secs(10),
            header: Duration::from_secs(20),
            ping: Duration::from_secs(20),
            drain: Duration::from_secs(5),
            connections: 8_192,
            connections_each: 4_096,
        }
    }
}

/// A socket that is bound, and what it speaks.
pub struct Bound {
    /// Where connections come in.
    pub listener: TcpListener,
    /// What protects them.
    pub tls: Option<TlsAcceptor>,
    /// Where to reach it from this machine.
    pub url: String,
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Bound").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Bound {
    /// Binds where the configuration says.
    pub async fn open(config: &Config) -> Result<Self, Problem> {
        let tls = config.tls.as_ref().map(|(cert, key)| crate::tls::acceptor(cert, key));
        let tls = tls.transpose()?;
        let listener = bind(&config.listen, tls.is_some() || config.insecure_bind).await?;
        let address = listener.local_addr().map_err(|error| unusable(&config.listen, &error))?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        // A certificate is for a name; a plain number is enough otherwise.
        let named = tls.is_some() && !address.ip().is_unspecified();
        let host = match address {
            _ if named => HostPort { host: config.listen.host.clone(), port: address.port() },
            SocketAddr::V4(v4) if v4.ip().is_unspecified() => {
                HostPort { host: "127.0.0.1".to_owned(), port: v4.port() }
            }
            SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
                HostPort { host: "::1".to_owned(), port: v6.port() }
            }
            _ => HostPort { host: address.ip().to_string(), port: address.port() },
        };
        Ok(Self { listener, tls, url: format!("{scheme}://{host}") })
    }
}

fn unusable(listen: &HostPort, error: &std::io::Error) -> Problem {
    Problem::new(
        "CANNOT_LISTEN",
        format!("can't listen on {listen}: {error}"),
        "choose another address with --listen, such as 127.0.0.1:0 for a free port",
    )
}

/// Binds where the configuration says, and nowhere that would put the API on a network in the clear.
pub async fn bind(listen: &HostPort, protected: bool) -> Result<TcpListener, Problem> {
    let unusable = |error: std::io::Error| unusable(listen, &error);
    let found = tokio::net::lookup_host((listen.host.as_str(), listen.port)).await;
    let addresses: Vec<SocketAddr> = found.map_err(unusable)?.collect();
    if let Some(open) = addresses.iter().find(|address| !address.ip().is_loopback())
        && !protected
    {
        return Err(Problem::new(
            "INSECURE_BIND",
            format!("{open} can be reached from other machines, and there is no TLS"),
            "set tls-cert and tls-key, listen on 127.0.0.1, or force it with insecure-bind = true",
        ));
    }
    TcpListener::bind(addresses.as_slice()).await.map_err(unusable)
}

/// Serves connections until `closing`, then lets open requests end, for a while.
pub async fn serve(bound: Bound, router: Router, bounds: Bounds, closing: CancellationToken) {
    let Bound { listener, tls, url: _ } = bound;
    let door = Door {
        router,
        tls,
        bounds,
        all: Arc::new(Semaphore::new(bounds.connections)),
        each: PerAddress::default(),
    };
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closing.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => door.admit(stream, peer, graceful.watcher()),
            Err(error) => {
                // Out of file descriptors, most likely: give connections time to end.
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(bounds.drain, graceful.shutdown()).await.is_err() {
        tracing::info!("open connections cut");
    }
}

/// What every connection needs.
struct Door {
    router: Router,
    tls: Option<TlsAcceptor>,
    bounds: Bounds,
    all: Arc<Semaphore>,
    each: PerAddress,
}

impl Door {
    /// Starts to serve a connection, or closes it at once when there are too many.
    fn admit(&self, stream: TcpStream, peer: SocketAddr, watcher: Watcher) {
        let Ok(permit) = Arc::clone(&self.all).try_acquire_owned() else {
            tracing::warn!(%peer, "connection refused: too many in all");
            return;
        };
        let Some(place) = self.each.take(peer.ip(), self.bounds.connections_each) else {
            tracing::warn!(%peer, "connection refused: too many of one address");
            return;
        };
        let held = (permit, place);
        let (router, bounds, tls) = (self.router.clone(), self.bounds, self.tls.clone());
        tokio::spawn(async move {
            connection(stream, Caller { peer, router, watcher }, tls, bounds).await;
            drop::<(OwnedSemaphorePermit, Place)>(held);
        });
    }
}

struct Caller {
    peer: SocketAddr,
    router: Router,
    watcher: Watcher,
}

async fn connection(stream: TcpStream, caller: Caller, tls: Option<TlsAcceptor>, bounds: Bounds) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "small packets may be delayed");
    }
    let Some(tls) = tls else { return converse(stream, caller, bounds).await };
    match tokio::time::timeout(bounds.handshake, tls.accept(stream)).await {
        Ok(Ok(stream)) => converse(stream, caller, bounds).await,
        Ok(Err(error)) => tracing::debug!(%error, "handshake failed"),
        Err(_late) => tracing::debug!("handshake timed out"),
    }
}

async fn converse<S>(stream: S, caller: Caller, bounds: Bounds)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Caller { peer, router, watcher } = caller;
    let seen = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&seen);
    let service = tower::service_fn(move |request: hyper::Request<Incoming>| {
        noted.store(true, Ordering::Relaxed);
        let mut request: Request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        let router = router.clone();
        async move {
            let answer = router.oneshot(request).await;
            answer.map_err(|impossible: Infallible| match impossible {})
        }
    });
    let builder = builder(bounds);
    let served = builder
        .serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut served = std::pin::pin!(watcher.watch(served));
    tokio::select! {
        _ended = &mut served => return,
        () = tokio::time::sleep(bounds.first_request) => {
            // Hyper has no timer while it waits for the first bytes to tell which HTTP it is.
            if !seen.load(Ordering::Relaxed) {
                return;
            }
        }
    }
    if let Err(error) = served.await {
        tracing::debug!(%error, "connection ended");
    }
}

fn builder(bounds: Bounds) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(bounds.header);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(bounds.ping)
        .keep_alive_timeout(bounds.ping)
        .max_concurrent_streams(256);
    builder
}

/// How many connections each address has.
#[derive(Clone, Default)]
struct PerAddress(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl PerAddress {
    fn take(&self, address: IpAddr, max: usize) -> Option<Place> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_insert(0);
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Place { counts: self.clone(), address })
    }
}

/// One connection's share of its address's connections; given back when dropped.
struct Place {
    counts: PerAddress,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}
