//! The reference pages are what the code says. `make reference` writes them anew.

use std::fmt::Write as _;
use std::path::Path;

use clap::CommandFactory as _;
use mesh_cli::args::Cli;
use mesh_cli::codes::{ENTRIES, Topic};
use mesh_server::config::SETTINGS;

const NOTE: &str = "<!-- Made from the code by `make reference`; do not edit. -->\n";

fn check(page: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference").join(page);
    #[expect(clippy::disallowed_methods, reason = "how the person at the keyboard asks for it")]
    let update = std::env::var("UPDATE_EXPECT").is_ok_and(|value| value == "1");
    if update {
        std::fs::write(&path, text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == text, "{} is out of date; run `make reference`", path.display());
}

#[test]
fn reference_of_errors() {
    let mut page = format!("{NOTE}\n# Codes\n\nThe same text as `schedulemesh why CODE`.\n");
    for topic in Topic::ALL {
        write!(page, "\n## {}\n", topic.title()).unwrap();
        for entry in ENTRIES.iter().filter(|entry| entry.topic == topic) {
            write!(page, "\n### {}\n\n{}\n\n{}\n", entry.code, entry.what, entry.fix).unwrap();
        }
    }
    check("errors.md", &page);
}

#[test]
fn reference_of_the_command_line() {
    let mut page = format!(
        "{NOTE}\n# The command line\n\nThe global options of the first section belong to every command.\n"
    );
    let mut root = Cli::command().term_width(100);
    root.build();
    describe(&mut root, "schedulemesh", &mut page);
    check("cli.md", &page);
}

fn describe(command: &mut clap::Command, name: &str, page: &mut String) {
    let help = command.render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    write!(page, "\n## {name}\n\n```text\n{}\n```\n", help.join("\n").trim_end()).unwrap();
    for child in command.get_subcommands_mut().filter(|child| child.get_name() != "help") {
        let name = format!("{name} {}", child.get_name());
        let mut child = child.clone().mut_args(|arg| {
            let global = arg.is_global_set();
            arg.hide(global)
        });
        describe(&mut child, &name, page);
    }
}

#[test]
fn reference_of_the_configuration() {
    let mut page = format!(
        "{NOTE}\n# Configuration\n\n\
         A flag wins over the environment, which wins over the file, which wins over the default. The \
         file is TOML: `--config`, else `SCHEDULEMESH_CONFIG`, else `config.toml` in the state \
         directory. Unknown keys are errors, and all mistakes are reported at once. `schedulemesh \
         serve --print-config` shows each value and where it came from.\n\n\
         | key in the file, and flag | variable | form | default | |\n|---|---|---|---|---|\n"
    );
    for setting in SETTINGS {
        let variable = setting.key.to_ascii_uppercase().replace('-', "_");
        let default = match setting.default {
            "" => String::new(),
            value => format!("`{value}`"),
        };
        let (form, help) = (setting.form.replace('|', " or "), setting.help);
        let key = setting.key;
        writeln!(page, "| `{key}` | `SCHEDULEMESH_{variable}` | {form} | {default} | {help} |")
            .unwrap();
    }
    check("config.md", &page);
}

#[test]
fn reference_of_the_metrics() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mesh-server/src/metrics.rs");
    let source = std::fs::read_to_string(path).unwrap();
    let mut page = format!(
        "{NOTE}\n# Metrics\n\n\
         `GET /metrics`, in the text format of Prometheus, with the admin token. Counters end in \
         `_total`, histograms in `_bucket`, `_sum` and `_count`. Labels have few values: never task \
         ids.\n\n| metric | |\n|---|---|\n"
    );
    let mut found = 0;
    for call in source.split(".register(").skip(1) {
        let mut texts = call.split('"').skip(1).step_by(2);
        let (name, help) = (texts.next().unwrap(), texts.next().unwrap());
        writeln!(page, "| `schedulemesh_{name}` | {help} |").unwrap();
        found += 1;
    }
    assert!(found > 10, "metrics are registered with their name and help: {found}");
    check("metrics.md", &page);
}
