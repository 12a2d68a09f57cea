//! `schedulemesh submit`.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use mesh_api::v1::{AffinityBody, JobBody, RetriesBody, SpecBody, WorkBody};
use mesh_core::model::id::NAME_LEN_MAX;

/// `schedulemesh submit`.
#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
#[command(after_help = "\
Examples:
  schedulemesh submit -- python train.py --lr 1e-3
  schedulemesh submit --cpus 4 --gpus 1 --memory 8GiB --tag gpu --wait -- python train.py
  schedulemesh submit --label 'arch in (arm64, x86_64)' --label 'gen > 7' -- ./bench.sh
  schedulemesh submit --dry-run --cpus 64 -- true      which cluster would take it, and why
  schedulemesh submit --key nightly-2026-11-23 -- python etl.py      the same key runs once

The command runs on the head node of the cluster that is chosen, in Ray's runtime environment.")]
pub struct SubmitArgs {
    /// Cores to reserve for the job
    #[arg(long, value_name = "N", value_parser = number, help_heading = "What it needs")]
    pub cpus: Option<f64>,
    /// GPUs to reserve
    #[arg(long, value_name = "N", value_parser = number, help_heading = "What it needs")]
    pub gpus: Option<f64>,
    /// Memory to reserve, such as 8GiB
    #[arg(long, value_name = "SIZE", value_parser = crate::units::size, help_heading = "What it needs")]
    pub memory: Option<u64>,
    /// A custom resource to reserve; may be repeated
    #[arg(long = "resource", value_name = "NAME=N", value_parser = amount, help_heading = "What it needs")]
    pub resources: Vec<(String, f64)>,
    /// Queue it although no cluster could hold it as they are now
    #[arg(long, help_heading = "What it needs")]
    pub wait_for_growth: bool,

    /// A tag that the cluster must have; may be repeated
    #[arg(long = "tag", value_name = "TAG", help_heading = "Where it runs")]
    pub tags: Vec<String>,
    /// A tag that makes a cluster more welcome
    #[arg(long = "prefer-tag", value_name = "TAG", help_heading = "Where it runs")]
    pub prefer_tags: Vec<String>,
    /// A tag that the cluster must not have
    #[arg(long = "avoid-tag", value_name = "TAG", help_heading = "Where it runs")]
    pub avoid_tags: Vec<String>,
    /// A rule on node labels, such as `arch=arm64` or `zone in (a, b)`; may be repeated
    #[arg(long = "label", value_name = "RULE", help_heading = "Where it runs")]
    pub labels: Vec<String>,
    /// The cluster that is wanted; another one is taken while it is unhealthy
    #[arg(long, value_name = "NAME", help_heading = "Where it runs")]
    pub cluster: Option<String>,
    /// Take no other cluster, even when that one is unhealthy
    #[arg(long, requires = "cluster", help_heading = "Where it runs")]
    pub cluster_only: bool,

    /// The larger number goes first [default: 5]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = number, help_heading = "How it runs")]
    pub priority: Option<f64>,
    /// Stop an attempt that runs longer, such as 2h
    #[arg(long, value_name = "TIME", value_parser = crate::units::duration, help_heading = "How it runs")]
    pub timeout: Option<Duration>,
    /// Try again so often, after a failure or a loss [default: 0]
    #[arg(long, value_name = "N", help_heading = "How it runs")]
    pub retries: Option<u16>,
    /// An environment variable of the job; may be repeated
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = pair, help_heading = "How it runs")]
    pub env: Vec<(String, String)>,
    /// Ray's runtime environment as JSON, or @FILE
    #[arg(long, value_name = "JSON", value_parser = runtime_env, help_heading = "How it runs")]
    pub runtime_env: Option<serde_json::Map<String, serde_json::Value>>,

    /// A name for people
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// An idempotency key: the same key is accepted once [default: a new UUID]
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Wait until it has ended; exit code 1 when it failed
    #[arg(short, long)]
    pub wait: bool,
    /// Wait and print what it prints
    #[arg(short, long)]
    pub follow: bool,
    /// Say where it would go and why, and change nothing
    #[arg(long, conflicts_with_all = ["wait", "follow", "key"])]
    pub dry_run: bool,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", required = true, last = true)]
    pub entrypoint: Vec<String>,
}

impl SubmitArgs {
    /// What is asked for, apart from the command.
    pub fn spec(&self) -> SpecBody {
        SpecBody {
            title: self.title(),
            work: WorkBody::Job,
            resources: Some(self.all_resources()),
            priority: self.priority,
            affinity: AffinityBody {
                required: self.tags.clone(),
                preferred: self.prefer_tags.clone(),
                avoided: self.avoid_tags.clone(),
                labels: self.labels.clone(),
                cluster: self.cluster.clone(),
                cluster_only: self.cluster_only,
            },
            retries: RetriesBody {
                lost: self.retries,
                raised: self.retries,
                ..RetriesBody::default()
            },
            timeout_ms: self
                .timeout
                .map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            on_lost: None,
            wait_for_growth: self.wait_for_growth,
            python: None,
            runtime_env: None,
        }
    }

    /// The command as people recognise it: its beginning, on one line.
    fn title(&self) -> Option<String> {
        let command = self.entrypoint.join(" ").replace(char::is_control, " ");
        let end = command.floor_char_boundary(NAME_LEN_MAX);
        command.get(..end).map(str::to_owned)
    }

    /// The job itself.
    pub fn job(&self) -> JobBody {
        JobBody {
            entrypoint: shell_line(&self.entrypoint),
            runtime_env: self.merged_env().map(serde_json::Value::Object),
            metadata: BTreeMap::new(),
        }
    }

