//! The answer to "why is it where it is?", cluster by cluster.

use std::borrow::Cow;

use mesh_api::v1::{ExplainView, VerdictView};

use super::table::{Cell, render};
use super::text::{NOTHING, Paint, Style, harmless};
use super::views::NODE_SHOWN;
use crate::units::show_number;

/// The whole answer: one sentence, then one row for each cluster, the winner first.
pub fn explain(view: &ExplainView, paint: Paint) -> String {
    let headline = match &view.task {
        Some(task) => format!("{} ({}): {}", task.id, task.phase, harmless(&view.message)),
        None => dry_run(view),
    };
    let mut parts = vec![headline];
    if !view.clusters.is_empty() {
        let winner = view.clusters.iter().position(|verdict| verdict.fits);
        let rows = view.clusters.iter().enumerate();
        let rows = rows.map(|(place, verdict)| row(verdict, Some(place) == winner)).collect();
        let head = ["CLUSTER", "VERDICT", "SCORE", "WHY"];
        parts.push(format!("\n\n{}", render(paint, &head, rows)));
    }
    parts.concat()
}

fn dry_run(view: &ExplainView) -> String {
    let place = match view.clusters.iter().find(|verdict| verdict.fits) {
        Some(winner) => format!("It would start now, on {}.", harmless(&winner.cluster)),
        None => format!("{}.", capitalised(&harmless(&view.message))),
    };
    format!("{place} No change was made.")
}

fn capitalised(sentence: &str) -> String {
    let mut letters = sentence.chars();
    let first = letters.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(letters).collect()
}

fn row(verdict: &VerdictView, wins: bool) -> Vec<Cell> {
    let (mark, style) = match (wins, verdict.fits) {
        (true, _) => ("chosen", Style::Good),
        (false, true) => ("fits", Style::Plain),
        (false, false) => (verdict.code.as_str(), Style::Bad),
    };
    vec![
        Cell::from(&verdict.cluster),
        Cell::styled(mark, style),
        Cell::number(verdict.score.map_or_else(|| NOTHING.into(), show_number)),
        Cell::from(readable(&verdict.message)),
    ]
}

/// The message with node ids as people read them: JSON has them whole.
fn readable(message: &str) -> String {
    message.split(' ').map(readable_word).collect::<Vec<_>>().join(" ")
}

fn readable_word(word: &str) -> Cow<'_, str> {
    let is_id = word.len() > 2 * NODE_SHOWN && word.chars().take(40).all(|l| l.is_ascii_hexdigit());
    match word.char_indices().rfind(|(_, letter)| letter.is_ascii_hexdigit()) {
        Some((last, _)) if is_id => {
            let (id, rest) = word.split_at(last + 1);
            Cow::Owned(id.chars().take(NODE_SHOWN).collect::<String>() + rest)
        }
        Some(_) | None => Cow::Borrowed(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_shortened_and_all_else_stays() {
        let node = "baeb503a3bbc4629b9b7b1a40d72b08494077d071ffcb6b5cb42d629";
        let message = format!("fits on node {node}, which lacks nothing");
        let expected = "fits on node baeb503a3bbc, which lacks nothing";
        assert_eq!(readable(&message), expected);
        assert_eq!(readable("memory=20 GiB, deadbeef é"), "memory=20 GiB, deadbeef é");
    }

    fn verdict(cluster: &str, code: &str, message: &str, score: Option<f64>) -> VerdictView {
        VerdictView {
            cluster: cluster.into(),
            fits: score.is_some(),
            code: code.into(),
            message: message.into(),
            score,
            parts: std::collections::BTreeMap::new(),
        }
    }

    fn view(clusters: Vec<VerdictView>) -> ExplainView {
        ExplainView {
            task: None,
            because: "QUEUED".into(),
            message: "would wait: no cluster has room for it now".into(),
            ahead: Some(3),
            clusters,
        }
    }

    #[test]
    fn the_winner_comes_first_and_every_other_says_why_not() {
        let view = view(vec![
            verdict("mac", "FITS", "fits on node 1, score 9.60", Some(9.6)),
            verdict("hpc", "FITS", "fits on node 4, score 8", Some(8.0)),
            verdict("lab", "NO_ROOM", "its best node has CPU=1 free: CPU 2 short of 1", None),
        ]);
        insta::assert_snapshot!(explain(&view, Paint::when(false)), @r"
        It would start now, on mac. No change was made.

        CLUSTER  VERDICT  SCORE  WHY
        mac      chosen     9.6  fits on node 1, score 9.60
        hpc      fits         8  fits on node 4, score 8
        lab      NO_ROOM      -  its best node has CPU=1 free: CPU 2 short of 1
        ");
    }

    #[test]
    fn a_dry_run_that_would_wait_says_so() {
        let lab = verdict("lab", "DRAINING", "is draining", None);
        insta::assert_snapshot!(explain(&view(vec![lab]), Paint::when(false)), @r"
        Would wait: no cluster has room for it now. No change was made.

        CLUSTER  VERDICT   SCORE  WHY
        lab      DRAINING      -  is draining
        ");
    }
}
