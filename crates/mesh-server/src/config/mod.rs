//! Configuration: one struct, resolved once from defaults < file < environment < flags, with the
//! origin of every value kept and every mistake reported at once. Nothing else in this crate reads
//! the environment.

mod clusters;
mod file;
mod table;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_api::problem::Problem;
use mesh_api::v1::{ConfigView, SettingView};

pub(crate) use clusters::clusters;
pub use table::{SETTINGS, Setting};
pub use value::{HostPort, LogFormat};

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens.
    pub listen: HostPort,
    /// Where it keeps everything.
    pub state_dir: PathBuf,
    /// The address under which agents reach it, when that is not where it listens.
    pub advertise_url: Option<String>,
    /// Whether it may listen beyond this machine without TLS.
    pub insecure_bind: bool,
    /// Certificate chain and private key, as PEM files.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Most tasks that wait.
    pub queue_max: usize,
    /// How long the records of ended tasks are kept.
    pub retention: Duration,
    /// Most records of ended tasks.
    pub ended_max: usize,
    /// How long an agent may be silent before its cluster counts as lost, unless the cluster says otherwise.
    pub lost_after: Duration,
    /// How often both sides of a link say something.
    pub heartbeat: Duration,
    /// Host names, besides those of loopback and of the advertised address, under which it may be called.
    pub allowed_hosts: Vec<String>,
    /// Most bytes in a JSON body.
    pub body_max: usize,
    /// What is logged, in the syntax of `tracing`'s filters.
    pub log_level: String,
    /// How it is logged.
    pub log_format: LogFormat,
    /// Clusters that are registered at the start.
    pub clusters_file: Option<PathBuf>,
    /// Whether the server lives in somebody's program, and ends with that.
    pub embedded: bool,
    settings: Vec<SettingView>,
}

/// Where values come from, before they are read.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Values given on the command line: key and text.
    pub flags: Vec<(String, String)>,
    /// The file named on the command line.
    pub config: Option<PathBuf>,
    /// The environment, all of it.
    pub environment: Vec<(String, String)>,
}

