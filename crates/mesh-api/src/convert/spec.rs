//! Specifications of tasks.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_core::model::amount::{Amount, Resources};
use mesh_core::model::id::{ClusterName, TaskId};
use mesh_core::model::label::{Affinity, Otherwise};
use mesh_core::model::priority::Priority;
use mesh_core::model::task::{Kind, OnLost, PythonVersion, Retries, Shape, TaskSpec, Work};
use mesh_core::model::time::Span;
use serde_json::{Map, Value};

use super::{Mistakes, digest, label_rule, resources};
use crate::convert::submit::check_display_name;
use crate::problem::Problem;
use crate::v1::{AffinityBody, RetriesBody, SpecBody, WorkBody};

/// Most bytes of a method's name.
const METHOD_LEN_MAX: usize = 256;
/// Most label rules, or tags of one list, in a specification.
const RULES_MAX: usize = 64;

/// Reads a specification.
pub fn task_spec(body: &SpecBody) -> Result<TaskSpec, Problem> {
    let mut mistakes = Mistakes::default();
    let work = work(&body.work, &mut mistakes);
    let kind = kind_of(&body.work);
    if kind == Kind::Call {
        check_call(body, &mut mistakes);
    }
    let shape = Shape {
        kind,
        resources: wanted(kind, body, &mut mistakes),
        affinity: affinity(&body.affinity, &mut mistakes),
        priority: priority(body.priority, &mut mistakes),
        python: body.python.as_deref().and_then(|text| {
            let version = text.parse::<PythonVersion>();
            mistakes.keep(
                "python",
                version.map_err(|_why| format!("{text:?} is no version such as 3.11")),
            )
        }),
        runtime_env: runtime_env("runtime_env", body.runtime_env.as_ref(), &mut mistakes),
    };
    let title = body.title.as_deref().filter(|title| !title.is_empty());
    if let Some(title) = title {
        check_display_name("title", title, &mut mistakes);
    }
    let spec = TaskSpec {
        title: title.map(Into::into),
        work: work.unwrap_or(Work::Job),
        shape,
        retries: retries(kind, &body.retries, &mut mistakes),
        timeout: timeout(body.timeout_ms, &mut mistakes),
        on_lost: on_lost(kind, body.on_lost.as_deref(), &mut mistakes),
        wait_for_growth: body.wait_for_growth,
    };
    mistakes.verdict("the specification").map(|()| spec)
}

/// Writes where a task may run.
pub fn affinity_body(affinity: &Affinity) -> AffinityBody {
    let words = |tags: &BTreeSet<mesh_core::model::id::Tag>| {
        tags.iter().map(|tag| tag.as_str().to_owned()).collect()
    };
    AffinityBody {
        required: words(&affinity.required),
        preferred: words(&affinity.preferred),
        avoided: words(&affinity.avoided),
        labels: affinity.labels.iter().map(ToString::to_string).collect(),
        cluster: affinity.cluster.clone().map(String::from),
        cluster_only: affinity.otherwise == Otherwise::Wait,
    }
}

fn kind_of(work: &WorkBody) -> Kind {
    match work {
        WorkBody::Function { .. } => Kind::Function,
        WorkBody::Actor { .. } => Kind::Actor,
        WorkBody::Call { .. } => Kind::Call,
        WorkBody::Job => Kind::Job,
    }
}

fn work(body: &WorkBody, mistakes: &mut Mistakes) -> Option<Work> {
    let code = |field: &str, text: &str, mistakes: &mut Mistakes| {
        mistakes.keep(field, digest(text).map_err(|problem| problem.message))
    };
    match body {
        WorkBody::Function { code: text } => {
            code("work.function.code", text, mistakes).map(Work::Function)
        }
        WorkBody::Actor { code: text } => code("work.actor.code", text, mistakes).map(Work::Actor),
        WorkBody::Call { actor, method } => {
            let field = "work.call.method";
            if method.is_empty() || method.len() > METHOD_LEN_MAX {
                let size = method.len();
                mistakes.add(field, format!("has {size} bytes, 1 to {METHOD_LEN_MAX} are allowed"));
            }
            let read = actor.parse::<TaskId>().map_err(|error| format!("{actor:?}: {error}"));
            let actor = mistakes.keep("work.call.actor", read)?;
            Some(Work::Call { actor, method: method.as_str().into() })
        }
        WorkBody::Job => Some(Work::Job),
    }
}

