use super::*;

fn sources(
    file: &str,
    environment: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> (tempfile::TempDir, Sources) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.toml"), file).unwrap();
    let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let mut environment = own(environment);
    let place = dir.path().to_str().unwrap().to_owned();
    environment.push(("SCHEDULEMESH_STATE_DIR".into(), place));
    (dir, Sources { flags: own(flags), config: None, environment })
}

/// What is wrong, with the directory of the test cut out.
fn mistakes(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> String {
    let (dir, sources) = sources(file, environment, flags);
    let problem = Config::resolve(&sources).unwrap_err();
    assert_eq!(problem.code, "CONFIG_INVALID");
    let place = dir.path().to_str().unwrap();
    problem.to_string().replace(place, "DIR")
}

#[test]
fn the_last_layer_that_says_something_wins_and_its_origin_is_known() {
    let file = "queue-max = 10\nretention = \"1h30m\"\nheartbeat = \"1s\"\n";
    let environment = [("SCHEDULEMESH_RETENTION", "2h"), ("SCHEDULEMESH_HEARTBEAT", "500ms")];
    let (dir, sources) = sources(file, &environment, &[("heartbeat", "250ms")]);
    let config = Config::resolve(&sources).unwrap();
    assert_eq!(config.queue_max, 10);
    assert_eq!(config.retention, Duration::from_hours(2));
    assert_eq!(config.heartbeat, Duration::from_millis(250));
    let place = dir.path().to_str().unwrap();
    let lines: Vec<String> = config
        .view()
        .settings
        .iter()
        .map(|s| (s.key.clone(), s.value.replace(place, "DIR"), s.origin.replace(place, "DIR")))
        .map(|(key, value, origin)| format!("{key:14} {value:20} {origin}"))
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    listen         127.0.0.1:7420       default
    state-dir      DIR                  SCHEDULEMESH_STATE_DIR
    advertise-url                       default
    insecure-bind  false                default
    tls-cert                            default
    tls-key                             default
    queue-max      10                   DIR/config.toml:1
    retention      2h                   SCHEDULEMESH_RETENTION
    ended-max      1000000              default
    lost-after     30s                  default
    heartbeat      250ms                --heartbeat
    allowed-hosts                       default
    body-max       64MiB                default
    log-level      info                 default
    log-format     text                 default
    clusters-file                       default
    ");
}

#[test]
fn all_mistakes_are_told_at_once_with_file_line_and_field() {
    let file = "listen = \"nowhere\"\nque-max = 5\nretention = 7\nbody-max = \"64 apples\"\n\
                insecure-bind = \"perhaps\"\n[log]\nlevel = \"info\"\n";
    let environment = [
        ("SCHEDULEMESH_LOG_FORMAT", "xml"),
        ("SCHEDULEMESH_QUEUEMAX", "7"),
        ("SCHEDULEMESH_TOKEN", "not a setting"),
    ];
    let flags = [("advertise-url", "ftp://x"), ("tls-cert", "/no/such.pem"), ("frobnicate", "1")];
    insta::assert_snapshot!(mistakes(file, &environment, &flags), @r#"
    [CONFIG_INVALID] the configuration has 12 mistakes
      DIR/config.toml:1: listen = "nowhere" is not an address like 127.0.0.1:7420 or [::1]:7420
      DIR/config.toml:2: que-max is unknown; did you mean queue-max?
      DIR/config.toml:3: retention = "7" is not a duration like 500ms, 30s, 5m, 2h or 7d
      DIR/config.toml:4: body-max = "64 apples" is not a size like 512KiB, 64MiB or 1000000
      DIR/config.toml:5: insecure-bind = "perhaps" is neither true nor false
      DIR/config.toml:6: log is unknown
      SCHEDULEMESH_LOG_FORMAT: log-format = "xml" is neither text nor json
      SCHEDULEMESH_QUEUEMAX: is unknown; did you mean SCHEDULEMESH_QUEUE_MAX?
      --advertise-url: advertise-url = "ftp://x" is not an address like http://mesh.example:7420
      --frobnicate: frobnicate is unknown
      --tls-cert: tls-cert = "/no/such.pem" can't be read: No such file or directory (os error 2)
      --tls-cert: tls-cert is of no use without tls-key
      fix: see every setting with `schedulemesh serve --print-config`
    "#);
}

#[test]
fn a_file_that_is_no_toml_is_shown_with_its_line() {
    insta::assert_snapshot!(mistakes("queue-max = 5\nlisten = \n", &[], &[]), @r#"
    [CONFIG_INVALID] the configuration has 1 mistake
      DIR/config.toml:2: string values must be quoted, expected literal string
      fix: see every setting with `schedulemesh serve --print-config`
    "#);
}

#[test]
fn a_file_that_was_named_must_be_there() {
    insta::assert_snapshot!(
        mistakes("", &[("SCHEDULEMESH_CONFIG", "/no/such.toml")], &[]), @r#"
    [CONFIG_INVALID] the configuration has 1 mistake
      SCHEDULEMESH_CONFIG: /no/such.toml can't be read: No such file or directory (os error 2)
      fix: see every setting with `schedulemesh serve --print-config`
    "#
    );
}

#[test]
fn a_cluster_must_not_count_as_lost_before_its_link_is_silent() {
    insta::assert_snapshot!(mistakes("", &[], &[("heartbeat", "10s")]), @r#"
    [CONFIG_INVALID] the configuration has 1 mistake
      --heartbeat: lost-after = 30s is less than 4 heartbeats, 40s
      fix: see every setting with `schedulemesh serve --print-config`
    "#);
}

#[test]
fn values_read_as_people_write_them() {
    assert_eq!(value::duration("1h30m"), Ok(Duration::from_mins(90)));
    assert_eq!(value::duration("7d"), Ok(Duration::from_hours(168)));
    for bad in ["", "5", "s", "5 parsecs", "99999999999999999999s", "9999999999999999d", "-5s"] {
        assert!(value::duration(bad).is_err(), "{bad:?} must not be a duration");
    }
    assert_eq!(value::size("64MiB"), Ok(64 << 20));
    assert_eq!(value::size("1000"), Ok(1000));
    for bad in ["", "MiB", "0", "5 XiB", "99999999999GiB"] {
        assert!(value::size(bad).is_err(), "{bad:?} must not be a size");
    }
    assert_eq!(value::host_port("[::1]:80").unwrap().to_string(), "[::1]:80");
    for bad in ["::1:80", ":80", "localhost", "h:70000"] {
        assert!(value::host_port(bad).is_err(), "{bad:?} must not be an address");
    }
}

#[test]
fn the_state_directory_has_the_usual_place() {
    let at = |pairs: &[(&str, &str)]| {
        let environment =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        default_state_dir(&Sources { environment, ..Sources::default() })
    };
    assert_eq!(at(&[("HOME", "/h")]), Path::new("/h/.local/state/schedulemesh"));
    assert_eq!(at(&[("HOME", "/h"), ("XDG_STATE_HOME", "/x")]), Path::new("/x/schedulemesh"));
    assert_eq!(at(&[("SCHEDULEMESH_STATE_DIR", "/s"), ("XDG_STATE_HOME", "/x")]), Path::new("/s"));
}
