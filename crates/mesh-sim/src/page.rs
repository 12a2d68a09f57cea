//! `docs/reliability-report.md`: written by the runs, never by hand.

use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::canary::Canary;
use crate::report::{Crashed, Simulated};

/// How many passes of a failpoint count as tested.
const PASSES_MIN: u64 = 3;

/// The page about the runs whose results are in a folder. What was not run is said to be missing.
pub fn page(dir: &Path) -> io::Result<String> {
    let simulated: Option<Simulated> = read(&dir.join("simulated.json"))?;
    let bugs: Option<Vec<Canary>> = read(&dir.join("bugs.json"))?;
    let crashes: Option<Crashed> = read(&dir.join("crashes.json"))?;
    let mut page = String::from(
        "# Reliability report\n\n\
         Written by `make reliability` from what its runs have left; nothing here is typed by hand. What each law means\n\
         is in [what ScheduleMesh promises](guarantees.md).\n",
    );
    match &simulated {
        Some(run) => simulation(&mut page, run),
        None => missing(&mut page, "Simulated worlds"),
    }
    match &bugs {
        Some(run) => canaries(&mut page, run),
        None => missing(&mut page, "Planted faults"),
    }
    match &crashes {
        Some(run) => crash_loop(&mut page, run),
        None => missing(&mut page, "Kills of the real server"),
    }
    Ok(page)
}

/// What a run has left; nothing when it was not made.
fn read<T: DeserializeOwned>(file: &Path) -> io::Result<Option<T>> {
    match std::fs::read(file) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn missing(page: &mut String, what: &str) {
    line(page, &format!("\n## {what}\n\nThis was not run."));
}

fn line(page: &mut String, text: &str) {
    page.push_str(text);
    page.push('\n');
}

fn row(page: &mut String, name: &str, value: impl std::fmt::Display) {
    line(page, &format!("| {name} | {value} |"));
}

fn simulation(page: &mut String, run: &Simulated) {
    line(page, "\n## Simulated worlds\n\n| | |\n|---|---:|");
    row(page, "Seeds", number(run.seeds));
    row(page, "Seeds that broke a law", number(run.broken));
    row(page, "Steps, each judged", number(run.steps));
    row(page, "Simulated hours", number(run.hours));
    row(page, "Starts of the control plane", number(run.lives));
    row(page, "Tasks accepted", number(run.tasks));
    row(page, "Events of the journal judged", number(run.events));
    row(page, "Acknowledgements judged", number(run.acknowledged));
    row(page, "Steps per second", number(rate(run.steps, run.took_s)));
    row(page, "Simulated seconds per second", number(rate(run.hours * 3_600, run.took_s)));
    let total: u64 = run.faults.values().sum();
    line(page, &format!("\nFaults: {}.\n\n| Fault | Times |\n|---|---:|", number(total)));
    let mut faults: Vec<_> = run.faults.iter().collect();
    faults.sort_by(|one, other| other.1.cmp(one.1));
    for (fault, times) in faults {
        row(page, fault, number(*times));
    }
}

fn canaries(page: &mut String, run: &[Canary]) {
    let caught = run.iter().filter(|canary| canary.seed.is_some()).count();
    let within = run.iter().map(|canary| canary.within).max().unwrap_or_default();
    line(page, "\n## Planted faults\n");
    line(page, &format!("{caught} of {} were noticed, within {within} seeds each.\n", run.len()));
    line(page, "| Fault | Seeds until it was noticed | Law |\n|---|---:|---|");
    for canary in run {
        let seeds = canary.seed.map_or("**not noticed**".to_owned(), |seed| number(seed + 1));
        let law = canary.broken.split(':').next().unwrap_or_default();
        line(page, &format!("| `{}` | {seeds} | `{law}` |", canary.bug));
    }
}

fn crash_loop(page: &mut String, run: &Crashed) {
    line(page, "\n## Kills of the real server\n\n| | |\n|---|---:|");
    row(page, "Kills", number(run.kills));
    for (kind, times) in &run.kinds {
        row(page, &format!("… {kind}"), number(*times));
    }
    row(page, "Peaceful ends beside them", number(run.peaceful));
    row(page, "Kills on a full disk", number(run.full_disk_kills));
    let reached = run.reached(PASSES_MIN);
    row(page, "Failpoints passed at least 3 times", format!("{reached} of {}", run.points.len()));
    row(page, "Failpoints at which it was killed", number(run.killed_at));
    row(page, "Tasks accepted", number(run.tasks));
    row(page, "Events of the journal judged", number(run.events));
    row(page, "Acknowledgements judged", number(run.acknowledged));
    row(page, "Results compared, byte for byte", number(run.results));
    row(page, "Lost", number(run.lost));
    row(page, "Doubled", number(run.doubled));
    row(page, "Restart until work is taken, middle", format!("{} ms", run.restart_p50_ms));
    row(page, "Restart until work is taken, longest", format!("{} ms", run.restart_max_ms));
}

#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate for people"
)]
fn rate(count: u64, seconds: f64) -> u64 {
    (count as f64 / seconds.max(0.001)).round() as u64
}

/// A number with its thousands apart.
fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_run_is_said_to_be_missing() {
        let dir = tempfile::tempdir().unwrap();
        let page = page(dir.path()).unwrap();
        assert_eq!(page.matches("This was not run.").count(), 3);
    }

    #[test]
    fn numbers_have_their_thousands_apart() {
        assert_eq!(
            [0, 12, 123, 1_234, 1_234_567].map(number).join(" "),
            "0 12 123 1,234 1,234,567"
        );
    }

    #[test]
    fn a_fault_that_was_not_noticed_stands_out() {
        let missed = Canary::new(mesh_core::bug::Bug::Overbook, None, 200);
        let mut page = String::new();
        canaries(&mut page, &[missed]);
        assert!(page.contains("0 of 1 were noticed"), "{page}");
        assert!(page.contains("| `overbook` | **not noticed** |"), "{page}");
    }
}
