//! The forms of values: how text becomes a duration, a size, an address. Each says in a fragment
//! what is wrong with the text.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Turns the text of a value into the value, or says in a fragment why it can't.
pub(super) type Parse<T> = fn(&str) -> Result<T, String>;

/// Where to listen: a host, as a name or a number, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The host, without brackets.
    pub host: String,
    /// The port; 0 picks a free one.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(out, "[{host}]:{port}")
        } else {
            write!(out, "{host}:{port}")
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

pub(super) fn host_port(text: &str) -> Result<HostPort, String> {
    let why = || "is not an address like 127.0.0.1:7420 or [::1]:7420".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(why)?;
    let port = port.parse().map_err(|_not_a_port| why())?;
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match bare {
        None if host.is_empty() || host.contains(':') => Err(why()),
        _ => Ok(HostPort { host: bare.unwrap_or(host).to_owned(), port }),
    }
}

pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("is empty".into()) } else { Ok(PathBuf::from(text)) }
}

pub(super) fn file(text: &str) -> Result<PathBuf, String> {
    match Path::new(text).metadata() {
        Ok(facts) if facts.is_file() => Ok(PathBuf::from(text)),
        Ok(_other) => Err("is not a file".into()),
        Err(error) => Err(format!("can't be read: {error}")),
    }
}

pub(super) fn url(text: &str) -> Result<String, String> {
    let url = reqwest::Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    let plain = url.path() == "/" && url.query().is_none() && url.username().is_empty();
    if matches!(url.scheme(), "http" | "https") && url.has_host() && plain {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err("is not an address like http://mesh.example:7420".into())
    }
}

pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("is neither true nor false".into()),
    }
}

pub(super) fn count(text: &str) -> Result<usize, String> {
    match text.replace('_', "").parse() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(count) => Ok(count),
        Err(_not_a_number) => Err("is not a whole number".into()),
    }
}

pub(super) fn hosts(text: &str) -> Result<Vec<String>, String> {
    let names = text.split(',').map(|name| name.trim().to_ascii_lowercase());
    let names: Vec<String> = names.filter(|name| !name.is_empty()).collect();
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    match names.iter().find(|name| !name.chars().all(plain)) {
        Some(bad) => Err(format!("holds {bad:?}, which is no host name without a port")),
        None => Ok(names),
    }
}

pub(super) fn log_level(text: &str) -> Result<String, String> {
    match text.parse::<tracing_subscriber::filter::Targets>() {
        Ok(_targets) => Ok(text.to_owned()),
        Err(_bad) => Err("is not error, warn, info, debug, trace or target=level".into()),
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("is neither text nor json".into()),
    }
}

pub(super) fn heartbeat(text: &str) -> Result<Duration, String> {
    let heartbeat = duration(text)?;
    let allowed = Duration::from_millis(50)..=Duration::from_mins(1);
    if allowed.contains(&heartbeat) {
        Ok(heartbeat)
    } else {
        Err("is not between 50ms and 60s".into())
    }
}

/// Reads `30s`, `1h30m` and `500ms`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let why = || "is not a duration like 500ms, 30s, 5m, 2h or 7d".to_owned();
    let mut rest = text.trim();
    let mut millis: u64 = 0;
    if rest.is_empty() {
        return Err(why());
    }
    while !rest.is_empty() {
        let (number, after) = leading_number(rest).ok_or_else(why)?;
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        let scale = match unit.trim() {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(why()),
        };
        let part = number.checked_mul(scale).ok_or_else(why)?;
        millis = millis.checked_add(part).ok_or_else(why)?;
        rest = next;
    }
    Ok(Duration::from_millis(millis))
}

pub(super) fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis.is_multiple_of(1_000) {
        format!("{}s", millis / 1_000)
    } else {
        format!("{millis}ms")
    }
}

/// Reads `64MiB`, `1GB` and plain bytes.
pub(super) fn size(text: &str) -> Result<usize, String> {
    let why = || "is not a size like 512KiB, 64MiB or 1000000".to_owned();
    let (number, unit) = leading_number(text.trim()).ok_or_else(why)?;
    let scale: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" => 1 << 30,
        _ => return Err(why()),
    };
    let bytes = number.checked_mul(scale).and_then(|bytes| usize::try_from(bytes).ok());
    bytes.filter(|bytes| *bytes > 0).ok_or_else(why)
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, rest))
}