impl Sources {
    /// These flags, and the environment of this process.
    pub fn of_process(flags: Vec<(String, String)>, config: Option<PathBuf>) -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { flags, config, environment }
    }

    fn variable(&self, name: &str) -> Option<&str> {
        let found = self.environment.iter().find(|(known, _value)| known == name);
        found.map(|(_name, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A line of a file.
    File(PathBuf, usize),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => out.write_str("default"),
            Self::File(path, line) => write!(out, "{}:{line}", path.display()),
            Self::Variable(name) => out.write_str(name),
            Self::Flag(flag) => out.write_str(flag),
        }
    }
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Mistake {
    origin: Origin,
    what: String,
}

/// The text of every setting and where it came from.
type Values = BTreeMap<&'static str, (String, Origin)>;

impl Config {
    /// Reads every layer, or says everything that is wrong, as a problem `CONFIG_INVALID`.
    pub fn resolve(sources: &Sources) -> Result<Self, Problem> {
        let mut mistakes = Vec::new();
        let values = layer(sources, &mut mistakes);
        let config = Reader { values: &values, mistakes: &mut mistakes }.config();
        match config {
            Some(config) if mistakes.is_empty() => Ok(config),
            Some(_) | None => Err(problem(mistakes)),
        }
    }

    /// Defaults in a state directory of one's own, on a free port of loopback: for embedding a
    /// server and for tests.
    pub fn embedded(state_dir: &Path) -> Result<Self, Problem> {
        let flag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let dir = state_dir.to_string_lossy();
        let flags = vec![flag("listen", "127.0.0.1:0"), flag("state-dir", &dir)];
        Self::resolve(&Sources { flags, ..Sources::default() })
    }

    /// The same, as far as the environment of this process and the file in the directory do not say
    /// otherwise: for a server in a user's own program, which clusters elsewhere may have to reach.
    /// `port` is where it listens on loopback, 0 for a free one.
    pub fn embedded_in_process(state_dir: &Path, port: u16) -> Result<Self, Problem> {
        let dir = state_dir.to_string_lossy().into_owned();
        let mut sources = Sources::of_process(vec![("state-dir".to_owned(), dir)], None);
        if sources.variable("SCHEDULEMESH_LISTEN").is_none() {
            sources.flags.push(("listen".to_owned(), format!("127.0.0.1:{port}")));
        }
        Ok(Self { embedded: true, ..Self::resolve(&sources)? })
    }

    /// Every setting with its value and origin, in the order of the table.
    pub fn view(&self) -> ConfigView {
        ConfigView { settings: self.settings.clone() }
    }
}

/// The directory that a server keeps its state in when nothing is said: `SCHEDULEMESH_STATE_DIR`,
/// else `$XDG_STATE_HOME/schedulemesh`, else `~/.local/state/schedulemesh`.
pub fn default_state_dir(sources: &Sources) -> PathBuf {
    if let Some(dir) = sources.variable("SCHEDULEMESH_STATE_DIR") {
        return dir.into();
    }
    if let Some(dir) = sources.variable("XDG_STATE_HOME") {
        return Path::new(dir).join("schedulemesh");
    }
    let home = sources.variable("HOME").unwrap_or(".");
    Path::new(home).join(".local/state/schedulemesh")
}

fn problem(mut mistakes: Vec<Mistake>) -> Problem {
    mistakes.sort();
    let count = mistakes.len();
    let plural = if count == 1 { "mistake" } else { "mistakes" };
    Problem {
        details: mistakes.iter().map(|m| format!("{}: {}", m.origin, m.what)).collect(),
        ..Problem::new(
            "CONFIG_INVALID",
            format!("the configuration has {count} {plural}"),
            "see every setting with `schedulemesh serve --print-config`",
        )
    }
}

/// Puts the layers on each other: the last one that says something wins.
fn layer(sources: &Sources, mistakes: &mut Vec<Mistake>) -> Values {
    let default = |setting: &Setting| (setting.default.to_owned(), Origin::Default);
    let mut values: Values =
        SETTINGS.iter().map(|setting| (setting.key, default(setting))).collect();
    let state_dir = default_state_dir(sources).to_string_lossy().into_owned();
    values.insert("state-dir", (state_dir, Origin::Default));

    let from_flags = flags(sources, mistakes);
    let from_environment = environment(sources, mistakes);
    // The default place of the file depends on the state directory, which only the layers above
    // the file can move.
    let mut upper = from_environment;
    upper.extend(from_flags);
    let state_dir = upper.get("state-dir").or_else(|| values.get("state-dir"));
    let state_dir = state_dir.map(|(dir, _origin)| PathBuf::from(dir)).unwrap_or_default();
    values.extend(file::read(sources, &state_dir, mistakes));
    values.extend(upper);
    values
}

fn environment(sources: &Sources, mistakes: &mut Vec<Mistake>) -> Values {
    let mut values = Values::new();
    for (name, value) in &sources.environment {
        let Some(rest) = name.strip_prefix("SCHEDULEMESH_") else { continue };
        if value.is_empty() || table::OTHER_VARIABLES.contains(&rest) {
            continue;
        }
        let key = rest.to_ascii_lowercase().replace('_', "-");
        let origin = Origin::Variable(name.clone());
        match table::find(&key) {
            Some(setting) => drop(values.insert(setting.key, (value.clone(), origin))),
            // Other programs may have variables of this prefix. Only what looks like a slip counts.
            None => {
                if let Some(near) = table::nearest(&key) {
                    let near = near.key.to_ascii_uppercase().replace('-', "_");
                    let what = format!("is unknown; did you mean SCHEDULEMESH_{near}?");
                    mistakes.push(Mistake { origin, what });
                }
            }
        }
    }
    values
}

fn flags(sources: &Sources, mistakes: &mut Vec<Mistake>) -> Values {
    let mut values = Values::new();
    for (key, value) in &sources.flags {
        let origin = Origin::Flag(format!("--{key}"));
        match table::find(key) {
            Some(setting) => drop(values.insert(setting.key, (value.clone(), origin))),
            None => mistakes.push(Mistake { origin, what: table::unknown(key) }),
        }
    }
    values
}

/// Turns text into values and collects what can't be.
struct Reader<'a> {
    values: &'a Values,
    mistakes: &'a mut Vec<Mistake>,
}