/// A call goes where its actor is and uses what its actor holds.
fn check_call(body: &SpecBody, mistakes: &mut Mistakes) {
    if body.resources.as_ref().is_some_and(|asked| asked.values().any(|units| *units > 0.0)) {
        mistakes.add("resources", "a call uses the resources of its actor");
    }
    if body.affinity != AffinityBody::default() {
        mistakes.add("affinity", "a call runs where its actor is");
    }
    if body.runtime_env.is_some() {
        mistakes.add("runtime_env", "a call runs in the environment of its actor");
    }
}

fn wanted(kind: Kind, body: &SpecBody, mistakes: &mut Mistakes) -> Resources {
    match &body.resources {
        Some(asked) => resources("resources", asked, mistakes),
        None if kind == Kind::Function => Resources::cpus(Amount::whole(1)),
        None => Resources::NONE,
    }
}

fn priority(value: Option<f64>, mistakes: &mut Mistakes) -> Priority {
    value.map_or(Priority::DEFAULT, |value| mistakes.take("priority", Priority::try_from(value)))
}

fn tags(
    field: &str,
    words: &[String],
    mistakes: &mut Mistakes,
) -> BTreeSet<mesh_core::model::id::Tag> {
    check_count(field, words.len(), mistakes);
    let read =
        |(index, word): (usize, &String)| mistakes.keep(&format!("{field}[{index}]"), word.parse());
    words.iter().enumerate().filter_map(read).collect()
}

fn check_count(field: &str, count: usize, mistakes: &mut Mistakes) {
    if count > RULES_MAX {
        mistakes.add(field, format!("has {count} entries, {RULES_MAX} are allowed"));
    }
}

fn affinity(body: &AffinityBody, mistakes: &mut Mistakes) -> Affinity {
    check_count("affinity.labels", body.labels.len(), mistakes);
    let mut labels = Vec::with_capacity(body.labels.len());
    for (index, text) in body.labels.iter().enumerate() {
        labels.extend(mistakes.keep(&format!("affinity.labels[{index}]"), label_rule(text)));
    }
    labels.sort();
    labels.dedup();
    let cluster = body.cluster.as_deref();
    let cluster =
        cluster.and_then(|name| mistakes.keep("affinity.cluster", name.parse::<ClusterName>()));
    if body.cluster_only && body.cluster.is_none() {
        mistakes.add("affinity.cluster_only", "needs affinity.cluster");
    }
    Affinity {
        required: tags("affinity.required", &body.required, mistakes),
        preferred: tags("affinity.preferred", &body.preferred, mistakes),
        avoided: tags("affinity.avoided", &body.avoided, mistakes),
        labels,
        cluster,
        otherwise: if body.cluster_only { Otherwise::Wait } else { Otherwise::Elsewhere },
    }
}

/// Reads a runtime environment into the JSON text that Ray is given.
pub(super) fn runtime_env(
    field: &str,
    value: Option<&Value>,
    mistakes: &mut Mistakes,
) -> Option<Arc<str>> {
    let value = value.filter(|value| !value.is_null())?;
    let Some(env) = value.as_object() else {
        mistakes.add(field, "must be an object, as Ray's runtime_env is");
        return None;
    };
    check_places(field, env, mistakes);
    Some(value.to_string().into())
}

