//! The API's views as tables.

use std::collections::BTreeMap;

use jiff::Timestamp;
use mesh_api::v1::{
    AffinityBody, ClusterTest, ClusterView, NodeView, ReadyView, TaskList, TaskView,
};

use super::table::{Cell, facts, render};
use super::text::{NOTHING, OrDash, Paint, Style, style_of};
use crate::units::{show_number, show_seconds, show_size};

/// As many letters of a node's id are shown as tell nodes apart.
pub(super) const NODE_SHOWN: usize = 12;

const TASK_HEAD: [&str; 10] =
    ["ID", "KIND", "NAME", "PHASE", "CLUSTER", "TRY", "PRIO", "NEEDS", "AGE", "RAN"];

/// The table of `ps`, and a line with the counts of all tasks.
pub fn tasks(list: &TaskList, paint: Paint) -> String {
    let now = seconds_now();
    let rows = list.tasks.iter().map(|task| task_row(task, now)).collect();
    let table = match list.tasks.as_slice() {
        [] => "no tasks".to_owned(),
        _ => render(paint, &TASK_HEAD, rows),
    };
    let more = list.next.as_ref().map(|next| {
        paint.apply(Style::Dim, &format!("older ones follow {next}; say --limit for more"))
    });
    let lines = [Some(table), more, Some(String::new()), Some(counts(&list.counts))];
    lines.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

fn task_row(task: &TaskView, now: f64) -> Vec<Cell> {
    vec![
        Cell::from(&task.id),
        Cell::from(&task.kind),
        Cell::from(title(task)),
        Cell::styled(&task.phase, style_of(&task.phase)),
        Cell::from(task.cluster.as_deref().unwrap_or(NOTHING)),
        Cell::number(task.attempt.to_string()),
        Cell::number(show_number(task.priority)),
        Cell::from(resources(&task.resources)),
        Cell::number(show_seconds(now - task.submitted_at)),
        Cell::number(OrDash(ran(task, now)).to_string()),
    ]
}

/// What people call the task: its name, or the method that it calls.
fn title(task: &TaskView) -> String {
    match (&task.name, &task.call) {
        (Some(name), _) => name.clone(),
        (None, Some(call)) => format!("{}.{}", call.actor, call.method),
        (None, None) => NOTHING.into(),
    }
}

fn ran(task: &TaskView, now: f64) -> Option<String> {
    let running = task.started_at.filter(|_| task.ended_at.is_none()).map(|start| now - start);
    task.run_ms.map(|millis| millis / 1_000.0).or(running).map(show_seconds)
}

/// Counts by name, in the order of life rather than of the alphabet.
pub fn counts(counts: &BTreeMap<String, u64>) -> String {
    const LIFE: [&str; 8] = [
        "queued",
        "delayed",
        "assigned",
        "running",
        "stopping",
        "succeeded",
        "failed",
        "cancelled",
    ];
    let place = |name: &str| LIFE.iter().position(|phase| *phase == name).unwrap_or(LIFE.len());
    let mut entries: Vec<_> = counts.iter().filter(|(_, count)| **count > 0).collect();
    entries.sort_by_key(|(name, _)| place(name));
    let shown: Vec<_> = entries.iter().map(|(name, count)| format!("{count} {name}")).collect();
    if shown.is_empty() { "nothing yet".into() } else { shown.join(", ") }
}

/// Everything about one task.
pub fn task(task: &TaskView, paint: Paint) -> String {
    let now = seconds_now();
    let dash = |value: Option<String>| value.unwrap_or_else(|| NOTHING.into());
    let mut rows = vec![
        ("id", task.id.clone()),
        ("key", task.key.clone()),
        ("name", dash(task.name.clone())),
        ("kind", task.kind.clone()),
        ("phase", task.phase.clone()),
        ("cluster", dash(task.cluster.clone())),
        ("node", dash(task.node.clone())),
        ("attempt", attempt(task)),
        ("priority", show_number(task.priority)),
        ("needs", resources(&task.resources)),
        ("where", affinity(&task.affinity)),
    ];
    if let Some(call) = &task.call {
        rows.push(("calls", format!("{}.{}", call.actor, call.method)));
    }
    rows.extend([
        ("submitted", moment(task.submitted_at)),
        ("started", dash(task.started_at.map(moment))),
        ("ended", dash(task.ended_at.map(moment))),
        ("ran", dash(ran(task, now))),
        ("arguments", show_bytes(task.payload_bytes)),
        ("result", dash(task.result_bytes.map(show_bytes))),
    ]);
    if let Some(error) = &task.error {
        rows.push(("error", format!("{}: {}", error.cause, error.message)));
    }
    facts(paint, &rows)
}

fn attempt(task: &TaskView) -> String {
    match (task.lost, task.raised) {
        (0, 0) => task.attempt.to_string(),
        (lost, raised) => {
            format!("{} ({lost} retries after losses, {raised} after exceptions)", task.attempt)
        }
    }
}

fn affinity(affinity: &AffinityBody) -> String {
    let AffinityBody { required, preferred, avoided, labels, cluster, cluster_only } = affinity;
    let listed =
        [("tags", required), ("prefers", preferred), ("avoids", avoided), ("labels", labels)];
    let mut parts: Vec<String> = listed
        .into_iter()
        .filter(|(_, words)| !words.is_empty())
        .map(|(name, words)| format!("{name} {}", words.join(", ")))
        .collect();
    if let Some(name) = cluster {
        parts.push(format!("cluster {name}{}", if *cluster_only { " only" } else { "" }));
    }
    if parts.is_empty() { "anywhere".into() } else { parts.join("; ") }
}

/// The table of `cluster ls`.
pub fn clusters(list: &[ClusterView], paint: Paint) -> String {
    if list.is_empty() {
        return "no clusters; register one with `schedulemesh cluster add`".into();
    }
    let head = ["NAME", "LINK", "NODES", "CPU", "GPU", "MEMORY", "TASKS", "TAGS", "RAY", "NOTES"];
    render(paint, &head, list.iter().map(cluster_row).collect())
}

fn cluster_row(cluster: &ClusterView) -> Vec<Cell> {
    let alive = cluster.nodes.iter().filter(|node| node.alive).count();
    let share = |name: &str, show: fn(f64) -> String| {
        let total = cluster.total.get(name).copied().unwrap_or_default();
        let free = cluster.free.get(name).copied().unwrap_or_default();
        if total > 0.0 { format!("{} of {}", show(free), show(total)) } else { NOTHING.into() }
    };
    vec![
        Cell::from(&cluster.spec.name),
        Cell::styled(&cluster.link, style_of(&cluster.link)),
        Cell::number(alive.to_string()),
        Cell::from(share("CPU", show_number)),
        Cell::from(share("GPU", show_number)),
        Cell::from(share("memory", show_size)),
        Cell::number(cluster.tasks.to_string()),
        Cell::from(or_dash(cluster.spec.tags.join(","))),
        Cell::from(cluster.ray.as_deref().unwrap_or(NOTHING)),
        Cell::from(or_dash(notes(cluster).join("; "))),
    ]
}

fn notes(cluster: &ClusterView) -> Vec<String> {
    let mut notes = Vec::new();
    if cluster.draining {
        notes.push("draining".into());
    }
    if cluster.breaker != "closed" {
        notes.push(format!("breaker {}", cluster.breaker));
    }
    notes.extend(cluster.trouble.clone());
    notes
}

/// Everything about one cluster.
pub fn cluster(cluster: &ClusterView, paint: Paint) -> String {
    let dash = |value: &Option<String>| value.clone().unwrap_or_else(|| NOTHING.into());
    let spec = &cluster.spec;
    let labels: Vec<_> =
        spec.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let share = |value: f64| format!("{}%", show_number(value * 100.0));
    let rows = [
        ("name", spec.name.clone()),
        ("link", format!("{} since {}", cluster.link, moment(cluster.since))),
        ("draining", yes_no(cluster.draining).into()),
        ("breaker", cluster.breaker.clone()),
        ("trouble", dash(&cluster.trouble)),
        ("dashboard", dash(&spec.dashboard)),
        ("agent", dash(&spec.agent)),
        ("versions", versions(cluster)),
        ("tags", or_dash(spec.tags.join(", "))),
        ("labels", or_dash(labels.join(", "))),
        (
            "weight",
            format!("{}{}", show_number(spec.weight.unwrap_or(1.0)), preferred(spec.prefer)),
        ),
        ("used up to", spec.max_utilisation.map_or_else(|| share(1.0), share)),
        ("most tasks", OrDash(spec.max_tasks).to_string()),
        ("has", resources(&cluster.total)),
        ("free", resources(&cluster.free)),
        ("others use", resources(&cluster.foreign)),
        ("tasks", cluster.tasks.to_string()),
    ];
    let head = ["NODE", "ADDRESS", "ALIVE", "HAS", "FREE", "LABELS"];
    let nodes = cluster.nodes.iter().map(node_row).collect();
    format!("{}\n\n{}", facts(paint, &rows), render(paint, &head, nodes))
}

fn preferred(prefer: bool) -> &'static str {
    if prefer { ", preferred (x 1.2)" } else { "" }
}

