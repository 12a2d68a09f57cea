//! The names under which the server may be called. A page of a stranger can make a browser on this
//! machine resolve the stranger's name to loopback; the name in the request then gives it away.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{header, uri::Authority};
use mesh_api::problem::Problem;

/// Names that are this server's.
#[derive(Clone, Debug)]
pub struct Hosts(Arc<[String]>);

impl Hosts {
    /// Loopback's, those of the configuration, and the one of the advertised address. A number is
    /// always allowed: it can't be made to mean something else.
    pub fn new(allowed: &[String], advertised: Option<&str>) -> Self {
        let advertised = advertised.and_then(|url| url.parse::<axum::http::Uri>().ok());
        let advertised =
            advertised.as_ref().and_then(|url| url.host()).map(str::to_ascii_lowercase);
        let names = allowed.iter().cloned().chain(advertised);
        Self(names.chain(["localhost".to_owned()]).collect())
    }

    /// Whether a request calls the server by a name of its own.
    pub fn check(&self, request: &Request) -> Result<(), Problem> {
        let header = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        let asked = request.uri().authority().map(Authority::as_str).or(header).unwrap_or_default();
        let host = asked.parse::<Authority>();
        let name = host.as_ref().map_or("", Authority::host).to_ascii_lowercase();
        if self.allows(&name) {
            return Ok(());
        }
        Err(Problem::new(
            "FORBIDDEN",
            format!("this server is not called {asked:?}"),
            "call it by its address, or add the name to allowed-hosts in its configuration",
        ))
    }

    fn allows(&self, name: &str) -> bool {
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        bare.parse::<IpAddr>().is_ok() || self.0.iter().any(|allowed| allowed == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(host: &str) -> bool {
        let hosts = Hosts::new(&["mesh.internal".into()], Some("https://Mesh.Example:7420"));
        let request = Request::builder().uri("/v1/tasks").header("host", host);
        hosts.check(&request.body(axum::body::Body::empty()).unwrap()).is_ok()
    }

    #[test]
    fn only_names_of_its_own_are_answered() {
        for good in [
            "127.0.0.1:7420",
            "[::1]:7420",
            "localhost",
            "LOCALHOST:1",
            "10.0.0.7",
            "mesh.internal:7420",
            "mesh.example",
        ] {
            assert!(verdict(good), "{good} must be allowed");
        }
        for bad in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "",
            "a b",
            "mesh.internal.",
            "127.0.0.1@evil.example",
        ] {
            assert!(!verdict(bad), "{bad} must be refused");
        }
    }
}
