//! The real program against a real control plane, as transcripts: what was typed, what was printed
//! to stdout, what was said on stderr (after `!`), and the exit code when it is not 0.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_schedulemesh");

/// A control plane of its own for each test, which ends with it.
struct Terminal {
    dir: TempDir,
    server: Child,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

impl Terminal {
    fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut server = program(&dir)
            .args(["serve", "--listen", "127.0.0.1:0", "--log-level", "error"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It says where it is once it listens.
        let said = BufReader::new(server.stderr.take().unwrap()).lines().next();
        assert!(said.unwrap().unwrap().starts_with("control plane at http://127.0.0.1:"));
        Self { dir, server }
    }

    /// Types lines, and writes down what happens.
    fn transcript(&self, lines: &[&str]) -> String {
        lines.iter().map(|line| self.line(line)).collect::<Vec<_>>().join("\n")
    }

    fn line(&self, line: &str) -> String {
        let output = program(&self.dir).args(line.split_whitespace()).output().unwrap();
        format!("$ schedulemesh {line}\n{}", self.told(&output))
    }

    fn told(&self, output: &Output) -> String {
        let mut lines: Vec<String> = text(&output.stdout).lines().map(ToOwned::to_owned).collect();
        lines.extend(text(&output.stderr).lines().map(|line| format!("! {line}")));
        if !output.status.success() {
            lines.push(format!("[exit {}]", output.status.code().unwrap()));
        }
        lines.iter().map(|line| self.steady(line) + "\n").collect()
    }

    /// The line without what differs from run to run.
    fn steady(&self, line: &str) -> String {
        let line = line.replace(self.dir.path().to_str().unwrap(), "DIR");
        let words = line.split(' ').map(|word| match word {
            word if word.starts_with("http://127.0.0.1:") => "URL",
            word if word.starts_with("sma_") => "TOKEN",
            word if word.trim_end_matches(')').len() == 36 && word.matches('-').count() == 4 => {
                "KEY"
            }
            word if is_short_time(word) => "TIME",
            word => word,
        });
        let words: Vec<&str> = words.collect();
        // A time is padded to the width of its column, and so is the heading of the next one, which
        // its length must not change.
        let mut kept: Vec<&str> = Vec::new();
        for word in words {
            if matches!(word, "TIME" | "RAN" | "AGE") {
                while kept.last() == Some(&"") {
                    kept.pop();
                }
            }
            kept.push(word);
        }
        kept.join(" ")
    }
}

fn is_short_time(word: &str) -> bool {
    let number = word.strip_suffix("ms").or_else(|| word.strip_suffix('s')).unwrap_or_default();
    !number.is_empty() && number.chars().all(|letter| letter.is_ascii_digit() || letter == '.')
}

fn program(dir: &TempDir) -> Command {
    let mut command = Command::new(PROGRAM);
    command.env_clear().env("SCHEDULEMESH_STATE_DIR", dir.path()).stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_task_from_its_submission_to_its_end() {
    let terminal = Terminal::open();
    insta::assert_snapshot!(terminal.transcript(&[
        "status",
        "ps",
        "submit --name nightly --cpus 2 --key k1 -- python etl.py",
        "submit --name nightly --cpus 2 --key k1 -- python etl.py",
        "submit --name nightly --cpus 2 --key k1 -- python other.py",
        "ps",
        "explain key:k1",
        "wait t1 --timeout 0.05",
        "cancel t1 t7",
        "wait t1",
        "ps --all --phase cancelled",
        "logs t7",
        "status",
    ]));
}

#[test]
fn clusters_and_their_reasons() {
    let terminal = Terminal::open();
    insta::assert_snapshot!(terminal.transcript(&[
        "cluster ls",
        "cluster add lab --tag gpu --weight 2",
        "cluster add lab --tag gpu --weight 3",
        "cluster add lab --tag gpu --weight 3 --replace",
        "cluster add mac --tag arm64 --agent not-an-address",
        "cluster ls",
        "submit --dry-run --tag gpu -- true",
        "submit --dry-run --tag tpu -- true",
        "submit --tag tpu -- true",
        "cluster token lab",
        "cluster test lab",
        "cluster drain lab",
        "cluster drain lab --undo",
        "cluster rm lab",
        "cluster rm lab",
    ]));
}

#[test]
fn mistakes_say_what_was_meant() {
    let terminal = Terminal::open();
    insta::assert_snapshot!(terminal.transcript(&[
        "explain t1",
        "describe nonsense",
        "submit --label arch~arm64 -- true",
        "submit --priority nan -- true",
        "ps --phase asleep",
        "--token smt_wrong ps",
        "--url http://127.0.0.1:1 ps",
        "--url nonsense ps",
        "why NO_ROM",
        "serve --listen 0.0.0.0:0 --state-dir DIR2",
        "serve --heartbeat soon --queue-max many --state-dir DIR2",
    ]));
}

#[test]
fn programs_get_json_and_nothing_else() {
    let terminal = Terminal::open();
    for line in
        ["ps -o json", "cluster ls -o json", "status -o json", "version -o json", "why -o json"]
    {
        let words = line.split_whitespace();
        let output = program(&terminal.dir).args(words).output().unwrap();
        assert!(output.status.success(), "{line}");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap();
        assert_eq!(text(&output.stderr), "", "{line}");
    }
    let output = program(&terminal.dir).args(["describe", "t1", "-o", "json"]).output().unwrap();
    let problem: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(problem["code"], "UNKNOWN_TASK");
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn ctrl_c_leaves_the_work_alone() {
    let terminal = Terminal::open();
    let accepted = program(&terminal.dir)
        .args(["submit", "--wait-for-growth", "--", "true"])
        .output()
        .unwrap();
    assert_eq!(text(&accepted.stdout), "t1\n");
    let waiting =
        program(&terminal.dir).args(["wait", "t1"]).stderr(Stdio::piped()).spawn().unwrap();
    until_it_catches_signals(waiting.id());
    let pid = waiting.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = waiting.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let said = "\nDetached; t1 goes on. Come back with `schedulemesh wait t1`.\n";
    assert_eq!(text(&output.stderr), said);
    assert!(terminal.line("ps").contains("1 queued"));
}

/// Waits until a process has installed its handler of SIGINT, which is signal 2.
fn until_it_catches_signals(pid: u32) {
    loop {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t")).unwrap();
        if u64::from_str_radix(caught, 16).unwrap() & 2 != 0 {
            return;
        }
        std::thread::yield_now();
    }
}