fn versions(cluster: &ClusterView) -> String {
    let named =
        [("Ray", &cluster.ray), ("Python", &cluster.python), ("agent", &cluster.agent_version)];
    let parts: Vec<_> = named
        .iter()
        .filter_map(|(name, value)| Some(format!("{name} {}", value.as_ref()?)))
        .collect();
    or_dash(parts.join(", "))
}

fn node_row(node: &NodeView) -> Vec<Cell> {
    let labels: Vec<_> =
        node.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let short: String = node.id.chars().take(NODE_SHOWN).collect();
    vec![
        Cell::from(short),
        Cell::from(&node.address),
        Cell::styled(yes_no(node.alive), if node.alive { Style::Good } else { Style::Bad }),
        Cell::from(resources(&node.total)),
        Cell::from(resources(&node.free)),
        Cell::from(or_dash(labels.join(", "))),
    ]
}

/// The outcome of `cluster test`.
pub fn cluster_test(test: &ClusterTest, paint: Paint) -> String {
    let head = ["CHECK", "RESULT", "WHAT"];
    let rows = test.checks.iter().map(|check| {
        let (word, style) = if check.ok { ("ok", Style::Good) } else { ("failed", Style::Bad) };
        vec![Cell::from(&check.name), Cell::styled(word, style), Cell::from(&check.message)]
    });
    render(paint, &head, rows.collect())
}

