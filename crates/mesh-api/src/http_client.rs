//! The typed client of the HTTP API: one method for each route. Whatever goes wrong comes back as a
//! [`Problem`], whether the server said so or could not be reached.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use reqwest::{Method, RequestBuilder, Response, Url, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::problem::Problem;
use crate::sse::SseParser;
use crate::v1::{
    AgentToken, BlobView, ClusterBody, ClusterTest, ClusterView, ConfigView, DrainBody, EventView,
    ExplainView, HealthView, ReadyView, SpecBody, SubmitAnswer, SubmitBody, TaskList, TaskView,
};

/// The header in which a result's outcome travels: `succeeded`, `failed` or `cancelled`.
pub const OUTCOME_HEADER: &str = "x-schedulemesh-outcome";

/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a server may say nothing while it owes an answer. Waiting for a task is asked for in
/// pieces shorter than this.
const READ_TIMEOUT: Duration = Duration::from_mins(1);

/// How long an unused connection is kept: shorter than servers keep it, so that it is not closed
/// just when it is used again.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// Most bytes of a body that is expected to be small, such as a problem.
const TEXT_MAX: usize = 64 << 20;

/// A client of one server. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct HttpClient {
    http: reqwest::Client,
    url: Url,
    token: Option<header::HeaderValue>,
}

/// Which tasks [`HttpClient::tasks`] lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskQuery {
    /// Only those in one of these phases; all when empty. `active` stands for all that have not ended.
    pub phases: Vec<String>,
    /// Only those on this cluster.
    pub cluster: Option<String>,
    /// Only those of this kind.
    pub kind: Option<String>,
    /// Only those of this name.
    pub name: Option<String>,
    /// At most so many; the server's default when nothing is said.
    pub limit: Option<u32>,
    /// Only those older than this task: [`TaskList::next`] of the page before.
    pub before: Option<String>,
}

/// A result on the way, of any size.
#[derive(Debug)]
pub struct ResultStream {
    /// `succeeded`, `failed` or `cancelled`. What a failed task left behind is a MessagePack
    /// [`crate::client_link::FailureRecord`].
    pub outcome: String,
    /// How many bytes there are, when the server said so.
    pub size: Option<u64>,
    response: Response,
}

impl ResultStream {
    /// The next piece; `None` after the last.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Problem> {
        self.response.chunk().await.map_err(|error| broken(&error))
    }

    /// All of it: for results that are known to be small.
    pub async fn bytes(self) -> Result<Bytes, Problem> {
        self.response.bytes().await.map_err(|error| broken(&error))
    }
}

/// Events as they become durable, without gaps.
pub struct EventStream {
    pieces: futures_util::stream::BoxStream<'static, Result<Bytes, Problem>>,
    parser: SseParser,
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("EventStream").finish_non_exhaustive()
    }
}

impl EventStream {
    /// The next event; `None` when the server ended the stream. Resume after [`EventView::seq`] of
    /// the last one.
    pub async fn next(&mut self) -> Result<Option<EventView>, Problem> {
        loop {
            if let Some(message) = self.parser.pop() {
                let data = message.data.as_bytes();
                return if message.event == "problem" {
                    Err(parse(data)?)
                } else {
                    parse(data).map(Some)
                };
            }
            match self.pieces.next().await {
                None => return Ok(None),
                Some(piece) => self.parser.push(&piece?),
            }
        }
    }
}

impl HttpClient {
    /// A client of the server at `url`, such as `http://127.0.0.1:7420`.
    pub fn new(url: &str, token: Option<&str>) -> Result<Self, Problem> {
        let parsed = parse_url(url)?;
        let token = token.map(bearer).transpose()?;
        let http = build(&parsed).map_err(|error| {
            Problem::new("INTERNAL", format!("no HTTP client: {}", chain(&error)), "")
        })?;
        Ok(Self { http, url: parsed, token })
    }

