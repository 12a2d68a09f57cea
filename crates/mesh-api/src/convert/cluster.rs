//! What owners say about their clusters.

use std::collections::BTreeSet;

use mesh_core::model::amount::Amount;
use mesh_core::model::cluster::ClusterSpec;
use mesh_core::model::id::ClusterName;
use mesh_core::model::label::Labels;
use mesh_core::model::time::Span;
use serde::{Deserialize, Serialize};

use super::Mistakes;
use crate::problem::Problem;
use crate::v1::ClusterBody;

/// Most bytes of a label's value.
const LABEL_LEN_MAX: usize = 256;

/// How a cluster is reached: the part of its entry that only the shell reads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reach {
    /// Its dashboard, through which an agent can be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dashboard: Option<String>,
    /// The address at which its agent listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Where to find a secret: `env:NAME` or `file:PATH`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The runtime environment of work that brings none, as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_env: Option<String>,
}

/// Reads the entry of a cluster.
pub fn cluster(body: &ClusterBody) -> Result<(ClusterName, ClusterSpec), Problem> {
    let mut mistakes = Mistakes::default();
    let usual = ClusterSpec::default();
    let name = mistakes.keep("name", body.name.parse::<ClusterName>());
    let reach = read_reach(body, &mut mistakes);
    let spec = ClusterSpec {
        weight: share("weight", body.weight, f64::MAX, usual.weight, &mut mistakes),
        prefer: body.prefer,
        tags: tags(&body.tags, &mut mistakes),
        labels: labels(body, &mut mistakes),
        max_utilisation: share(
            "max_utilisation",
            body.max_utilisation,
            1.0,
            usual.max_utilisation,
            &mut mistakes,
        ),
        max_tasks: body.max_tasks,
        job_interval: body.job_interval_ms.map_or(usual.job_interval, Span::from_millis),
        lost_after: body.lost_after_ms.map_or(usual.lost_after, Span::from_millis),
        breaker_failures: body.breaker_failures.unwrap_or(usual.breaker_failures),
        breaker_recovery: body
            .breaker_recovery_ms
            .map_or(usual.breaker_recovery, Span::from_millis),
        reach: mistakes.take("reach", serde_json::to_string(&reach)).into(),
    };
    for (field, zero) in [
        ("max_tasks", spec.max_tasks == Some(0)),
        ("lost_after_ms", spec.lost_after == Span::ZERO),
        ("breaker_failures", spec.breaker_failures == 0),
    ] {
        if zero {
            mistakes.add(field, "must be at least 1");
        }
    }
    mistakes.verdict("the cluster")?;
    name.map(|name| (name, spec)).ok_or_else(|| Problem::new("INVALID", "no name", ""))
}

/// How a cluster is reached.
pub fn reach(spec: &ClusterSpec) -> Reach {
    serde_json::from_str(&spec.reach).unwrap_or_default()
}

/// Writes the entry of a cluster.
pub fn cluster_body(name: &ClusterName, spec: &ClusterSpec) -> ClusterBody {
    let Reach { dashboard, agent, token, runtime_env } = reach(spec);
    ClusterBody {
        name: name.as_str().to_owned(),
        dashboard,
        agent,
        token,
        weight: Some(spec.weight.units()),
        prefer: spec.prefer,
        tags: spec.tags.iter().map(|tag| tag.as_str().to_owned()).collect(),
        labels: spec.labels.clone(),
        runtime_env: runtime_env.and_then(|text| serde_json::from_str(&text).ok()),
        max_utilisation: Some(spec.max_utilisation.units()),
        max_tasks: spec.max_tasks,
        job_interval_ms: Some(spec.job_interval.millis()),
        lost_after_ms: Some(spec.lost_after.millis()),
        breaker_failures: Some(spec.breaker_failures),
        breaker_recovery_ms: Some(spec.breaker_recovery.millis()),
    }
}

fn read_reach(body: &ClusterBody, mistakes: &mut Mistakes) -> Reach {
    check_url("dashboard", body.dashboard.as_deref(), &["http://", "https://"], mistakes);
    check_url("agent", body.agent.as_deref(), &["ws://", "wss://"], mistakes);
    if let Some(token) = &body.token {
        let reference = token.split_once(':');
        if !reference.is_some_and(|(kind, at)| matches!(kind, "env" | "file") && !at.is_empty()) {
            mistakes.add("token", "must say where the secret is: env:NAME or file:PATH");
        }
    }
    let runtime_env = super::spec::runtime_env("runtime_env", body.runtime_env.as_ref(), mistakes);
    Reach {
        dashboard: body.dashboard.as_deref().map(|url| url.trim_end_matches('/').to_owned()),
        agent: body.agent.clone(),
        token: body.token.clone(),
        runtime_env: runtime_env.map(|text| text.as_ref().to_owned()),
    }
}