/// Finds folders of the submitter's machine, which no cluster can see.
fn check_places(field: &str, env: &Map<String, Value>, mistakes: &mut Mistakes) {
    let modules = env.get("py_modules").and_then(Value::as_array).into_iter().flatten();
    let modules = modules.map(|module| ("py_modules", module));
    let folder = env.get("working_dir").map(|folder| ("working_dir", folder));
    for (key, place) in folder.into_iter().chain(modules) {
        if let Some(path) = place.as_str().filter(|path| !path.contains("://")) {
            let way_out = "give the URI of an archive, or submit from Python, which ships folders";
            let what = format!("{path:?} is a path, which clusters cannot see; {way_out}");
            mistakes.add(&format!("{field}.{key}"), what);
        }
    }
}

fn retries(kind: Kind, body: &RetriesBody, mistakes: &mut Mistakes) -> Retries {
    let usual = Retries::default();
    let backoff = body.backoff_ms.map_or(usual.backoff, Span::from_millis);
    let backoff_max = body.backoff_max_ms.map_or(usual.backoff_max.max(backoff), Span::from_millis);
    if backoff_max < backoff {
        mistakes.add("retries.backoff_max_ms", format!("is shorter than backoff_ms, {backoff}"));
    }
    Retries {
        lost: body.lost.unwrap_or(if kind == Kind::Function { usual.lost } else { 0 }),
        raised: body.raised.unwrap_or(usual.raised),
        backoff,
        backoff_max,
    }
}

fn timeout(millis: Option<u64>, mistakes: &mut Mistakes) -> Option<Span> {
    if millis == Some(0) {
        mistakes.add("timeout_ms", "is 0; leave it out for no limit");
    }
    millis.map(Span::from_millis)
}

