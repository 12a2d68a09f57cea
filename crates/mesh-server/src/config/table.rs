//! Every setting there is: the reference page, `--print-config` and the parser read this table.

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name in the file and, after two dashes, as a flag. As a variable it is
    /// `SCHEDULEMESH_` and the name in capitals with underscores.
    pub key: &'static str,
    /// Its value when nothing is said, as one would write it; empty for none.
    pub default: &'static str,
    /// The form of its values.
    pub form: &'static str,
    /// What it is for.
    pub help: &'static str,
}

const fn setting(
    key: &'static str,
    default: &'static str,
    form: &'static str,
    help: &'static str,
) -> Setting {
    Setting { key, default, form, help }
}

/// Every setting, in the order in which people are shown them.
pub const SETTINGS: &[Setting] = &[
    setting(
        "listen",
        "127.0.0.1:7420",
        "HOST:PORT",
        "Where the server listens; port 0 picks a free one.",
    ),
    setting(
        "state-dir",
        "",
        "DIR",
        "Where it keeps journal, blobs and tokens. Default: $XDG_STATE_HOME/schedulemesh, else ~/.local/state/schedulemesh.",
    ),
    setting(
        "advertise-url",
        "",
        "URL",
        "The address under which agents reach it. Default: where it listens.",
    ),
    setting("insecure-bind", "false", "BOOL", "Allow an address beyond this machine without TLS."),
    setting("tls-cert", "", "FILE", "The certificate chain, as PEM; needs tls-key."),
    setting("tls-key", "", "FILE", "The private key, as PEM; needs tls-cert."),
    setting(
        "queue-max",
        "2000000",
        "COUNT",
        "Most tasks that wait; more are refused with QUEUE_FULL.",
    ),
    setting(
        "retention",
        "24h",
        "DURATION",
        "How long records and results of ended tasks are kept.",
    ),
    setting("ended-max", "1000000", "COUNT", "Most records of ended tasks; the oldest go first."),
    setting(
        "lost-after",
        "30s",
        "DURATION",
        "How long an agent may be silent before its cluster counts as lost, unless the cluster says otherwise.",
    ),
    setting(
        "heartbeat",
        "2s",
        "DURATION",
        "How often both sides of a link say something; four times as long is silence.",
    ),
    setting(
        "allowed-hosts",
        "",
        "NAMES",
        "Host names, comma-separated, under which it may be called besides loopback and advertise-url.",
    ),
    setting(
        "body-max",
        "64MiB",
        "SIZE",
        "Most bytes in a JSON body; larger data travels as a blob.",
    ),
    setting(
        "log-level",
        "info",
        "FILTER",
        "error, warn, info, debug or trace, also by target: info,mesh_server=debug.",
    ),
    setting("log-format", "text", "text|json", "How log lines look."),
    setting(
        "clusters-file",
        "",
        "FILE",
        "A YAML file of clusters that are registered at the start.",
    ),
];

/// Variables of the same prefix that are not settings of the server.
pub(super) const OTHER_VARIABLES: &[&str] = &[
    "ATTEMPT",
    "CLUSTER",
    "CONFIG",
    #[cfg(feature = "failpoints")]
    "FAILPOINTS",
    #[cfg(feature = "failpoints")]
    "FAILPOINTS_COUNTS",
    #[cfg(feature = "bugs")]
    "BUG",
    "INCARNATION",
    "SERVER",
    "TASK",
    "TOKEN",
    "TOKEN_FILE",
    "URL",
];

pub(super) fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The setting that somebody may have meant.
pub(super) fn nearest(key: &str) -> Option<&'static Setting> {
    let key = key.replace('_', "-");
    closest(&key, SETTINGS.iter().map(|setting| setting.key)).and_then(find)
}

/// The word that somebody may have meant.
pub(super) fn closest(
    word: &str,
    known: impl IntoIterator<Item = &'static str>,
) -> Option<&'static str> {
    let distance = |known: &str| strsim::damerau_levenshtein(word, known);
    let near = known.into_iter().min_by_key(|known| distance(known))?;
    (distance(near) <= 2.max(near.len() / 4)).then_some(near)
}

pub(super) fn unknown(key: &str) -> String {
    match nearest(key) {
        Some(near) => format!("{key} is unknown; did you mean {}?", near.key),
        None => format!("{key} is unknown"),
    }
}