fn check_url(field: &str, url: Option<&str>, schemes: &[&str], mistakes: &mut Mistakes) {
    let Some(url) = url else { return };
    let rest = schemes.iter().find_map(|scheme| url.strip_prefix(scheme));
    let host = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let sound = host.is_some_and(|host| !host.is_empty() && !host.contains('@'))
        && !url.contains(|c: char| c.is_control() || c.is_whitespace());
    if !sound {
        let wanted = schemes.join("HOST:PORT or ");
        mistakes.add(field, format!("{url:?} is not {wanted}HOST:PORT"));
    }
}

/// A number above 0 and at most `max`.
fn share(
    field: &str,
    value: Option<f64>,
    max: f64,
    usual: Amount,
    mistakes: &mut Mistakes,
) -> Amount {
    let Some(value) = value else { return usual };
    if value > max {
        mistakes.add(field, format!("is {value}; at most {max} is allowed"));
    }
    if value == 0.0 {
        mistakes.add(field, "is 0; drain the cluster to keep work away from it");
    }
    mistakes.take(field, Amount::from_units(value))
}

fn tags(words: &[String], mistakes: &mut Mistakes) -> BTreeSet<mesh_core::model::id::Tag> {
    let read =
        |(index, word): (usize, &String)| mistakes.keep(&format!("tags[{index}]"), word.parse());
    words.iter().enumerate().filter_map(read).collect()
}

fn labels(body: &ClusterBody, mistakes: &mut Mistakes) -> Labels {
    for (key, value) in &body.labels {
        if let Err(error) = key.parse::<mesh_core::model::id::Tag>() {
            mistakes.add(&format!("labels.{key:?}"), error);
        }
        if value.len() > LABEL_LEN_MAX || value.contains(char::is_control) {
            let what = format!("must be plain text of at most {LABEL_LEN_MAX} bytes");
            mistakes.add(&format!("labels.{key:?}"), what);
        }
    }
    body.labels.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> ClusterBody {
        serde_json::from_value(serde_json::json!({ "name": "mac" })).unwrap()
    }

    #[test]
    fn a_name_is_enough() {
        let (name, spec) = cluster(&body()).unwrap();
        assert_eq!(name.as_str(), "mac");
        assert_eq!(spec, ClusterSpec { reach: "{}".into(), ..ClusterSpec::default() });
    }

    #[test]
    fn an_entry_reads_back_as_it_was_written() {
        let full: ClusterBody = serde_json::from_value(serde_json::json!({
            "name": "mac", "dashboard": "http://10.0.0.1:8265", "agent": "ws://10.0.0.1:7420",
            "token": "env:MAC", "weight": 1.2, "prefer": true, "tags": ["arm64", "macos"],
            "labels": {"zone": "a"}, "runtime_env": {"env_vars": {"A": "1"}},
            "max_utilisation": 0.7, "max_tasks": 4, "job_interval_ms": 40_000,
            "lost_after_ms": 5_000, "breaker_failures": 2, "breaker_recovery_ms": 1_000
        }))
        .unwrap();
        let (name, spec) = cluster(&full).unwrap();
        assert_eq!(cluster_body(&name, &spec), full);
    }

    #[test]
    fn every_mistake_is_told_at_once_with_its_field() {
        let wrong: ClusterBody = serde_json::from_value(serde_json::json!({
            "name": "", "dashboard": "10.0.0.1:8265", "agent": "http://10.0.0.1", "token": "hunter2",
            "weight": -1.0, "tags": ["a b"], "labels": {"a b": "x\n"}, "runtime_env": "conda",
            "max_utilisation": 1.5, "max_tasks": 0, "lost_after_ms": 0, "breaker_failures": 0
        }))
        .unwrap();
        let listed = cluster(&wrong).unwrap_err().details.join("\n");
        insta::assert_snapshot!(listed, @r#"
        name: is empty
        dashboard: "10.0.0.1:8265" is not http://HOST:PORT or https://HOST:PORT
        agent: "http://10.0.0.1" is not ws://HOST:PORT or wss://HOST:PORT
        token: must say where the secret is: env:NAME or file:PATH
        runtime_env: must be an object, as Ray's runtime_env is
        weight: is negative
        tags[0]: holds ' '; letters, digits and . _ - : / are allowed
        labels."a b": holds ' '; letters, digits and . _ - : / are allowed
        labels."a b": must be plain text of at most 256 bytes
        max_utilisation: is 1.5; at most 1 is allowed
        max_tasks: must be at least 1
        lost_after_ms: must be at least 1
        breaker_failures: must be at least 1
        "#);
    }
}
