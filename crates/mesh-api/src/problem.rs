//! The one error body: code, what, why, and what to do.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What went wrong, for programs (`code`) and for people (the rest). Sent as
/// `application/problem+json` in the manner of RFC 9457, and inside link frames.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Stable, in capitals, such as `KEY_CONFLICT`.
    pub code: String,
    /// One sentence, with names and numbers.
    pub message: String,
    /// What to do about it.
    #[serde(default)]
    pub remedy: String,
    /// More of it as data, such as one entry for each cluster or each mistake.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
    /// How long to wait before trying again, when that helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Problem {
    /// A problem without details.
    pub fn new(code: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            remedy: remedy.into(),
            details: Vec::new(),
            retry_after_ms: None,
        }
    }

    /// The HTTP status that goes with the code.
    pub fn status(&self) -> u16 {
        match self.code.as_str() {
            "UNAUTHENTICATED" => 401,
            "FORBIDDEN" => 403,
            "UNKNOWN_TASK" | "UNKNOWN_CLUSTER" | "UNKNOWN_BLOB" | "NO_SUCH_ROUTE" => 404,
            "NOT_ENDED" | "KEY_CONFLICT" | "CLUSTER_EXISTS" | "CLUSTER_BUSY" | "CLUSTER_TAKEN"
            | "ACTOR_ENDED" => 409,
            "KEY_EXPIRED" | "CURSOR_COMPACTED" => 410,
            "TOO_LARGE" => 413,
            "INVALID" | "INFEASIBLE" | "NOT_AN_ACTOR" | "UNKNOWN_CODE" => 422,
            "UPGRADE_NEEDED" => 426,
            "QUEUE_FULL" | "OVERLOADED" => 429,
            "AGENT_UNREACHABLE" => 502,
            "UNAVAILABLE" | "STORE_FAILED" => 503,
            "TIMED_OUT" => 504,
            "STORE_FULL" => 507,
            _ => 500,
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "[{}] {}", self.code, self.message)?;
        self.details.iter().try_for_each(|detail| write!(out, "\n  {detail}"))?;
        if self.remedy.is_empty() { Ok(()) } else { write!(out, "\n  fix: {}", self.remedy) }
    }
}

impl std::error::Error for Problem {}

impl From<&mesh_core::Rejection> for Problem {
    fn from(rejection: &mesh_core::Rejection) -> Self {
        let details = match rejection {
            mesh_core::Rejection::Infeasible(verdicts) => {
                verdicts.iter().map(|(name, verdict)| format!("{name}: {verdict}")).collect()
            }
            _ => Vec::new(),
        };
        let busy = matches!(rejection, mesh_core::Rejection::QueueFull { .. });
        Self {
            code: rejection.code().into(),
            message: rejection.to_string(),
            remedy: rejection.remedy(),
            details,
            retry_after_ms: busy.then_some(1_000),
        }
    }
}
