//! Starts agents through the Jobs REST API of clusters whose dashboard is known, and starts them
//! again when they end. The agent is the driver of a job of its own: what the job says is what is
//! there, so that nothing needs to be remembered here.

pub(crate) mod jobs;
mod package;

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_api::convert::{Reach, reach};
use mesh_api::problem::Problem;
use mesh_core::model::id::ClusterName;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use crate::http::App;
use jobs::{Job, JobsApi, NewJob, RuntimeEnv};

/// How often the clusters are looked at, when nobody says that they changed.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often a cluster without a link is looked at while its agent starts.
const WATCH_EVERY: Duration = Duration::from_millis(500);
/// How long an agent's job may take until its link is up.
const LINK_WITHIN: Duration = Duration::from_mins(1);
/// How long an agent that is not needed any more may take to end its work and then itself.
const LEAVE_WITHIN: Duration = Duration::from_secs(7);
/// The waits between attempts that failed.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// Keeps an agent in every cluster whose dashboard is known, until the server stops.
pub(crate) async fn run(app: App) {
    let mut kept: BTreeMap<ClusterName, (Reach, AbortHandle)> = BTreeMap::new();
    loop {
        let wanted = app.handle.read(|mesh, _now| {
            let all = mesh.clusters().map(|cluster| (cluster.name.clone(), reach(&cluster.spec)));
            all.filter(|(_name, reach)| reach.dashboard.is_some()).collect::<BTreeMap<_, _>>()
        });
        let Ok(wanted) = wanted.await else { break };
        kept.retain(|name, (reach, task)| {
            let keep = wanted.get(name) == Some(&*reach);
            if !keep {
                task.abort();
                let dashboard = wanted.get(name).map(|reach| &reach.dashboard);
                if dashboard != Some(&reach.dashboard) {
                    tokio::spawn(Keeper::new(app.clone(), name.clone(), reach).dismiss());
                }
            }
            keep
        });
        for (name, reach) in wanted {
            kept.entry(name.clone()).or_insert_with(|| {
                let keeper = Keeper::new(app.clone(), name, &reach);
                (reach, tokio::spawn(keeper.keep()).abort_handle())
            });
        }
        tokio::select! {
            () = app.clusters_changed.notified() => {}
            () = sleep(LOOK_EVERY) => {}
            () = app.closing.cancelled() => break,
        }
    }
    for (_reach, task) in kept.into_values() {
        task.abort();
    }
}

/// Looks after the agent of one cluster.
struct Keeper {
    app: App,
    cluster: ClusterName,
    dashboard: String,
    token: Option<String>,
    /// What the ids of its jobs begin with: another control plane's begin differently.
    prefix: String,
}

