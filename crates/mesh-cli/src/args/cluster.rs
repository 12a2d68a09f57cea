//! `schedulemesh cluster`.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, Subcommand};
use mesh_api::v1::ClusterBody;

use super::submit::{number, pair};

/// What can be done with clusters.
#[derive(Clone, Debug, Subcommand)]
pub enum ClusterCommand {
    /// List clusters: link, resources, tasks
    Ls,
    /// Register a cluster, or change what was said about it
    Add(Box<AddArgs>),
    /// Show everything about a cluster and its nodes
    Show {
        /// Its name
        name: String,
    },
    /// Forget a cluster
    Rm {
        /// Its name
        name: String,
        /// Even while work runs there: it counts as lost, and is retried elsewhere as it says
        #[arg(long)]
        force: bool,
    },
    /// Check that a cluster's agent and its Ray answer
    Test {
        /// Its name
        name: String,
    },
    /// Send no new work to a cluster; what runs there ends in peace
    Drain {
        /// Its name
        name: String,
        /// Send work again
        #[arg(long)]
        undo: bool,
    },
    /// Print the token with which the agent of this cluster, and no other, may link
    Token {
        /// Its name
        name: String,
    },
}

/// `schedulemesh cluster add`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
An agent must run in each cluster. There are three ways to start it:
  --dashboard URL   the control plane starts it through Ray's Jobs API
  --agent URL       it listens (`schedulemesh agent --listen`), and the control plane dials it
  neither           you start it on a node of the cluster, and it dials the control plane

Examples:
  schedulemesh cluster add mac --dashboard http://127.0.0.11:8265 --tag macos --tag arm64 --prefer
  schedulemesh cluster add hpc --weight 2 --label site=zh
  SCHEDULEMESH_TOKEN=$(schedulemesh cluster token hpc) schedulemesh agent --server URL --cluster hpc")]
pub struct AddArgs {
    /// Its name
    pub name: String,
    /// Change the settings of a cluster that is registered already
    #[arg(long)]
    pub replace: bool,
    /// The cluster's dashboard, such as http://127.0.0.11:8265
    #[arg(long, value_name = "URL")]
    pub dashboard: Option<String>,
    /// Where its agent listens, such as ws://10.0.0.7:7420
    #[arg(long, value_name = "URL")]
    pub agent: Option<String>,
    /// Where the control plane finds the secret for it: env:NAME or file:PATH
    #[arg(long, value_name = "REF")]
    pub secret: Option<String>,
    /// A word that tasks may require, prefer or avoid; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// A label of all its nodes; may be repeated
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = pair)]
    pub labels: Vec<(String, String)>,
    /// Multiplies its score [default: 1]
    #[arg(long, value_name = "N", value_parser = number)]
    pub weight: Option<f64>,
    /// Multiplies its score by 1.2
    #[arg(long)]
    pub prefer: bool,
    /// No new work while CPU, GPU or memory are used above this share, such as 0.7
    #[arg(long, value_name = "SHARE", value_parser = number)]
    pub max_utilisation: Option<f64>,
    /// Most tasks at once; 1 is serial mode
    #[arg(long, value_name = "N")]
    pub max_tasks: Option<u32>,
    /// Least time between the starts of two jobs
    #[arg(long, value_name = "TIME", value_parser = crate::units::duration)]
    pub job_interval: Option<Duration>,
    /// How long its agent may be silent before it counts as lost
    #[arg(long, value_name = "TIME", value_parser = crate::units::duration)]
    pub lost_after: Option<Duration>,
    /// The runtime environment of work that brings none, as JSON
    #[arg(long, value_name = "JSON", value_parser = json)]
    pub runtime_env: Option<serde_json::Value>,
}

impl AddArgs {
    /// The body of the API.
    pub fn body(&self) -> ClusterBody {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        ClusterBody {
            name: self.name.clone(),
            dashboard: self.dashboard.clone(),
            agent: self.agent.clone(),
            token: self.secret.clone(),
            weight: self.weight,
            prefer: self.prefer,
            tags: self.tags.clone(),
            labels: self.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
            runtime_env: self.runtime_env.clone(),
            max_utilisation: self.max_utilisation,
            max_tasks: self.max_tasks,
            job_interval_ms: self.job_interval.map(millis),
            lost_after_ms: self.lost_after.map(millis),
            breaker_failures: None,
            breaker_recovery_ms: None,
        }
    }
}

fn json(text: &str) -> Result<serde_json::Value, String> {
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))
}
