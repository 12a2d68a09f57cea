//! Exit codes: few, documented, and the same for every command.

use std::process::ExitCode;

use mesh_api::problem::Problem;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what was asked.
    Done,
    /// The task that was waited for failed or was cancelled, or a test found something.
    Failed,
    /// The request makes no sense as it is.
    Usage,
    /// What it is about does not exist.
    NotFound,
    /// The token does not allow it.
    Denied,
    /// It contradicts what is there already.
    Conflict,
    /// It was refused: too much, or more than any cluster has.
    Rejected,
    /// Try again later.
    Unavailable,
    /// What was waited for did not end in time.
    TimedOut,
    /// Ctrl-C; what was submitted goes on.
    Interrupted,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Denied => 4,
            Self::Conflict => 5,
            Self::Rejected => 6,
            Self::Unavailable => 7,
            Self::TimedOut => 8,
            Self::Interrupted => 130,
        }
    }
}

impl From<&Problem> for Exit {
    fn from(problem: &Problem) -> Self {
        match problem.code.as_str() {
            "INVALID" | "CONFIG_INVALID" | "INSECURE_BIND" | "TLS_UNUSABLE" => return Self::Usage,
            "QUEUE_FULL" => return Self::Rejected,
            "STATE_DIR_IN_USE" | "NOT_EMPTY" => return Self::Conflict,
            "NO_BACKUP" => return Self::NotFound,
            "STORE_DAMAGED" => return Self::Failed,
            _ => {}
        }
        match problem.status() {
            401 | 403 => Self::Denied,
            404 => Self::NotFound,
            409 | 410 => Self::Conflict,
            413 | 422 => Self::Rejected,
            _ => Self::Unavailable,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_problem_has_its_number() {
        let cases = [
            ("INVALID", 2),
            ("INSECURE_BIND", 2),
            ("UNKNOWN_TASK", 3),
            ("UNAUTHENTICATED", 4),
            ("KEY_CONFLICT", 5),
            ("KEY_EXPIRED", 5),
            ("STATE_DIR_IN_USE", 5),
            ("NOT_EMPTY", 5),
            ("NO_BACKUP", 3),
            ("STORE_DAMAGED", 1),
            ("INFEASIBLE", 6),
            ("QUEUE_FULL", 6),
            ("OVERLOADED", 7),
            ("UNAVAILABLE", 7),
            ("STORE_FULL", 7),
            ("INTERNAL", 7),
        ];
        for (code, number) in cases {
            assert_eq!(Exit::from(&Problem::new(code, "", "")).code(), number, "{code}");
        }
    }
}