    /// The address of the server.
    pub fn url(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// `GET /health`.
    pub async fn health(&self) -> Result<HealthView, Problem> {
        self.get(&["health"], &[]).await
    }

    /// `GET /ready`. A server that is not ready answers too: see [`ReadyView::why`].
    pub async fn ready(&self) -> Result<ReadyView, Problem> {
        let response = self.exchange(self.request(Method::GET, &["ready"], &[])).await?;
        let body = read(response).await?;
        parse(&body).or_else(|_not_a_view| Err(parse::<Problem>(&body)?))
    }

    /// `POST /v1/tasks`: one result for each task, in order.
    pub async fn submit(&self, body: &SubmitBody) -> Result<SubmitAnswer, Problem> {
        self.post(&["v1", "tasks"], body).await
    }

    /// `GET /v1/tasks`.
    pub async fn tasks(&self, query: &TaskQuery) -> Result<TaskList, Problem> {
        let limit = query.limit.map(|limit| limit.to_string());
        let phases = (!query.phases.is_empty()).then(|| query.phases.join(","));
        let pairs = [
            ("phase", phases.as_deref()),
            ("cluster", query.cluster.as_deref()),
            ("kind", query.kind.as_deref()),
            ("name", query.name.as_deref()),
            ("limit", limit.as_deref()),
            ("before", query.before.as_deref()),
        ];
        let pairs: Vec<(&str, &str)> =
            pairs.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        self.get(&["v1", "tasks"], &pairs).await
    }

    /// `GET /v1/tasks/{id}`; `id` is `t42` or `key:KEY`.
    pub async fn task(&self, id: &str) -> Result<TaskView, Problem> {
        self.get(&["v1", "tasks", id], &[]).await
    }

    /// `GET /v1/tasks/{id}/explain`.
    pub async fn explain(&self, id: &str) -> Result<ExplainView, Problem> {
        self.get(&["v1", "tasks", id, "explain"], &[]).await
    }

    /// `POST /v1/explain`: where a task would go, without submitting it.
    pub async fn explain_spec(&self, spec: &SpecBody) -> Result<ExplainView, Problem> {
        self.post(&["v1", "explain"], spec).await
    }

    /// `GET /v1/tasks/{id}/result`.
    pub async fn result(&self, id: &str) -> Result<ResultStream, Problem> {
        let response =
            self.send(self.request(Method::GET, &["v1", "tasks", id, "result"], &[])).await?;
        let outcome = response.headers().get(OUTCOME_HEADER);
        let outcome = outcome.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        Ok(ResultStream { outcome, size: response.content_length(), response })
    }

    /// `GET /v1/tasks/{id}/wait`: the task, as soon as it ended or when `timeout` is over,
    /// whichever is first.
    pub async fn wait(&self, id: &str, timeout: Duration) -> Result<TaskView, Problem> {
        let piece = timeout.min(READ_TIMEOUT / 2).as_millis().to_string();
        self.get(&["v1", "tasks", id, "wait"], &[("timeout_ms", &piece)]).await
    }

    /// `GET /v1/tasks/{id}/logs`: what the task printed, at most the last `tail_bytes` of it.
    pub async fn logs(&self, id: &str, tail_bytes: Option<u64>) -> Result<String, Problem> {
        let tail = tail_bytes.map(|bytes| bytes.to_string());
        let query: Vec<(&str, &str)> =
            tail.iter().map(|bytes| ("tail_bytes", bytes.as_str())).collect();
        self.text(&["v1", "tasks", id, "logs"], &query).await
    }

    /// `POST /v1/tasks/{id}/cancel`.
    pub async fn cancel(&self, id: &str) -> Result<TaskView, Problem> {
        self.post(&["v1", "tasks", id, "cancel"], &()).await
    }

    /// `GET /v1/clusters`.
    pub async fn clusters(&self) -> Result<Vec<ClusterView>, Problem> {
        self.get(&["v1", "clusters"], &[]).await
    }

    /// `POST /v1/clusters`.
    pub async fn add_cluster(&self, body: &ClusterBody) -> Result<ClusterView, Problem> {
        self.post(&["v1", "clusters"], body).await
    }

    /// `GET /v1/clusters/{name}`.
    pub async fn cluster(&self, name: &str) -> Result<ClusterView, Problem> {
        self.get(&["v1", "clusters", name], &[]).await
    }

    /// `PUT /v1/clusters/{name}`: registers it, or changes what was said about it.
    pub async fn put_cluster(&self, body: &ClusterBody) -> Result<ClusterView, Problem> {
        let request = self.request(Method::PUT, &["v1", "clusters", &body.name], &[]).json(body);
        self.json(request).await
    }

    /// `DELETE /v1/clusters/{name}`; with `force`, even while work runs there, which then counts
    /// as lost.
    pub async fn remove_cluster(&self, name: &str, force: bool) -> Result<(), Problem> {
        let force = if force { "true" } else { "false" };
        let path = ["v1", "clusters", name];
        self.send(self.request(Method::DELETE, &path, &[("force", force)])).await.map(drop)
    }

    /// `POST /v1/clusters/{name}/drain`: sends no new work there, or sends work again.
    pub async fn drain_cluster(&self, name: &str, draining: bool) -> Result<ClusterView, Problem> {
        self.post(&["v1", "clusters", name, "drain"], &DrainBody { draining }).await
    }

    /// `POST /v1/clusters/{name}/test`: asks the agent and the dashboard, now.
    pub async fn test_cluster(&self, name: &str) -> Result<ClusterTest, Problem> {
        self.post(&["v1", "clusters", name, "test"], &()).await
    }

    /// `POST /v1/clusters/{name}/token`: the token with which its agent introduces itself.
    pub async fn cluster_token(&self, name: &str) -> Result<AgentToken, Problem> {
        self.post(&["v1", "clusters", name, "token"], &()).await
    }

    /// `PUT /v1/blobs`, streamed.
    pub async fn put_blob<S, E>(&self, pieces: S) -> Result<BlobView, Problem>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        self.put_pieces(&["v1", "blobs"], pieces).await
    }