fn on_lost(kind: Kind, word: Option<&str>, mistakes: &mut Mistakes) -> OnLost {
    match (word, kind) {
        (Some("replace"), _) | (None, Kind::Function) => OnLost::Replace,
        (Some("wait"), _) | (None, Kind::Job) => OnLost::Wait,
        (Some("fail"), _) | (None, Kind::Actor | Kind::Call) => OnLost::Fail,
        (Some(other), _) => {
            mistakes.add("on_lost", format!("{other:?} is none of replace, wait, fail"));
            OnLost::Fail
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mesh_core::model::label::LabelTest;

    use super::*;

    fn function() -> SpecBody {
        SpecBody {
            title: None,
            work: WorkBody::Function { code: "ab".repeat(32) },
            resources: None,
            priority: None,
            affinity: AffinityBody::default(),
            retries: RetriesBody::default(),
            timeout_ms: None,
            on_lost: None,
            wait_for_growth: false,
            python: None,
            runtime_env: None,
        }
    }

    fn mistakes(body: &SpecBody) -> Vec<String> {
        task_spec(body).unwrap_err().details
    }

    #[test]
    fn what_is_left_out_has_the_documented_default() {
        let spec = task_spec(&function()).unwrap();
        assert_eq!(spec.shape.resources.to_string(), "CPU=1");
        assert_eq!(spec.shape.priority, Priority::DEFAULT);
        assert_eq!((spec.retries.lost, spec.retries.raised), (3, 0));
        assert_eq!(spec.on_lost, OnLost::Replace);

        let actor = SpecBody { work: WorkBody::Actor { code: "cd".repeat(32) }, ..function() };
        let spec = task_spec(&actor).unwrap();
        assert!(spec.shape.resources.is_none());
        assert_eq!((spec.retries.lost, spec.on_lost), (0, OnLost::Fail));

        let job = SpecBody { work: WorkBody::Job, ..function() };
        assert_eq!(task_spec(&job).unwrap().on_lost, OnLost::Wait);
    }

    #[test]
    fn every_mistake_is_told_at_once_with_its_field() {
        let body = SpecBody {
            title: None,
            work: WorkBody::Function { code: "xyz".into() },
            resources: Some(BTreeMap::from([
                ("CPU".to_owned(), -1.0),
                ("bad name".to_owned(), 1.0),
            ])),
            priority: Some(f64::NAN),
            affinity: AffinityBody {
                required: vec!["ok".into(), String::new()],
                labels: vec!["arch".into()],
                cluster_only: true,
                ..AffinityBody::default()
            },
            retries: RetriesBody {
                backoff_ms: Some(5_000),
                backoff_max_ms: Some(1_000),
                ..RetriesBody::default()
            },
            timeout_ms: Some(0),
            on_lost: Some("shrug".into()),
            python: Some("three".into()),
            runtime_env: Some(serde_json::json!([1])),
            ..function()
        };
        let listed = mistakes(&body).join("\n");
        insta::assert_snapshot!(listed, @r#"
        work.function.code: "xyz" is not a BLAKE3 digest
        resources.CPU: is negative
        resources.bad name: holds ' '; letters, digits and . _ - : / are allowed
        affinity.labels[0]: "arch" is no rule; write `arch=arm64`, `arch!=arm64`, `zone in (a, b)`, `zone not in (a, b)`, `gpu exists`, `gpu does not exist`, `gen > 7` or `gen < 7`
        affinity.cluster_only: needs affinity.cluster
        affinity.required[1]: is empty
        priority: a priority must be a finite number
        python: "three" is no version such as 3.11
        runtime_env: must be an object, as Ray's runtime_env is
        retries.backoff_max_ms: is shorter than backoff_ms, 5 s
        timeout_ms: is 0; leave it out for no limit
        on_lost: "shrug" is none of replace, wait, fail
        "#);
    }

    #[test]
    fn folders_of_the_submitter_are_no_part_of_an_environment() {
        let body = SpecBody {
            runtime_env: Some(serde_json::json!({
                "working_dir": ".", "py_modules": ["s3://code/a.zip", "/home/x/pkg"],
            })),
            ..function()
        };
        let listed = mistakes(&body).join("\n");
        insta::assert_snapshot!(listed, @r#"
        runtime_env.working_dir: "." is a path, which clusters cannot see; give the URI of an archive, or submit from Python, which ships folders
        runtime_env.py_modules: "/home/x/pkg" is a path, which clusters cannot see; give the URI of an archive, or submit from Python, which ships folders
        "#);
    }

    #[test]
    fn a_call_takes_everything_from_its_actor() {
        let call = WorkBody::Call { actor: "t7".into(), method: "add".into() };
        let body = SpecBody {
            title: None,
            work: call.clone(),
            resources: Some(BTreeMap::from([("CPU".to_owned(), 1.0)])),
            affinity: AffinityBody { cluster: Some("a".into()), ..AffinityBody::default() },
            ..function()
        };
        assert_eq!(
            mistakes(&body),
            [
                "resources: a call uses the resources of its actor",
                "affinity: a call runs where its actor is"
            ]
        );
        let spec = task_spec(&SpecBody { work: call, ..function() }).unwrap();
        assert_eq!(spec.work, Work::Call { actor: TaskId(7), method: "add".into() });
        let nobody = WorkBody::Call { actor: "x".into(), method: String::new() };
        assert_eq!(
            mistakes(&SpecBody { work: nobody, ..function() }),
            [
                "work.call.method: has 0 bytes, 1 to 256 are allowed",
                "work.call.actor: \"x\": a task id looks like t42"
            ]
        );
    }

    #[test]
    fn affinities_read_back_as_they_were_written() {
        let body = AffinityBody {
            required: vec!["gpu".into(), "linux".into()],
            preferred: vec!["cheap".into()],
            avoided: vec!["spot".into()],
            labels: vec!["arch in (arm64)".into(), "gen > 7".into()],
            cluster: Some("mac".into()),
            cluster_only: true,
        };
        let spec = task_spec(&SpecBody { affinity: body.clone(), ..function() }).unwrap();
        assert_eq!(affinity_body(&spec.shape.affinity), body);
        assert!(matches!(spec.shape.affinity.labels[0].test, LabelTest::In(_)));
    }
}
