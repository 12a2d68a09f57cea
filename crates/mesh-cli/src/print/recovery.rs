//! How what was found in a state directory looks.

use super::text::{Paint, Style, harmless};
use crate::recovery::{Backup, Finding, Report, Restored, Severity};
use crate::units::show_size;

/// What `schedulemesh doctor` found.
pub fn report(report: &Report, paint: Paint) -> String {
    let mut lines = vec![
        format!("state directory  {}", report.state_dir),
        format!("served by        {}", report.served_by.as_deref().unwrap_or("nobody")),
    ];
    if let Some(format) = report.format {
        lines.push(format!("format           {format}"));
        lines.push(format!("journal          {}", journal(report)));
        let (all, open) = (report.tasks, report.open_tasks);
        lines.push(format!("tasks            {all}, of which {open} have not ended"));
        let Report { data, code, blobs, .. } = report;
        lines.push(format!(
            "bytes            {data} arguments and results, {code} code, {blobs} blobs"
        ));
    }
    lines.push(format!("free on disk     {}", size(report.disk_free)));
    lines.extend(report.findings.iter().map(|finding| show(finding, paint)));
    lines.push(match report.worst() {
        None | Some(Severity::Note) => paint.apply(Style::Good, "nothing is lost"),
        Some(Severity::Loss) => paint.apply(Style::Bad, "some bytes are lost; a server can start"),
        Some(Severity::Damage) => paint.apply(Style::Bad, "no server starts on this"),
    });
    lines.join("\n")
}

/// What `schedulemesh backup` made.
pub fn backup(done: &Backup, paint: Paint) -> String {
    let manifest = &done.manifest;
    let mut lines = vec![
        format!("backup of {} tasks, up to event {}", manifest.tasks, manifest.last),
        format!("in {}, checked", done.path),
    ];
    lines.extend(done.losses.iter().map(|finding| show(finding, paint)));
    lines.join("\n")
}

/// What `schedulemesh restore` made.
pub fn restored(done: &Restored, paint: Paint) -> String {
    let mut lines = vec![format!(
        "{} holds {} tasks of the backup of {}",
        done.state_dir, done.backup.tasks, done.backup.made_at
    )];
    lines.push(if done.as_is {
        "what ran is left with the agents".into()
    } else {
        format!("events go on after {}; what ran is taken back from the agents", done.last)
    });
    lines.extend(done.losses.iter().map(|finding| show(finding, paint)));
    lines.join("\n")
}

fn journal(report: &Report) -> String {
    let snapshot = match report.snapshot {
        Some(seq) => format!("snapshot at event {seq}"),
        None => "no snapshot".into(),
    };
    match (report.oldest, report.last) {
        (0, 0) => format!("empty, {snapshot}"),
        (0, last) => format!("none since event {last}, {snapshot}"),
        (oldest, last) => format!("events {oldest} to {last}, {snapshot}"),
    }
}

fn show(finding: &Finding, paint: Paint) -> String {
    let (word, style) = match finding.severity {
        Severity::Note => ("note", Style::Dim),
        Severity::Loss => ("loss", Style::Bad),
        Severity::Damage => ("damage", Style::Bad),
    };
    let (what, fix) = (harmless(&finding.what), harmless(&finding.fix));
    format!("{}: {what}\n  fix:  {fix}", paint.apply(style, word))
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "for people")]
fn size(bytes: u64) -> String {
    show_size(bytes as f64)
}