    /// `PUT /v1/packages/{id}`, streamed.
    pub async fn put_package<S, E>(&self, id: &str, pieces: S) -> Result<BlobView, Problem>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        self.put_pieces(&["v1", "packages", id], pieces).await
    }

    async fn put_pieces<S, E>(&self, path: &[&str], pieces: S) -> Result<BlobView, Problem>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let body = reqwest::Body::wrap_stream(pieces);
        self.json(self.request(Method::PUT, path, &[]).body(body)).await
    }

    /// `GET /v1/blobs/{id}`, streamed.
    pub async fn blob(
        &self,
        id: &str,
    ) -> Result<impl Stream<Item = Result<Bytes, Problem>> + Send + use<>, Problem> {
        let response = self.send(self.request(Method::GET, &["v1", "blobs", id], &[])).await?;
        Ok(response.bytes_stream().map_err(|error| broken(&error)))
    }

    /// `PUT /v1/code/{digest}`: pickled code under the BLAKE3 digest of its bytes, which is returned.
    pub async fn put_code(&self, code: Bytes) -> Result<String, Problem> {
        let digest = blake3::hash(&code).to_hex().to_string();
        let request = self.request(Method::PUT, &["v1", "code", &digest], &[]).body(code);
        self.send(request).await?;
        Ok(digest)
    }

    /// `GET /v1/events`: everything after event number `after`; only what is new when nothing is said.
    pub async fn events(&self, after: Option<u64>) -> Result<EventStream, Problem> {
        let after = after.map(|seq| seq.to_string());
        let query: Vec<(&str, &str)> = after.iter().map(|seq| ("after", seq.as_str())).collect();
        let response = self.send(self.request(Method::GET, &["v1", "events"], &query)).await?;
        let pieces = response.bytes_stream().map_err(|error| broken(&error)).boxed();
        Ok(EventStream { pieces, parser: SseParser::default() })
    }

    /// `GET /v1/config`.
    pub async fn config(&self) -> Result<ConfigView, Problem> {
        self.get(&["v1", "config"], &[]).await
    }

    /// `GET /metrics`, in the text format of Prometheus.
    pub async fn metrics(&self) -> Result<String, Problem> {
        self.text(&["metrics"], &[]).await
    }

    /// Any route, with JSON in and out: for what this client has no method for. `path` starts with
    /// a slash and may hold a query.
    pub async fn raw(
        &self,
        method: &str,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Vec<u8>, Problem> {
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_bad| invalid(format!("{method:?} is no HTTP method")))?;
        let url = self
            .url
            .join(path.trim_start_matches('/'))
            .map_err(|error| invalid(format!("path {path:?}: {error}")))?;
        let mut request = self.authorized(self.http.request(method, url));
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        }
        read(self.send(request).await?).await
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T, Problem> {
        self.json(self.request(Method::GET, path, query)).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &(impl Serialize + ?Sized),
    ) -> Result<T, Problem> {
        self.json(self.request(Method::POST, path, &[]).json(body)).await
    }

    async fn text(&self, path: &[&str], query: &[(&str, &str)]) -> Result<String, Problem> {
        let body = read(self.send(self.request(Method::GET, path, query)).await?).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Problem> {
        parse(&read(self.send(request).await?).await?)
    }

    fn request(&self, method: Method, path: &[&str], query: &[(&str, &str)]) -> RequestBuilder {
        let mut url = self.url.clone();
        // The address was checked to be one that can have a path.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.authorized(self.http.request(method, url))
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.header(header::AUTHORIZATION, token.clone()),
            None => request,
        }
    }

    /// Sends, and turns an answer that is no success into its problem.
    async fn send(&self, request: RequestBuilder) -> Result<Response, Problem> {
        let response = self.exchange(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = read(response).await?;
        Err(serde_json::from_slice(&body).unwrap_or_else(|_no_problem| {
            let text: String = String::from_utf8_lossy(&body).chars().take(300).collect();
            let message = format!("{} answered {status}: {}", self.url(), text.trim());
            Problem::new("UNAVAILABLE", message, "check that the address is a ScheduleMesh server")
        }))
    }

    async fn exchange(&self, request: RequestBuilder) -> Result<Response, Problem> {
        request.send().await.map_err(|error| self.unreachable(&error))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Problem {
        let url = self.url();
        if error.is_connect() {
            return Problem::new(
                "UNAVAILABLE",
                format!("no control plane answers at {url}: {}", chain(error)),
                "start one with `schedulemesh serve`, or say where it is with --url or SCHEDULEMESH_URL",
            );
        }
        if error.is_timeout() {
            let message = format!("{url} took too long to answer");
            return Problem::new("TIMED_OUT", message, "try again, and look at the server's log");
        }
        broken(error)
    }
}

/// A plain address needs no root certificates, and reading those of the system takes longer than
/// most requests.
fn build(url: &Url) -> Result<reqwest::Client, reqwest::Error> {
    let provider = rustls::crypto::ring::default_provider();
    // Somebody else in this process may have installed one before, which serves as well.
    drop(provider.install_default());
    let builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .pool_idle_timeout(IDLE_MAX)
        .redirect(reqwest::redirect::Policy::none())
        .tcp_nodelay(true)
        .user_agent(concat!("schedulemesh/", env!("CARGO_PKG_VERSION")));
    match url.scheme() {
        "http" => builder.tls_certs_only([]).build(),
        _ => builder.build(),
    }
}

fn parse_url(text: &str) -> Result<Url, Problem> {
    let url = Url::parse(text).map_err(|error| invalid(format!("address {text:?}: {error}")))?;
    if matches!(url.scheme(), "http" | "https") && url.has_host() {
        Ok(url)
    } else {
        Err(invalid(format!("address {text:?} does not start with http:// or https://")))
    }
}

fn bearer(token: &str) -> Result<header::HeaderValue, Problem> {
    let mut value = header::HeaderValue::from_str(&format!("Bearer {}", token.trim()))
        .map_err(|_bad| invalid("the token holds characters that no token has"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn invalid(message: impl Into<String>) -> Problem {
    Problem::new("INVALID", message, "an address looks like http://127.0.0.1:7420")
}

fn broken(error: &reqwest::Error) -> Problem {
    let message = format!("the connection to the control plane broke: {}", chain(error));
    Problem::new("UNAVAILABLE", message, "try again; what was accepted is not lost")
}

/// An error with its causes, in one line and without the address that every cause repeats.
fn chain(error: &reqwest::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        parts.push(error.to_string());
        cause = error.source();
    }
    parts.dedup();
    if parts.is_empty() { error.to_string() } else { parts.join(": ") }
}

async fn read(mut response: Response) -> Result<Vec<u8>, Problem> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| broken(&error))? {
        if body.len() + piece.len() > TEXT_MAX {
            return Err(Problem::new("TOO_LARGE", "the answer is larger than 64 MiB", ""));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        Problem::new(
            "UPGRADE_NEEDED",
            format!("the server's answer is not what this client expects: {error}"),
            "check that server and client are of the same version",
        )
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers one request with these bytes, and gives back what it was asked.
    async fn answer_once(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            let (mut stream, _peer) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let length = stream.read(&mut asked).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            asked.truncate(length);
            String::from_utf8(asked).unwrap()
        });
        (url, served)
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_unavailable_and_the_remedy_says_how_to_start_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let problem = HttpClient::new(&url, None).unwrap().health().await.unwrap_err();
        assert_eq!(problem.code, "UNAVAILABLE");
        assert!(problem.message.starts_with(&format!("no control plane answers at {url}: ")));
        assert!(problem.remedy.contains("`schedulemesh serve`"));
    }

    #[tokio::test]
    async fn something_else_that_answers_is_shown_as_it_answered() {
        let (url, _served) =
            answer_once("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 6\r\n\r\n<html>").await;
        let problem = HttpClient::new(&url, None).unwrap().clusters().await.unwrap_err();
        assert_eq!(problem.message, format!("{url} answered 502 Bad Gateway: <html>"));
    }

    #[tokio::test]
    async fn names_and_filters_are_escaped_and_the_token_goes_along() {
        let (url, served) = answer_once("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
        let client = HttpClient::new(&url, Some("smt_secret\n")).unwrap();
        assert!(!format!("{client:?}").contains("secret"), "the token must not be printed");
        let query = TaskQuery {
            phases: vec!["queued".into(), "running".into()],
            name: Some("a b&c".into()),
            ..TaskQuery::default()
        };
        assert_eq!(client.tasks(&query).await.unwrap_err().code, "UPGRADE_NEEDED");
        let asked = served.await.unwrap();
        assert!(
            asked.starts_with("GET /v1/tasks?phase=queued%2Crunning&name=a+b%26c HTTP/1.1"),
            "{asked}"
        );
        assert!(asked.contains("authorization: Bearer smt_secret\r\n"), "{asked}");
    }

    #[test]
    fn addresses_that_are_none_are_refused() {
        let why = |url: &str| HttpClient::new(url, None).unwrap_err().message;
        assert_eq!(why("nonsense"), "address \"nonsense\": relative URL without a base");
        assert_eq!(
            why("file:///etc/passwd"),
            "address \"file:///etc/passwd\" does not start with http:// or https://"
        );
    }
}