/// The answer of `status`.
pub fn status(url: &str, ready: &ReadyView, paint: Paint) -> String {
    let accepts = match &ready.why {
        None => yes_no(ready.ready).to_owned(),
        Some(why) => format!("no: {} ({})", why.message, why.code),
    };
    let rows = [
        ("control plane", url.to_owned()),
        ("accepts work", accepts),
        ("events", ready.seq.to_string()),
        ("tasks", counts(&ready.tasks)),
        ("clusters", counts(&ready.clusters)),
    ];
    facts(paint, &rows)
}

/// Resources in a few words: `CPU 2, memory 4 GiB`.
pub fn resources(resources: &BTreeMap<String, f64>) -> String {
    let show = |(name, amount): (&String, &f64)| match name.as_str() {
        "memory" => format!("memory {}", show_size(*amount)),
        name => format!("{name} {}", show_number(*amount)),
    };
    or_dash(resources.iter().map(show).collect::<Vec<_>>().join(", "))
}

fn show_bytes(bytes: u64) -> String {
    // Only the first three digits of it are shown.
    #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "see above")]
    show_size(bytes as f64)
}

fn or_dash(text: String) -> String {
    if text.is_empty() { NOTHING.into() } else { text }
}

fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

/// A moment in the local time zone, to the second.
fn moment(seconds: f64) -> String {
    let micros = seconds * 1e6;
    // Times of the API are within the years that an i64 of microseconds holds.
    #[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "saturates")]
    let time = Timestamp::from_microsecond(micros as i64).unwrap_or_default();
    time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

fn seconds_now() -> f64 {
    Timestamp::now().as_duration().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amounts(entries: &[(&str, f64)]) -> BTreeMap<String, f64> {
        entries.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect()
    }

    fn example() -> TaskView {
        TaskView {
            id: "t7".into(),
            key: "nightly".into(),
            name: None,
            kind: "call".into(),
            phase: "failed".into(),
            cluster: Some("mac".into()),
            node: None,
            attempt: 3,
            lost: 1,
            raised: 1,
            priority: 5.0,
            resources: amounts(&[("CPU", 0.5), ("memory", 1_073_741_824.0)]),
            affinity: AffinityBody {
                required: vec!["gpu".into()],
                cluster: Some("mac".into()),
                ..AffinityBody::default()
            },
            call: Some(mesh_api::v1::CallView { actor: "t3".into(), method: "add".into() }),
            submitted_at: 1_700_000_000.0,
            started_at: Some(1_700_000_001.0),
            ended_at: Some(1_700_000_002.0),
            run_ms: Some(1_234.0),
            error: Some(mesh_api::v1::FailureView {
                cause: "raised".into(),
                message: "ValueError: \x1b[2J".into(),
            }),
            payload_bytes: 2_048,
            result_bytes: None,
        }
    }

    #[test]
    fn a_row_shows_what_a_person_looks_for_first() {
        let row = task_row(&example(), 1_700_000_060.0);
        insta::assert_snapshot!(render(Paint::when(false), &TASK_HEAD, vec![row]), @r"
        ID  KIND  NAME    PHASE   CLUSTER  TRY  PRIO  NEEDS                  AGE    RAN
        t7  call  t3.add  failed  mac        3     5  CPU 0.5, memory 1 GiB  1m 0s  1.23s
        ");
    }

    #[test]
    fn a_description_leaves_nothing_out_and_nothing_harmful_in() {
        let text = task(&example(), Paint::when(false));
        let kept = text.lines().filter(|line| !line.contains("20")).collect::<Vec<_>>().join("\n");
        insta::assert_snapshot!(kept, @r"
        id         t7
        key        nightly
        name       -
        kind       call
        phase      failed
        cluster    mac
        node       -
        attempt    3 (1 retries after losses, 1 after exceptions)
        priority   5
        needs      CPU 0.5, memory 1 GiB
        where      tags gpu; cluster mac
        calls      t3.add
        ran        1.23s
        arguments  2 KiB
        result     -
        error      raised: ValueError: \u{1b}[2J
        ");
    }

    #[test]
    fn counts_follow_the_life_of_a_task() {
        let seen = [("failed", 1), ("queued", 12), ("running", 2), ("cancelled", 0)];
        let map = seen.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        assert_eq!(counts(&map), "12 queued, 2 running, 1 failed");
    }
}
