//! The HTTP door, tried from outside with a real server on a port of its own.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that can't go on says so"
)]

mod agent;
mod auth;
mod bootstrap;
mod events;
mod openapi;
mod routes;
mod slow;
mod submit;
mod tls;

use mesh_api::http_client::HttpClient;
use mesh_server::config::{Config, Sources};
use mesh_server::{RunningServer, Server};

/// A server in a directory of its own, and a client of it.
struct Fixture {
    dir: tempfile::TempDir,
    server: RunningServer,
    http: HttpClient,
}

impl Fixture {
    async fn start() -> Self {
        Self::with(&[]).await
    }

    /// A server with these flags besides the usual ones.
    async fn with(flags: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(config(dir.path(), flags)).await.unwrap();
        let http = HttpClient::new(server.url(), Some(server.admin_token())).unwrap();
        Self { dir, server, http }
    }

    /// A request as nobody's client would make it: method, path, headers and body as they are said.
    async fn raw(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let token = format!("Bearer {}", self.server.admin_token());
        let request = plain()
            .request(method.parse().unwrap(), format!("{}{path}", self.server.url()))
            .header("authorization", token)
            .body(body.to_owned());
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn stop(self) {
        self.server.shutdown().await;
    }
}

fn config(dir: &std::path::Path, flags: &[(&str, &str)]) -> Config {
    let usual = [
        ("listen", "127.0.0.1:0"),
        ("state-dir", dir.to_str().unwrap()),
        ("heartbeat", "100ms"),
        ("lost-after", "1s"),
    ];
    let own = |pair: &(&str, &str)| (pair.0.to_owned(), pair.1.to_owned());
    let flags = usual.iter().chain(flags).map(own).collect();
    Config::resolve(&Sources { flags, ..Sources::default() }).unwrap()
}

/// A client without any opinion.
fn plain() -> reqwest::Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().tls_certs_only([]).build().unwrap()
}
