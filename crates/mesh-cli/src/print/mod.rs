//! What reaches the terminal. Data goes to stdout and nothing else does; talk goes to stderr.
//! Text that others wrote (names, messages, logs) is made harmless first.

pub mod explain;
pub mod recovery;
pub mod table;
pub mod text;
pub mod views;

use std::io::{IsTerminal, Write as _};

use mesh_api::problem::Problem;
use serde::Serialize;

use crate::args::Output;
use text::{Paint, harmless};

/// Where a command prints.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    output: Output,
    paint: Paint,
}

impl Printer {
    /// Prints in `output`; in colours when stdout is a terminal and `NO_COLOR` is not set.
    pub fn new(output: Output) -> Self {
        Self { output, paint: Paint::when(wants_colours(&std::io::stdout())) }
    }

    /// Whether JSON was asked for.
    pub fn is_json(self) -> bool {
        self.output == Output::Json
    }

    /// Prints `data`: itself as JSON, or as `table` makes it.
    pub fn data<T: Serialize>(
        self,
        data: &T,
        table: impl FnOnce(&T, Paint) -> String,
    ) -> Result<(), Problem> {
        let text = match self.output {
            Output::Table => table(data, self.paint),
            Output::Json => serde_json::to_string_pretty(data).map_err(|error| {
                Problem::new("INTERNAL", format!("the answer cannot be printed: {error}"), "")
            })?,
        };
        line(&text);
        Ok(())
    }

    /// Clears the screen before something is printed again, on a terminal.
    pub fn fresh_screen(self) {
        if std::io::stdout().is_terminal() && !self.is_json() {
            raw("\x1b[H\x1b[2J");
        }
    }
}

/// Whether a stream is a terminal on which colours are welcome.
pub fn wants_colours(stream: &impl IsTerminal) -> bool {
    let asked_not_to = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !asked_not_to
}

/// Prints a line of data to stdout.
pub fn line(text: &str) {
    raw(&format!("{}\n", text.trim_end_matches('\n')));
}

/// Prints data to stdout as it is. A reader that has gone, such as `head`, is no error of ours.
pub fn raw(text: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        // Nobody reads on; whoever prints in a loop finds out here.
        #[expect(clippy::exit, reason = "the reader is gone, as after `| head`")]
        std::process::exit(0);
    }
}

/// Says something to the person at the terminal, on stderr.
pub fn say(text: &str) {
    let mut err = std::io::stderr().lock();
    // When stderr is closed there is nobody to tell.
    drop(writeln!(err, "{text}"));
}

/// Prints what went wrong, in the one form that all errors have.
pub fn problem(problem: &Problem, output: Output) {
    say(&match output {
        Output::Table => show_problem(problem),
        Output::Json => serde_json::to_string(problem).unwrap_or_else(|_| show_problem(problem)),
    });
}

fn show_problem(problem: &Problem) -> String {
    let mut lines = vec![format!("error[{}]: {}", problem.code, harmless(&problem.message))];
    lines.extend(problem.details.iter().map(|detail| format!("  why:  {}", harmless(detail))));
    if !problem.remedy.is_empty() {
        lines.push(format!("  fix:  {}", harmless(&problem.remedy)));
    }
    if crate::codes::find(&problem.code).next().is_some() {
        lines.push(format!("  more: schedulemesh why {}", problem.code));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_what_why_and_the_way_out() {
        let mut problem = Problem::new("INFEASIBLE", "no cluster can run this", "ask for less");
        problem.details = vec!["mac: its best node has CPU=8".into(), "bad \x1b[31m name".into()];
        insta::assert_snapshot!(show_problem(&problem), @r"
        error[INFEASIBLE]: no cluster can run this
          why:  mac: its best node has CPU=8
          why:  bad \u{1b}[31m name
          fix:  ask for less
          more: schedulemesh why INFEASIBLE
        ");
    }
}
