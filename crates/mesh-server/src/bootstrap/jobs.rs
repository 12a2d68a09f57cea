//! Ray's Jobs REST API, as far as it takes to start an agent.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_api::problem::Problem;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, redirect};
use serde::{Deserialize, Serialize};

use crate::secret::resolve;

/// How long a dashboard may take over one request.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Most bytes of an answer that is kept.
const ANSWER_MAX: usize = 8 << 20;

/// The dashboard of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct JobsApi {
    http: reqwest::Client,
    url: Url,
    token: Option<String>,
}

/// A job, as the dashboard tells it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Job {
    /// Absent for jobs that were not submitted through this API.
    pub(crate) submission_id: Option<String>,
    /// `PENDING`, `RUNNING`, `STOPPED`, `SUCCEEDED` or `FAILED`.
    pub(crate) status: String,
    /// What happened to it, in words.
    #[serde(default)]
    pub(crate) message: Option<String>,
    /// Its command.
    #[serde(default)]
    pub(crate) entrypoint: String,
}

impl Job {
    /// Whether it runs, or will.
    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.status.as_str(), "PENDING" | "RUNNING")
    }
}

/// A job to submit.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NewJob {
    pub(crate) submission_id: String,
    pub(crate) entrypoint: String,
    pub(crate) runtime_env: RuntimeEnv,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// The environment of a job.
#[derive(Clone, Serialize)]
pub(crate) struct RuntimeEnv {
    pub(crate) working_dir: String,
    pub(crate) env_vars: BTreeMap<String, String>,
}

impl std::fmt::Debug for RuntimeEnv {
    /// Without the values of variables: one of them is a token.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("RuntimeEnv")
            .field("working_dir", &self.working_dir)
            .field("env_vars", &self.env_vars.keys())
            .finish()
    }
}

impl JobsApi {
    /// The API of the dashboard at this address; the token is one of Ray's, by reference.
    pub(crate) fn new(dashboard: &str, token: Option<&str>) -> Result<Self, Problem> {
        let invalid = |why: &str| {
            let message = format!("dashboard {dashboard:?} {why}");
            Problem::new("INVALID", message, "a dashboard looks like http://10.0.0.7:8265")
        };
        let url = Url::parse(dashboard).map_err(|error| invalid(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(invalid("is neither http:// nor https://"));
        }
        let token = token.map(resolve).transpose()?;
        // Somebody else in this process may have installed one before, which serves as well.
        drop(rustls::crypto::ring::default_provider().install_default());
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            // An answer must not be able to send the control plane elsewhere.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("schedulemesh/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Problem::new("INTERNAL", error.to_string(), ""))?;
        Ok(Self { http, url, token })
    }

    /// The version of the Ray that answers.
    pub(crate) async fn version(&self) -> Result<String, Problem> {
        #[derive(Deserialize)]
        struct Version {
            ray_version: String,
        }
        let answer = self.send(self.request(Method::GET, "/api/version")).await?;
        Ok(self.parse::<Version>(&self.read(answer).await?)?.ray_version)
    }

    /// Every job that the cluster remembers.
    pub(crate) async fn jobs(&self) -> Result<Vec<Job>, Problem> {
        let answer = self.send(self.request(Method::GET, "/api/jobs/")).await?;
        self.parse(&self.read(answer).await?)
    }

    /// Uploads a package, unless it is there.
    pub(crate) async fn upload(&self, package: &str, bytes: &[u8]) -> Result<(), Problem> {
        let path = format!("/api/packages/gcs/{package}");
        let known = self.exchange(self.request(Method::GET, &path)).await?;
        if known.status().is_success() {
            return Ok(());
        }
        self.send(self.request(Method::PUT, &path).body(bytes.to_vec())).await.map(drop)
    }

    /// Submits a job. One that is there already under its id is as good as submitted.
    pub(crate) async fn submit(&self, job: &NewJob) -> Result<(), Problem> {
        let answer = self.exchange(self.request(Method::POST, "/api/jobs/").json(job)).await?;
        if answer.status().is_success() {
            return Ok(());
        }
        let status = answer.status();
        let body = self.read(answer).await?;
        let text = String::from_utf8_lossy(&body);
        if text.contains("already exists") { Ok(()) } else { Err(self.refused(status, &text)) }
    }

    /// Stops a job.
    pub(crate) async fn stop(&self, id: &str) -> Result<(), Problem> {
        self.send(self.request(Method::POST, &format!("/api/jobs/{id}/stop"))).await.map(drop)
    }

    /// What a job printed.
    pub(crate) async fn logs(&self, id: &str) -> Result<String, Problem> {
        #[derive(Deserialize)]
        struct Logs {
            logs: String,
        }
        let answer = self.send(self.request(Method::GET, &format!("/api/jobs/{id}/logs"))).await?;
        Ok(self.parse::<Logs>(&self.read(answer).await?)?.logs)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut url = self.url.clone();
        url.set_path(&format!("{}{path}", self.url.path().trim_end_matches('/')));
        let request = self.http.request(method, url);
        match &self.token {
            // Proxies may keep the first for themselves; Ray reads either.
            Some(token) => {
                request.bearer_auth(token).header("x-ray-authorization", format!("Bearer {token}"))
            }
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Problem> {
        let answer = self.exchange(request).await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = self.read(answer).await?;
        Err(self.refused(status, &String::from_utf8_lossy(&body)))
    }

    async fn exchange(&self, request: RequestBuilder) -> Result<Response, Problem> {
        request.send().await.map_err(|error| self.unreachable(&error))
    }

    async fn read(&self, mut answer: Response) -> Result<Vec<u8>, Problem> {
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|error| self.unreachable(&error))? {
            if body.len() + piece.len() > ANSWER_MAX {
                let message = format!("dashboard {} answered more than 8 MiB", self.url);
                return Err(Problem::new("AGENT_UNREACHABLE", message, ""));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    fn parse<'a, T: Deserialize<'a>>(&self, body: &'a [u8]) -> Result<T, Problem> {
        serde_json::from_slice(body).map_err(|error| {
            let message =
                format!("dashboard {} answered something else than Ray's: {error}", self.url);
            Problem::new("AGENT_UNREACHABLE", message, "check the address of the dashboard")
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> Problem {
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        let message = format!("dashboard {} does not answer: {cause}", self.url);
        Problem::new("AGENT_UNREACHABLE", message, "check the address, and that the cluster is up")
    }

    fn refused(&self, status: StatusCode, body: &str) -> Problem {
        let body: String =
            body.trim().lines().last().unwrap_or_default().chars().take(300).collect();
        let remedy = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                "say where Ray's token is with token: env:NAME or file:PATH in the cluster's entry"
            }
            _ => "see the log of the cluster's dashboard",
        };
        let message = format!("dashboard {} answered {status}: {body}", self.url);
        Problem::new("AGENT_UNREACHABLE", message, remedy)
    }
}
