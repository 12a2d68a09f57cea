//! Who may open which route: every route of the document, with every kind of caller.

use serde_json::Value;

use crate::routes::cluster;
use crate::{Fixture, agent, plain};

/// The status of a request to a route, with this Authorization header.
async fn status(url: &str, method: &str, path: &str, header: Option<&str>) -> u16 {
    let path = path.replace(['{', '}'], "");
    let mut request = plain().request(method.parse().unwrap(), format!("{url}{path}"));
    if let Some(header) = header {
        request = request.header("authorization", header);
    }
    let answer = request.send().await.unwrap();
    if answer.status() == 401 {
        assert_eq!(answer.headers().get("www-authenticate").unwrap(), "Bearer", "{path}");
    }
    answer.status().as_u16()
}

fn routes() -> Vec<(String, String)> {
    let document = serde_json::to_value(mesh_server::http::document()).unwrap();
    let mut routes = Vec::new();
    for (path, methods) in document.get("paths").and_then(Value::as_object).unwrap() {
        for method in methods.as_object().unwrap().keys() {
            routes.push((method.to_uppercase(), path.clone()));
        }
    }
    // A route that is not there must not tell more than one that is.
    routes.push(("GET".to_owned(), "/v1/nothing".to_owned()));
    routes.push(("POST".to_owned(), "/health".to_owned()));
    routes
}

#[tokio::test]
async fn every_route_but_health_needs_a_token_that_may_open_it() {
    let fixture = Fixture::start().await;
    fixture.http.add_cluster(&cluster("a")).await.unwrap();
    let agent = format!("Bearer {}", fixture.http.cluster_token("a").await.unwrap().token);
    let forged = agent.replace("sma_a_", "sma_b_");
    let admin = format!("Bearer {}", fixture.server.admin_token());
    let strangers =
        [None, Some("Bearer smt_wrong"), Some("Basic YTpi"), Some("Bearer "), Some(&forged)];
    let routes = routes();
    assert!(routes.len() > 25, "the document lists {} routes", routes.len());
    let url = fixture.server.url();
    for (method, path) in routes {
        if path == "/health" && method == "GET" {
            assert_eq!(status(url, &method, &path, None).await, 200);
            continue;
        }
        if path == "/health" {
            continue; // no handler answers there, whoever asks
        }
        for stranger in strangers {
            let found = status(url, &method, &path, stranger).await;
            assert_eq!(found, 401, "{method} {path} with {stranger:?}");
        }
        let expected = if path == "/v1/link/agent" { 422 } else { 403 };
        assert_eq!(status(url, &method, &path, Some(&agent)).await, expected, "{method} {path}");
        if path != "/v1/events" {
            let found = status(url, &method, &path, Some(&admin)).await;
            assert!(!matches!(found, 401 | 403 | 500), "{method} {path} as admin: {found}");
        }
    }
    fixture.stop().await;
}

#[tokio::test]
async fn tricks_with_the_path_open_nothing() {
    let fixture = Fixture::start().await;
    let url = fixture.server.url();
    let address = url.trim_start_matches("http://").to_owned();
    for path in [
        "/health/../v1/tasks",
        "/health/",
        "//health",
        "/%68ealth",
        "/health;/v1/tasks",
        "/health%2f..%2fv1%2ftasks",
        "/HEALTH",
        "/v1/tasks?/health",
    ] {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        let answer = crate::slow::exchange(&address, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{path}: {answer}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn links_are_closed_to_strangers_and_an_agent_serves_its_own_cluster() {
    let fixture = Fixture::start().await;
    for name in ["a", "b"] {
        fixture.http.add_cluster(&cluster(name)).await.unwrap();
    }
    let url = fixture.server.url();
    let token = fixture.http.cluster_token("a").await.unwrap().token;
    assert!(agent::dial(url, "smt_wrong", "/v1/link/client").await.is_err());
    assert!(agent::dial(url, &token, "/v1/link/client").await.is_err());
    assert!(agent::dial(url, fixture.server.admin_token(), "/v1/link/client").await.is_ok());
    let _agent = agent::link(url, &token, "a").await;
    let other = tokio::spawn({
        let (url, token) = (url.to_owned(), token.clone());
        async move { drop(agent::link(&url, &token, "b").await) }
    });
    let refused = other.await.unwrap_err();
    let why = refused.into_panic().downcast::<String>().unwrap();
    assert!(why.contains("FORBIDDEN"), "{why}");
    fixture.stop().await;
}