    fn all_resources(&self) -> BTreeMap<String, f64> {
        let named = [("CPU", self.cpus), ("GPU", self.gpus)];
        let memory = self.memory.map(exact);
        named
            .into_iter()
            .chain([("memory", memory)])
            .filter_map(|(name, amount)| Some((name.to_owned(), amount?)))
            .chain(self.resources.iter().cloned())
            .collect()
    }

    /// The runtime environment with the variables of `--env` in it; nothing when nothing was said,
    /// so that the cluster's own applies.
    fn merged_env(&self) -> Option<serde_json::Map<String, serde_json::Value>> {
        if self.env.is_empty() {
            return self.runtime_env.clone();
        }
        let mut merged = self.runtime_env.clone().unwrap_or_default();
        let variables = merged.entry("env_vars").or_insert_with(|| serde_json::json!({}));
        if let Some(variables) = variables.as_object_mut() {
            for (name, value) in &self.env {
                variables.insert(name.clone(), value.clone().into());
            }
        }
        Some(merged)
    }
}

/// Bytes as the number that JSON carries; sizes above 2^53 bytes lose their last digits.
#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "see the doc comment")]
fn exact(bytes: u64) -> f64 {
    bytes as f64
}

/// One argument is a shell line already; several are quoted so that each arrives as it was typed.
fn shell_line(words: &[String]) -> String {
    match words {
        [line] => line.clone(),
        words => words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
    }
}

fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./=:,+@%".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Reads `NAME=VALUE`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        Some(_) | None => Err("expected NAME=VALUE".into()),
    }
}

fn amount(text: &str) -> Result<(String, f64), String> {
    let (name, value) = pair(text)?;
    Ok((name, number(&value)?))
}

/// Reads a number that JSON can carry: neither infinite nor `nan`.
pub(super) fn number(text: &str) -> Result<f64, String> {
    let finite = text.parse().ok().filter(|number: &f64| number.is_finite());
    finite.ok_or_else(|| format!("{text:?} is not a number"))
}

fn runtime_env(text: &str) -> Result<serde_json::Map<String, serde_json::Value>, String> {
    let json = match text.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?,
        None => text.to_owned(),
    };
    let map: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&json).map_err(|error| format!("not a JSON object: {error}"))?;
    match map.get("env_vars") {
        Some(variables) if !variables.is_object() => Err("env_vars must be an object".into()),
        Some(_) | None => Ok(map),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn parse(line: &[&str]) -> SubmitArgs {
        let words = ["schedulemesh", "submit"].iter().chain(line);
        match Cli::try_parse_from(words).expect("parses").command {
            Command::Submit(args) => *args,
            other => panic!("parsed as {other:?}"),
        }
    }

    #[test]
    fn words_reach_the_shell_as_they_were_typed() {
        let line =
            |words: &[&str]| shell_line(&words.iter().map(|&w| w.into()).collect::<Vec<_>>());
        assert_eq!(line(&["python train.py | tee log"]), "python train.py | tee log");
        assert_eq!(line(&["python", "-c", "print('a b')"]), r"python -c 'print('\''a b'\'')'");
        assert_eq!(line(&["touch", "", "$HOME"]), "touch '' '$HOME'");
    }

    #[test]
    fn flags_become_the_body_of_the_api() {
        let args = parse(&[
            "--cpus",
            "0.5",
            "--memory",
            "1GiB",
            "--resource",
            "tpu=2",
            "--tag",
            "gpu",
            "--label",
            "arch=arm64",
            "--priority",
            "-1",
            "--timeout",
            "2m",
            "--retries",
            "2",
            "--",
            "true",
        ]);
        let spec = serde_json::to_string(&args.spec()).expect("serialises");
        insta::assert_snapshot!(spec, @r#"{"title":"true","work":"job","resources":{"CPU":0.5,"memory":1073741824.0,"tpu":2.0},"priority":-1.0,"affinity":{"required":["gpu"],"labels":["arch=arm64"],"cluster_only":false},"retries":{"lost":2,"raised":2},"timeout_ms":120000,"wait_for_growth":false}"#);
    }

    #[test]
    fn variables_join_the_runtime_environment() {
        let env = r#"{"pip": ["numpy"], "env_vars": {"A": "1"}}"#;
        let args = parse(&["--runtime-env", env, "--env", "B=2=3", "--", "env"]);
        let job = serde_json::to_string(&args.job()).expect("serialises");
        insta::assert_snapshot!(job, @r#"{"entrypoint":"env","runtime_env":{"env_vars":{"A":"1","B":"2=3"},"pip":["numpy"]}}"#);
        assert_eq!(parse(&["--", "env"]).job().runtime_env, None);
    }

    #[test]
    fn bad_values_say_what_was_expected() {
        for (flag, value, expected) in [
            ("--resource", "tpu", "expected NAME=VALUE"),
            ("--resource", "tpu=many", "\"many\" is not a number"),
            ("--priority", "nan", "\"nan\" is not a number"),
            ("--cpus", "inf", "\"inf\" is not a number"),
            ("--runtime-env", "[]", "not a JSON object"),
            ("--runtime-env", r#"{"env_vars": 3}"#, "env_vars must be an object"),
            ("--memory", "8 apples", "expected a size"),
            ("--timeout", "soon", "expected a time"),
        ] {
            let words = ["schedulemesh", "submit", flag, value, "--", "true"];
            let error = Cli::try_parse_from(words).expect_err(value).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
