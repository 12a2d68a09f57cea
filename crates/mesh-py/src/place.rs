//! Where the control plane is: at an address, or wherever the state directory says at the moment.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use mesh_api::http_client::HttpClient;
use mesh_api::problem::Problem;
use mesh_server::state_dir::ServerInfo;

/// Whom to dial, and with what.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    /// Such as `http://127.0.0.1:7420`.
    pub(crate) url: String,
    pub(crate) token: Option<String>,
}

/// Where one client's control plane is.
#[derive(Debug)]
pub(crate) struct Place {
    http: RwLock<HttpClient>,
    token: Option<String>,
    /// Where it was found, and is looked for again before each dial.
    state_dir: Option<PathBuf>,
    /// Whether the one that was seen last lives in somebody's program.
    embedded: AtomicBool,
}

impl Place {
    pub(crate) fn new(
        url: &str,
        token: Option<&str>,
        state_dir: Option<PathBuf>,
    ) -> Result<Self, Problem> {
        Ok(Self {
            http: RwLock::new(HttpClient::new(url, token)?),
            token: token.map(str::to_owned),
            state_dir,
            embedded: AtomicBool::new(false),
        })
    }

    /// A client of where it was seen last.
    pub(crate) fn http(&self) -> HttpClient {
        self.http.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whom to dial now.
    pub(crate) fn look(&self) -> Result<Address, Problem> {
        if let Some(dir) = &self.state_dir {
            let Some(server) = ServerInfo::of_running(dir) else {
                return Err(Problem::new(
                    "UNAVAILABLE",
                    format!("no control plane serves the state directory {}", dir.display()),
                    "start one with `schedulemesh serve`, or say where it is with url=...",
                ));
            };
            self.embedded.store(server.embedded, Ordering::Relaxed);
            if server.url != self.http().url() {
                let http = HttpClient::new(&server.url, self.token.as_deref())?;
                *self.http.write().unwrap_or_else(PoisonError::into_inner) = http;
            }
        }
        Ok(Address { url: self.http().url().to_owned(), token: self.token.clone() })
    }

    /// Whether it may be somewhere else tomorrow.
    pub(crate) fn moves(&self) -> bool {
        self.state_dir.is_some()
    }

    /// Whether what was dialled last ended with somebody's program, so that another program may take
    /// its place.
    pub(crate) fn is_heritable(&self) -> bool {
        self.moves() && self.embedded.load(Ordering::Relaxed)
    }
}
