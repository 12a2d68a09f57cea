//! How problems leave through HTTP, and how bodies and queries come in without ever answering
//! anything else than a problem.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mesh_api::problem::Problem;
use serde::de::DeserializeOwned;

/// A problem as an answer.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) Problem);

/// What a handler answers.
pub(crate) type Answer<T> = Result<T, Failure>;

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self(problem) = self;
        let status = StatusCode::from_u16(problem.status());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&problem)).into_response();
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, json);
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = problem.retry_after_ms {
            headers.insert(header::RETRY_AFTER, wait.div_ceil(1_000).into());
        }
        response
    }
}

/// A JSON body.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let bytes = whole(request, state).await?;
        parse(&bytes).map(Self)
    }
}

/// A JSON body that may be left out, or be `null`.
#[derive(Debug)]
pub(crate) struct MaybeBody<T>(pub(crate) Option<T>);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for MaybeBody<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let bytes = whole(request, state).await?;
        if bytes.is_empty() { Ok(Self(None)) } else { parse(&bytes).map(Self) }
    }
}

/// The whole body, within the limit that the router has set.
pub(crate) async fn whole<S: Send + Sync>(request: Request, state: &S) -> Answer<Bytes> {
    Bytes::from_request(request, state).await.map_err(|refused| {
        let problem = match refused.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
                "TOO_LARGE",
                "the body is larger than body-max allows",
                "send smaller batches, upload large arguments with PUT /v1/blobs, or raise body-max",
            ),
            _ => Problem::new("INVALID", "the body did not arrive whole or in time", "send it again"),
        };
        Failure(problem)
    })
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Answer<T> {
    // Keeping track of the path of every field would cost more than reading does.
    serde_json::from_slice(bytes).or_else(|_wrong| {
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let outcome = serde_path_to_error::deserialize(&mut reader);
        let value: T =
            outcome.map_err(|error| misread(&error.path().to_string(), error.inner()))?;
        reader.end().map_err(|error| misread(".", &error))?;
        Ok(value)
    })
}

fn misread(path: &str, error: &serde_json::Error) -> Failure {
    let mut problem = Problem::new(
        "INVALID",
        "the body is not what this route reads",
        "see GET /openapi.json for its form",
    );
    // A body that is no JSON has no field to name.
    let place = if matches!(path, "." | "?") { String::new() } else { format!("{path}: ") };
    problem.details = vec![format!("{place}{error}")];
    Failure(problem)
}

/// The query of an address.
#[derive(Debug)]
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        match axum::extract::Query::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(error) => {
                let mut problem = Problem::new(
                    "INVALID",
                    "the query is not what this route reads",
                    "see GET /openapi.json for its form",
                );
                problem.details = vec![root(&error)];
                Err(Failure(problem))
            }
        }
    }
}

/// The innermost cause, which is the one that names the field.
fn root(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}

/// One part of a path, as text.
#[derive(Debug)]
pub(crate) struct Name(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match axum::extract::Path::<String>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(name)) => Ok(Self(name)),
            Err(refused) => {
                Err(Problem::new("INVALID", refused.body_text(), "correct the address").into())
            }
        }
    }
}

/// A route that is not there.
pub(crate) fn no_such_route(method: &axum::http::Method, path: &str) -> Problem {
    Problem::new(
        "NO_SUCH_ROUTE",
        format!("there is no {method} {path}"),
        "see GET /openapi.json for every route",
    )
}

/// A handler that panicked.
#[expect(clippy::needless_pass_by_value, reason = "the layer hands over what it caught")]
pub(crate) fn panicked(what: Box<dyn std::any::Any + Send>) -> Response {
    let what = what
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| what.downcast_ref::<&str>().copied())
        .unwrap_or("without a message");
    tracing::error!(panic = what, "handler panicked");
    let problem = Problem::new(
        "INTERNAL",
        "the server ran into a mistake of its own",
        "see its log, and report it; nothing that was accepted is lost",
    );
    Failure(problem).into_response()
}
