//! The commands that run something: the control plane, an agent, or both for trying out.

use std::path::PathBuf;

use clap::Args;

/// `schedulemesh serve`: a flag for each setting, so that all are found in one place. What they mean
/// is checked by the server, together with file and environment.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
A flag wins over the environment (SCHEDULEMESH_<SETTING>), which wins over the file, which wins over \
the default; --print-config shows each value and where it came from.

Examples:
  schedulemesh serve
  schedulemesh serve --listen 127.0.0.1:7420 --state-dir /var/lib/schedulemesh
  schedulemesh serve --queue-max 2000000 --retention 3d --print-config

The first start makes a token in STATE_DIR/admin.token. Commands and programs of the same user on \
the same machine find it there; elsewhere say SCHEDULEMESH_URL and SCHEDULEMESH_TOKEN.")]
pub struct ServeArgs {
    /// The configuration file [default: STATE_DIR/config.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the settings and where each came from, and stop
    #[arg(long)]
    pub print_config: bool,
    /// Where to listen; port 0 picks a free one [default: 127.0.0.1:7420]
    #[arg(long, value_name = "HOST:PORT", help_heading = "Settings")]
    listen: Option<String>,
    /// The address under which agents reach it, when that is not where it listens
    #[arg(long, value_name = "URL", help_heading = "Settings")]
    advertise_url: Option<String>,
    /// Allow an address beyond this machine without TLS
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", help_heading = "Settings")]
    insecure_bind: Option<String>,
    /// The certificate chain, as PEM
    #[arg(long, value_name = "FILE", help_heading = "Settings")]
    tls_cert: Option<String>,
    /// The private key, as PEM
    #[arg(long, value_name = "FILE", help_heading = "Settings")]
    tls_key: Option<String>,
    /// Most tasks that wait
    #[arg(long, value_name = "COUNT", help_heading = "Settings")]
    queue_max: Option<String>,
    /// How long records and results of ended tasks are kept
    #[arg(long, value_name = "DURATION", help_heading = "Settings")]
    retention: Option<String>,
    /// Most records of ended tasks
    #[arg(long, value_name = "COUNT", help_heading = "Settings")]
    ended_max: Option<String>,
    /// How long an agent may be silent before its cluster counts as lost
    #[arg(long, value_name = "DURATION", help_heading = "Settings")]
    lost_after: Option<String>,
    /// How often both sides of a link say something
    #[arg(long, value_name = "DURATION", help_heading = "Settings")]
    heartbeat: Option<String>,
    /// More host names, comma-separated, under which it may be called
    #[arg(long, value_name = "NAMES", help_heading = "Settings")]
    allowed_hosts: Option<String>,
    /// Most bytes in a JSON body
    #[arg(long, value_name = "SIZE", help_heading = "Settings")]
    body_max: Option<String>,
    /// What to log: error, warn, info, debug, trace, also by target
    #[arg(long, value_name = "FILTER", help_heading = "Settings")]
    log_level: Option<String>,
    /// How log lines look: text or json
    #[arg(long, value_name = "FORMAT", help_heading = "Settings")]
    log_format: Option<String>,
    /// A YAML file of clusters that are registered at the start
    #[arg(long, value_name = "FILE", help_heading = "Settings")]
    clusters_file: Option<String>,
}

impl ServeArgs {
    /// The settings that were said, by name.
    pub fn settings(&self) -> Vec<(String, String)> {
        let all = [
            ("listen", &self.listen),
            ("advertise-url", &self.advertise_url),
            ("insecure-bind", &self.insecure_bind),
            ("tls-cert", &self.tls_cert),
            ("tls-key", &self.tls_key),
            ("queue-max", &self.queue_max),
            ("retention", &self.retention),
            ("ended-max", &self.ended_max),
            ("lost-after", &self.lost_after),
            ("heartbeat", &self.heartbeat),
            ("allowed-hosts", &self.allowed_hosts),
            ("body-max", &self.body_max),
            ("log-level", &self.log_level),
            ("log-format", &self.log_format),
            ("clusters-file", &self.clusters_file),
        ];
        let said = |(key, value): (&str, &Option<String>)| Some((key.to_owned(), value.clone()?));
        all.into_iter().filter_map(said).collect()
    }
}

/// `schedulemesh agent`.
#[derive(Clone, Debug, Args)]
#[command(
    disable_help_flag = true,
    after_help = "\
Runs `python -m schedulemesh.agent` with the Python of this installation; `schedulemesh agent \
--help` shows its options. It must run on a node of the cluster, in an environment that has ray.

Example:
  SCHEDULEMESH_TOKEN=$(schedulemesh cluster token mac) \\
      schedulemesh agent --server http://10.0.0.5:7420 --cluster mac --ray-address auto"
)]
pub struct AgentArgs {
    /// Passed on to the agent
    #[arg(value_name = "ARGS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

/// `schedulemesh up`.
#[derive(Clone, Debug, Args)]
#[command(
    disable_help_flag = true,
    after_help = "\
Runs `python -m schedulemesh.up` with the Python of this installation; `schedulemesh up --help` \
shows its options. It needs ray in the same environment.

Examples:
  schedulemesh up
  schedulemesh up --clusters 3 --cpus 1"
)]
pub struct UpArgs {
    /// Passed on
    #[arg(value_name = "ARGS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};
    use mesh_server::config::SETTINGS;

    use crate::args::{Cli, Command};

    #[test]
    fn every_setting_of_the_server_has_its_flag() {
        for setting in SETTINGS.iter().filter(|setting| setting.key != "state-dir") {
            let flag = format!("--{}=true", setting.key);
            let cli = Cli::try_parse_from(["schedulemesh", "serve", &flag]).expect(setting.key);
            let Command::Serve(args) = cli.command else { panic!("{flag} is not of serve") };
            assert_eq!(args.settings(), [(setting.key.to_owned(), "true".to_owned())]);
        }
        let mut command = Cli::command();
        command.build();
        let serve = command.find_subcommand("serve").expect("there");
        let flags = serve.get_arguments().filter(|arg| arg.get_help_heading() == Some("Settings"));
        assert_eq!(flags.count(), SETTINGS.len() - 1, "a flag without a setting");
    }
}
