//! Looking after a state directory, as its owner meets it: the real program, on directories that a
//! real control plane has filled, also while it runs.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use mesh_store::SqliteStore;
use serde_json::Value;
use tempfile::TempDir;

/// A control plane, which ends with this.
struct Serving(Child);

impl Serving {
    fn on(dir: &Path) -> Self {
        let mut server = program(dir)
            .args(["serve", "--listen", "127.0.0.1:0", "--log-level", "error"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(server.stderr.take().unwrap()).lines().next();
        let said = said.unwrap().unwrap();
        assert!(said.starts_with("control plane at "), "{said}");
        Self(server)
    }

    /// Ends it as a kill does.
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn program(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_schedulemesh"));
    command.env_remove("SCHEDULEMESH_URL").env_remove("SCHEDULEMESH_TOKEN");
    command.env("SCHEDULEMESH_STATE_DIR", dir);
    command
}

fn run(dir: &Path, words: &[&str]) -> Output {
    program(dir).args(words).output().unwrap()
}

/// What a command that did what it should printed as JSON.
fn json(dir: &Path, words: &[&str]) -> Value {
    let output = run(dir, &[&["-o", "json"], words].concat());
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What `schedulemesh doctor` says, and its exit code.
fn doctor(dir: &Path) -> (Value, i32) {
    let output = run(dir, &["doctor", "-o", "json"]);
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (report, output.status.code().unwrap())
}

/// The findings of one kind.
fn findings(report: &Value, severity: &str) -> Vec<String> {
    let all = report["findings"].as_array().unwrap().iter();
    let of_kind = all.filter(|finding| finding["severity"] == severity);
    of_kind.map(|finding| finding["what"].as_str().unwrap().to_owned()).collect()
}

/// The code of the problem that a command ended with, and its exit code.
fn problem(dir: &Path, words: &[&str]) -> (String, i32) {
    let output = run(dir, &[&["-o", "json"], words].concat());
    let problem: Value = serde_json::from_slice(&output.stderr).unwrap();
    let code = problem.get("code").and_then(Value::as_str).unwrap();
    (code.to_owned(), output.status.code().unwrap())
}

/// A folder with a state directory in which a control plane was killed, two tasks in its queue.
fn killed() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("state");
    let serving = Serving::on(&dir);
    submit(&dir, "one");
    submit(&dir, "two");
    serving.kill();
    (folder, dir)
}

fn submit(dir: &Path, key: &str) {
    json(dir, &["submit", "--key", key, "--", "true"]);
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Every file in a directory with what is in it, but for the index that SQLite keeps of its log.
fn content(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(content(&path));
        } else if path.extension().is_none_or(|ending| ending != "db-shm") {
            files.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    files.sort();
    files
}

#[test]
fn the_doctor_looks_without_changing_anything_while_a_server_runs_and_after_it_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("state");
    let serving = Serving::on(&dir);
    submit(&dir, "one");
    let (report, exit) = doctor(&dir);
    assert_eq!((exit, &report["tasks"]), (0, &1.into()), "{report}");
    assert!(report["served_by"].as_str().unwrap().contains("http://127.0.0.1:"), "{report}");
    serving.kill();
    let before = content(&dir);
    let (report, exit) = doctor(&dir);
    assert_eq!((exit, &report["served_by"]), (0, &Value::Null), "{report}");
    assert_eq!((&report["tasks"], &report["open_tasks"]), (&1.into(), &1.into()), "{report}");
    assert!(content(&dir) == before, "it changes nothing");
    let (code, exit) = problem(&folder.path().join("nowhere"), &["doctor"]);
    assert_eq!((code.as_str(), exit), ("STATE_DIR_UNUSABLE", 7));
}

#[test]
fn the_doctor_names_what_is_damaged_and_the_server_refuses_it() {
    let (_folder, dir) = killed();
    // The next start moves what is in the log to the file.
    drop(SqliteStore::open(&dir).unwrap());
    let file = rusqlite::Connection::open(dir.join("mesh.db")).unwrap();
    let change = "UPDATE journal SET at = at + 1 WHERE first = (SELECT min(first) FROM journal)";
    file.execute_batch(change).unwrap();
    drop(file);
    let (report, exit) = doctor(&dir);
    let damage = findings(&report, "damage");
    assert_eq!((exit, damage.len()), (1, 1), "{report}");
    assert!(
        damage[0].contains("mesh.db is damaged at event 1: its checksum is wrong"),
        "{damage:?}"
    );

    let output = run(&dir, &["serve", "--listen", "127.0.0.1:0"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    for part in ["mesh.db is damaged at event 1", "schedulemesh doctor", "schedulemesh restore"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let (code, exit) = problem(&dir, &["backup", text(&dir.with_file_name("copy"))]);
    assert_eq!((code.as_str(), exit), ("STORE_DAMAGED", 1));
    assert!(!dir.with_file_name("copy").exists());
}

#[test]
fn the_doctor_tells_a_torn_log_from_a_damaged_one() {
    let (_folder, dir) = killed();
    let path = dir.join("mesh.db-wal");
    let log = fs::read(&path).unwrap();
    let mut damaged = log.clone();
    damaged[100] ^= 1;
    fs::write(&path, damaged).unwrap();
    let (report, exit) = doctor(&dir);
    let damage = findings(&report, "damage");
    assert_eq!((exit, damage.len()), (1, 1), "{report}");
    assert!(damage[0].contains("mesh.db-wal is damaged at byte 32"), "{damage:?}");
    fs::write(&path, log).unwrap();
    assert_eq!(doctor(&dir).1, 0);
}

#[test]
fn a_backup_of_a_running_server_is_complete_and_restores() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, copy) = (folder.path().join("state"), folder.path().join("copy"));
    let serving = Serving::on(&dir);
    submit(&dir, "one");
    let made = json(&dir, &["backup", text(&copy)]);
    assert_eq!((&made["tasks"], &made["served"]), (&1.into(), &true.into()), "{made}");
    submit(&dir, "after");
    for name in ["mesh.db", "admin.token", "secret", "backup.json"] {
        let bits = fs::metadata(copy.join(name)).unwrap().permissions().mode();
        assert_eq!(bits & 0o777, 0o600, "{name}");
    }
    assert_eq!(doctor(&copy).1, 0);
    let (code, exit) = problem(&dir, &["backup", text(&copy)]);
    assert_eq!((code.as_str(), exit), ("NOT_EMPTY", 5));
    let (code, exit) = problem(&dir, &["restore", text(&copy), "--state-dir", text(&dir)]);
    assert_eq!((code.as_str(), exit), ("NOT_EMPTY", 5), "one that is served is not empty");
    serving.kill();

    let second = folder.path().join("second");
    json(&dir, &["restore", text(&copy), "--state-dir", text(&second)]);
    let serving = Serving::on(&second);
    let tasks = json(&second, &["ps"]);
    assert_eq!(tasks["tasks"].as_array().unwrap().len(), 1, "{tasks}");
    assert_eq!(tasks["tasks"][0]["id"], "t1");
    submit(&second, "after");
    let newest = json(&second, &["ps"]);
    assert_eq!(newest["tasks"][0]["id"], "t10000000002", "no number is given out twice");
    serving.kill();
    let token = |dir: &Path| fs::read_to_string(dir.join("admin.token")).unwrap();
    assert_eq!(token(&second), token(&dir));
}

#[test]
fn a_backup_of_the_last_state_can_go_on_as_it_is() {
    let (folder, dir) = killed();
    let (copy, second) = (folder.path().join("copy"), folder.path().join("second"));
    let made = json(&dir, &["backup", text(&copy)]);
    assert_eq!((&made["tasks"], &made["served"]), (&2.into(), &false.into()), "{made}");
    let words = ["restore", text(&copy), "--state-dir", text(&second), "--as-is"];
    let done = json(&dir, &words);
    assert_eq!(done["last"], made["last"], "{done}");
    let serving = Serving::on(&second);
    submit(&second, "three");
    assert_eq!(json(&second, &["ps"])["tasks"][0]["id"], "t3");
    serving.kill();
}

#[test]
fn an_interrupted_backup_is_none() {
    let (folder, dir) = killed();
    let copy = folder.path().join("copy");
    // What a kill leaves at any moment: a name that says so, and no manifest or a whole one.
    let unfinished = folder.path().join("copy.unfinished");
    fs::create_dir(&unfinished).unwrap();
    fs::write(unfinished.join("mesh.db"), "half").unwrap();
    let second = folder.path().join("second");
    let words = ["restore", text(&unfinished), "--state-dir", text(&second)];
    assert_eq!(problem(&dir, &words), ("NO_BACKUP".into(), 3));
    assert!(!second.exists());
    json(&dir, &["backup", text(&copy)]);
    assert!(!unfinished.exists(), "the next one clears it away");
    assert_eq!(doctor(&copy).1, 0);
}

#[test]
fn a_killed_backup_leaves_nothing_that_looks_complete() {
    let (folder, dir) = killed();
    let copy = folder.path().join("copy");
    for round in 0..12_u32 {
        let mut backup = program(&dir).args(["backup", text(&copy)]).spawn().unwrap();
        // Another place each time, told by what is there and not by a clock.
        let mut looks = 0_u32;
        while backup.try_wait().unwrap().is_none() {
            looks += u32::from(folder.path().join("copy.unfinished").exists());
            if looks > round * 20 {
                backup.kill().unwrap();
            }
        }
        if copy.exists() {
            assert!(copy.join("backup.json").exists());
            assert_eq!(doctor(&copy).1, 0, "round {round}");
            fs::remove_dir_all(&copy).unwrap();
        }
    }
    json(&dir, &["backup", text(&copy)]);
}