impl Keeper {
    fn new(app: App, cluster: ClusterName, reach: &Reach) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
        let name: String = cluster.as_str().chars().map(plain).collect();
        let prefix = format!("sm-agent-{name}-{}-", app.tokens.mark(&cluster));
        let dashboard = reach.dashboard.clone().unwrap_or_default();
        Self { app, cluster, dashboard, token: reach.token.clone(), prefix }
    }

    async fn keep(self) {
        let (shortest, longest) = BACKOFF;
        let mut wait = shortest;
        // An agent that was there before this server started is given the time to come back.
        sleep(self.app.config.heartbeat.min(LOOK_EVERY)).await;
        loop {
            match self.attend().await {
                Ok(()) => wait = shortest,
                Err(problem) => {
                    let (cluster, message) = (&self.cluster, &problem.message);
                    tracing::warn!(%cluster, code = %problem.code, %message, "agent not started");
                    let trouble = format!("{message}; {}", problem.remedy);
                    self.tell(Some(trouble.trim_end_matches("; ").to_owned()));
                    wait = (wait * 2).min(longest);
                }
            }
            sleep(wait).await;
        }
    }

    /// Returns when the link is up; starts an agent when there is none.
    async fn attend(&self) -> Result<(), Problem> {
        if self.is_linked().await? {
            return Ok(());
        }
        let api = JobsApi::new(&self.dashboard, self.token.as_deref())?;
        let jobs = self.jobs(&api).await?;
        let id = match jobs.values().rev().find(|job| job.is_alive()) {
            Some(job) if job.entrypoint == self.entrypoint() => self.id(&jobs, job),
            // It dials where this server no longer is.
            Some(stale) => {
                let id = self.id(&jobs, stale);
                api.stop(&id).await?;
                tracing::info!(cluster = %self.cluster, job = id, "agent of another address stopped");
                self.start(&api, &jobs).await?
            }
            None => self.start(&api, &jobs).await?,
        };
        self.await_link(&api, &id).await
    }

    /// Ends the agent of a cluster that is gone, or that is reached elsewhere now.
    async fn dismiss(self) {
        let (mut wait, longest) = BACKOFF;
        sleep(LEAVE_WITHIN).await;
        while wait < longest {
            match self.stop_all().await {
                Ok(()) => return,
                Err(problem) => {
                    let (cluster, message) = (&self.cluster, &problem.message);
                    tracing::warn!(%cluster, code = %problem.code, %message, "agent not stopped");
                }
            }
            sleep(wait).await;
            wait *= 2;
        }
    }

    async fn stop_all(&self) -> Result<(), Problem> {
        let (name, dashboard) = (self.cluster.clone(), self.dashboard.clone());
        let back = self.app.handle.read(move |mesh, _now| {
            let known = mesh.cluster(&name).and_then(|cluster| reach(&cluster.spec).dashboard);
            known.as_deref() == Some(&*dashboard)
        });
        if back.await? {
            return Ok(()); // somebody has thought better of it
        }
        let api = JobsApi::new(&self.dashboard, self.token.as_deref())?;
        let jobs = self.jobs(&api).await?;
        for job in jobs.values().filter(|job| job.is_alive()) {
            let id = self.id(&jobs, job);
            api.stop(&id).await?;
            tracing::info!(cluster = %self.cluster, job = id, "agent stopped");
        }
        Ok(())
    }

    /// The jobs of this cluster's agents, by their number.
    async fn jobs(&self, api: &JobsApi) -> Result<BTreeMap<u64, Job>, Problem> {
        let numbered = |job: Job| {
            let number = job.submission_id.as_deref()?.strip_prefix(&self.prefix)?.parse().ok()?;
            Some((number, job))
        };
        Ok(api.jobs().await?.into_iter().filter_map(numbered).collect())
    }

    fn id(&self, jobs: &BTreeMap<u64, Job>, job: &Job) -> String {
        let last = jobs.keys().last().copied().unwrap_or(0);
        job.submission_id.clone().unwrap_or_else(|| format!("{}{last}", self.prefix))
    }

    async fn start(&self, api: &JobsApi, jobs: &BTreeMap<u64, Job>) -> Result<String, Problem> {
        let package = package::package()?;
        api.upload(&package.name, &package.bytes).await?;
        let number = jobs.keys().last().map_or(1, |last| last + 1);
        let id = format!("{}{number}", self.prefix);
        let token = self.app.tokens.agent(&self.cluster);
        let job = NewJob {
            submission_id: id.clone(),
            entrypoint: self.entrypoint(),
            runtime_env: RuntimeEnv {
                working_dir: format!("gcs://{}", package.name),
                env_vars: BTreeMap::from([("SCHEDULEMESH_TOKEN".to_owned(), token)]),
            },
            metadata: BTreeMap::from([("schedulemesh".to_owned(), self.cluster.to_string())]),
        };
        api.submit(&job).await?;
        tracing::info!(cluster = %self.cluster, job = id, "agent submitted");
        Ok(id)
    }

    fn entrypoint(&self) -> String {
        let server = quoted(&self.app.advertised);
        let cluster = quoted(self.cluster.as_str());
        format!(
            "python -m schedulemesh.agent --server {server} --cluster {cluster} --ray-address auto"
        )
    }

    async fn await_link(&self, api: &JobsApi, id: &str) -> Result<(), Problem> {
        let deadline = Instant::now() + LINK_WITHIN;
        loop {
            sleep(WATCH_EVERY).await;
            if self.is_linked().await? {
                self.tell(None);
                return Ok(());
            }
            let jobs = self.jobs(api).await?;
            let job = jobs.into_values().find(|job| job.submission_id.as_deref() == Some(id));
            match job {
                None => return Err(self.vanished(id)),
                Some(job) if !job.is_alive() => return Err(self.ended(api, id, &job).await),
                Some(_alive) if Instant::now() > deadline => return Err(self.silent(id)),
                Some(_alive) => {}
            }
        }
    }

    async fn is_linked(&self) -> Result<bool, Problem> {
        let name = self.cluster.clone();
        let up = move |state: &mesh_core::ClusterState| state.is_up();
        self.app.handle.read(move |mesh, _now| mesh.cluster(&name).is_none_or(up)).await
    }

    fn tell(&self, trouble: Option<String>) {
        self.app.handle.shared.agents.set_trouble(&self.cluster, trouble);
    }

    fn vanished(&self, id: &str) -> Problem {
        let message = format!("the agent's job {id} is not known to {} any more", self.dashboard);
        Problem::new("AGENT_UNREACHABLE", message, "it is submitted again")
    }

    async fn ended(&self, api: &JobsApi, id: &str, job: &Job) -> Problem {
        // Why it ended matters more than why its log can't be had.
        let logs = api.logs(id).await.unwrap_or_default();
        let last = logs.lines().rev().map(str::trim).find(|line| !line.is_empty());
        let why = last.or(job.message.as_deref()).unwrap_or("it left no message");
        Problem::new(
            "AGENT_UNREACHABLE",
            format!("the agent's job {id} ended as {}: {why}", job.status),
            format!("see its log with `ray job logs {id}`; it is submitted again"),
        )
    }

    fn silent(&self, id: &str) -> Problem {
        let (server, waited) = (&self.app.advertised, LINK_WITHIN.as_secs());
        Problem::new(
            "AGENT_UNREACHABLE",
            format!("the agent's job {id} runs, but it did not reach {server} within {waited} s"),
            "check that the cluster can reach that address, or set advertise-url",
        )
    }
}

/// A word of a shell command, whatever it holds.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:/".contains(c);
    if word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_word() {
        assert_eq!(quoted("http://10.0.0.7:7420"), "http://10.0.0.7:7420");
        assert_eq!(quoted("北京"), "'北京'");
        assert_eq!(quoted("a'; rm -rf ~ #"), r"'a'\''; rm -rf ~ #'");
    }
}
