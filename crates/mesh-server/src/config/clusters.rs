//! The file of clusters: YAML, read whole before anything starts, with every mistake at its line.

use std::collections::BTreeMap;
use std::path::Path;

use mesh_api::convert;
use mesh_api::problem::Problem;
use mesh_api::v1::ClusterBody;
use serde::Deserialize;
use serde_json::{Map, Value};
use serde_saphyr::{Location, Spanned};

use super::{Mistake, Origin, problem, table};

/// New work stops above this share of a cluster, unless its entry says otherwise.
const MAX_UTILISATION: f64 = 0.7;

/// What an entry may say besides what the API knows: the address that an agent started by hand, or
/// by an application, connects to. The control plane has no use for it.
const HEAD_ADDRESS: &str = "head_address";

/// What an entry may say.
const FIELDS: [&str; 16] = [
    "name",
    HEAD_ADDRESS,
    "dashboard",
    "agent",
    "token",
    "weight",
    "prefer",
    "tags",
    "labels",
    "runtime_env",
    "max_utilisation",
    "max_tasks",
    "job_interval_ms",
    "lost_after_ms",
    "breaker_failures",
    "breaker_recovery_ms",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    clusters: Vec<Entry>,
}

/// The fields of one cluster, each with its place.
type Entry = Spanned<BTreeMap<String, Spanned<Value>>>;

/// Reads the clusters of a file, or says everything that is wrong with it.
pub(crate) fn clusters(path: &Path) -> Result<Vec<ClusterBody>, Problem> {
    let mut mistakes = Mistakes { path, found: Vec::new() };
    let bodies = match std::fs::read_to_string(path) {
        Ok(text) => mistakes.file(&text),
        Err(error) => {
            mistakes.add(None, format!("can't be read: {error}"));
            Vec::new()
        }
    };
    if mistakes.found.is_empty() { Ok(bodies) } else { Err(problem(mistakes.found)) }
}

struct Mistakes<'a> {
    path: &'a Path,
    found: Vec<Mistake>,
}

impl Mistakes<'_> {
    fn add(&mut self, place: Option<Location>, what: String) {
        let line = place.and_then(|place| usize::try_from(place.line()).ok()).unwrap_or(1);
        self.found.push(Mistake { origin: Origin::File(self.path.to_owned(), line), what });
    }

    fn file(&mut self, text: &str) -> Vec<ClusterBody> {
        let file: File = match serde_saphyr::from_str(text) {
            Ok(file) => file,
            Err(error) => {
                let error = error.without_snippet();
                self.add(error.location(), error.to_string());
                return Vec::new();
            }
        };
        let mut bodies: Vec<ClusterBody> = Vec::new();
        for entry in &file.clusters {
            let Some(body) = self.entry(entry) else { continue };
            if bodies.iter().any(|other| other.name == body.name) {
                let place = entry.value.get("name").map(|name| name.referenced);
                self.add(place, format!("name: there are two clusters called {}", body.name));
            }
            bodies.push(body);
        }
        bodies
    }

    fn entry(&mut self, entry: &Entry) -> Option<ClusterBody> {
        let before = self.found.len();
        let mut fields = Map::new();
        for (name, value) in &entry.value {
            if !FIELDS.contains(&name.as_str()) {
                self.add(Some(value.referenced), unknown(name));
            } else if name != HEAD_ADDRESS {
                fields.insert(name.clone(), value.value.clone());
            }
        }
        let read: Result<ClusterBody, _> = serde_path_to_error::deserialize(Value::Object(fields));
        let mut body = match read {
            Ok(body) => body,
            Err(error) => {
                let path = error.path().to_string();
                let field = if path == "." { String::new() } else { format!("{path}: ") };
                self.add(Some(place(entry, &path)), format!("{field}{}", error.inner()));
                return None;
            }
        };
        body.max_utilisation.get_or_insert(MAX_UTILISATION);
        if let Err(problem) = convert::cluster(&body) {
            for detail in &problem.details {
                self.add(Some(place(entry, detail)), detail.clone());
            }
        }
        (self.found.len() == before).then_some(body)
    }
}

/// Where the field is that a path or a message begins with; the entry itself when it is not there.
fn place(entry: &Entry, path: &str) -> Location {
    let end = path.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(path.len());
    let field = path.get(..end).unwrap_or_default();
    entry.value.get(field).map_or(entry.referenced, |value| value.referenced)
}

fn unknown(name: &str) -> String {
    match table::closest(name, FIELDS) {
        Some(near) => format!("{name} is unknown; did you mean {near}?"),
        None => format!("{name} is unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<ClusterBody>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let name = file.path().to_str().unwrap();
        clusters(file.path()).map_err(|problem| problem.details.join("\n").replace(name, "FILE"))
    }

    #[test]
    fn the_file_of_the_specification_is_read() {
        let bodies = read(
            "clusters:\n  - name: centos\n    head_address: ray-centos.example:6379 # GCS\n    \
             dashboard: http://ray-centos.example:8265\n    prefer: false\n    weight: 1.0\n    \
             tags: [linux, x86_64]\n    runtime_env: {conda: ts, env_vars: {home_dir: /home/x}}\n    \
             token: env:CENTOS_RAY_TOKEN\n  - name: mac\n    prefer: true\n    weight: 1.2\n    \
             max_utilisation: 0.9\n",
        )
        .unwrap();
        let [centos, mac] = bodies.as_slice() else { panic!("{bodies:?}") };
        assert_eq!(centos.dashboard.as_deref(), Some("http://ray-centos.example:8265"));
        assert_eq!((centos.tags.len(), centos.max_utilisation), (2, Some(0.7)));
        let env = centos.runtime_env.as_ref().unwrap();
        assert_eq!(env.pointer("/env_vars/home_dir").and_then(Value::as_str), Some("/home/x"));
        assert_eq!((mac.prefer, mac.weight, mac.max_utilisation), (true, Some(1.2), Some(0.9)));
    }

    #[test]
    fn all_mistakes_are_told_at_once_with_line_and_field() {
        let told = read(
            "clusters:\n  - name: a b\n    wieght: 2\n  - name: c\n    weight: heavy\n  - name: c\n    \
             dashboard: ftp://x\n    max_tasks: 0\n  - weight: 1\n  - name: d\n  - name: d\n",
        )
        .unwrap_err();
        let expected = [
            "FILE:2: name: holds ' '; letters, digits and . _ - : / are allowed",
            "FILE:3: wieght is unknown; did you mean weight?",
            "FILE:5: weight: invalid type: string \"heavy\", expected f64",
            "FILE:7: dashboard: \"ftp://x\" is not http://HOST:PORT or https://HOST:PORT",
            "FILE:8: max_tasks: must be at least 1",
            "FILE:9: missing field `name`",
            "FILE:11: name: there are two clusters called d",
        ];
        assert_eq!(told, expected.join("\n"));
    }

    #[test]
    fn a_file_that_is_no_yaml_is_shown_with_its_line() {
        let why = |text: &str| read(text).unwrap_err();
        assert_eq!(
            why("clusters:\n  - name: [\n"),
            "FILE:2: unclosed bracket '[' at line 2, column 11"
        );
        assert_eq!(
            why("cluster: []\n"),
            "FILE:1: unknown field `cluster`, expected one of clusters at line 1, column 1"
        );
    }
}