impl Reader<'_> {
    fn config(&mut self) -> Option<Config> {
        let tls = self.tls();
        let listen = self.get("listen", value::host_port);
        let state_dir = self.get("state-dir", value::path);
        let advertise_url = self.optional("advertise-url", value::url);
        let insecure_bind = self.get("insecure-bind", value::switch);
        let queue_max = self.get("queue-max", value::count);
        let retention = self.get("retention", value::duration);
        let ended_max = self.get("ended-max", value::count);
        let (heartbeat, lost_after) = self.silence();
        let allowed_hosts = self.get("allowed-hosts", value::hosts);
        let body_max = self.get("body-max", value::size);
        let log_level = self.get("log-level", value::log_level);
        let log_format = self.get("log-format", value::log_format);
        let clusters_file = self.optional("clusters-file", value::path);
        Some(Config {
            listen: listen?,
            state_dir: state_dir?,
            advertise_url,
            insecure_bind: insecure_bind?,
            tls,
            queue_max: queue_max?,
            retention: retention?,
            ended_max: ended_max?,
            lost_after: lost_after?,
            heartbeat: heartbeat?,
            allowed_hosts: allowed_hosts?,
            body_max: body_max?,
            log_level: log_level?,
            log_format: log_format?,
            clusters_file,
            embedded: false,
            settings: self.settings(),
        })
    }

    fn get<T>(&mut self, key: &str, parse: value::Parse<T>) -> Option<T> {
        let (text, origin) = self.values.get(key)?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(why) => {
                let what = format!("{key} = {text:?} {why}");
                self.mistakes.push(Mistake { origin: origin.clone(), what });
                None
            }
        }
    }

    fn optional<T>(&mut self, key: &str, parse: value::Parse<T>) -> Option<T> {
        let (text, _origin) = self.values.get(key)?;
        if text.is_empty() { None } else { self.get(key, parse) }
    }

    fn tls(&mut self) -> Option<(PathBuf, PathBuf)> {
        let cert = self.optional("tls-cert", value::file);
        let key = self.optional("tls-key", value::file);
        for (have, lack) in [("tls-cert", "tls-key"), ("tls-key", "tls-cert")] {
            if self.is_said(have) && !self.is_said(lack) {
                self.blame(have, format!("{have} is of no use without {lack}"));
            }
        }
        cert.zip(key)
    }

    /// A link is silent after four heartbeats; a cluster must not count as lost before that.
    fn silence(&mut self) -> (Option<Duration>, Option<Duration>) {
        let heartbeat = self.get("heartbeat", value::heartbeat);
        let lost_after = self.get("lost-after", value::duration);
        if let (Some(beat), Some(silence)) = (heartbeat, lost_after)
            && silence < beat * 4
        {
            let guilty = if self.is_default("lost-after") { "heartbeat" } else { "lost-after" };
            let (silence, least) = (value::show_duration(silence), value::show_duration(beat * 4));
            self.blame(
                guilty,
                format!("lost-after = {silence} is less than 4 heartbeats, {least}"),
            );
        }
        (heartbeat, lost_after)
    }

    fn is_said(&self, key: &str) -> bool {
        self.values.get(key).is_some_and(|(text, _origin)| !text.is_empty())
    }

    fn is_default(&self, key: &str) -> bool {
        self.values.get(key).is_none_or(|(_text, origin)| *origin == Origin::Default)
    }

    fn blame(&mut self, key: &str, what: String) {
        let origin = self.values.get(key).map_or(Origin::Default, |(_text, origin)| origin.clone());
        self.mistakes.push(Mistake { origin, what });
    }

    fn settings(&self) -> Vec<SettingView> {
        let view = |setting: &Setting| {
            let (value, origin) = self.values.get(setting.key)?;
            Some(SettingView {
                key: setting.key.to_owned(),
                value: value.clone(),
                origin: origin.to_string(),
            })
        };
        SETTINGS.iter().filter_map(view).collect()
    }
}

#[cfg(test)]
mod tests;
