//! Where a task can go: clusters are filtered, then scored, and a node is found in the best.
//!
//! One set of judgements serves the cycle, which wants the winner, and `explain`, which wants to
//! know what each cluster says.

use crate::bug::{self, Bug};
use crate::command::Rejection;
use crate::explain::{AHEAD_MAX, Because, Explanation, Score, Verdict};
use crate::mesh::{ClusterState, Mesh, NodeState};
use crate::model::amount::{Amount, Resources};
use crate::model::cluster::Breaker;
use crate::model::id::{ClusterId, ClusterName, NodeId, SpecId, TaskId};
use crate::model::label::{Labels, Otherwise};
use crate::model::task::{Kind, Phase, Shape, Task, TaskSpec, Work};
use crate::model::time::Timestamp;
use crate::schedule::queue::{Class, Site};

const GIB: f64 = 1_073_741_824.0;

/// What a cluster has against a shape for as long as its nodes stay what they are.
fn standing_objection(cluster: &ClusterState, shape: &Shape) -> Option<Verdict> {
    let affinity = &shape.affinity;
    if let Some(tag) = affinity.required.iter().find(|tag| !cluster.spec.tags.contains(*tag)) {
        return Some(Verdict::TagMissing(tag.clone()));
    }
    if let Some(tag) = affinity.avoided.iter().find(|tag| cluster.spec.tags.contains(*tag)) {
        return Some(Verdict::TagAvoided(tag.clone()));
    }
    if let (Some(task), Some(agent)) = (shape.python, &cluster.agent)
        && task != agent.python
    {
        return Some(Verdict::PythonDiffers { task, cluster: agent.python });
    }
    if cluster.nodes.is_empty() {
        return None;
    }
    let unmet = |labels: &Labels| affinity.labels.iter().find(|rule| !rule.holds(labels));
    let mut groups = cluster.groups.iter().map(|group| unmet(&group.labels));
    if let Some(Some(rule)) = groups.next()
        && groups.all(|unmet| unmet.is_some())
    {
        return Some(Verdict::LabelUnmet(rule.clone()));
    }
    if sites_in(cluster, shape).is_none() {
        let node = closest(cluster, shape, |node| &node.facts.total);
        let largest = node.map(|node| node.facts.total.clone()).unwrap_or_default();
        let short = largest.shortfall(&shape.resources)?;
        return Some(Verdict::TooBig { largest, short });
    }
    None
}

/// The groups of a cluster that a shape may use and that have a node large enough for it.
fn sites_in(cluster: &ClusterState, shape: &Shape) -> Option<Site> {
    let fits = |node: NodeId| {
        cluster.node(node).is_some_and(|n| n.alive && n.facts.total.covers(&shape.resources))
    };
    let groups: Vec<usize> = cluster
        .groups
        .iter()
        .enumerate()
        .filter(|(_, group)| shape.affinity.labels.iter().all(|rule| rule.holds(&group.labels)))
        .filter(|(_, group)| group.size.find(&shape.resources, &mut |node| fits(node)).is_some())
        .map(|(index, _)| index)
        .collect();
    (!groups.is_empty()).then_some(Site { cluster: cluster.id, groups })
}

/// The node that lacks least of what is asked, by the share of the request that is missing.
fn closest<'a>(
    cluster: &'a ClusterState,
    shape: &Shape,
    has: impl Fn(&NodeState) -> &Resources,
) -> Option<&'a NodeState> {
    let matches = |node: &&NodeState| {
        let labels = cluster.groups.get(node.slot.0).map(|group| &group.labels);
        node.alive && labels.is_some_and(|l| shape.affinity.labels.iter().all(|rule| rule.holds(l)))
    };
    let ask = &shape.resources;
    let part = |missing: Amount, asked: Amount| {
        if asked.is_zero() { 0.0 } else { missing.units() / asked.units() }
    };
    let lack = |node: &NodeState| {
        let missing = ask.minus_or_zero(has(node));
        let custom = ask.custom.iter().map(|(name, asked)| part(missing.custom(name), *asked));
        part(missing.cpu, ask.cpu)
            + part(missing.gpu, ask.gpu)
            + part(missing.memory, ask.memory)
            + custom.sum::<f64>()
    };
    let nodes = cluster.nodes.iter().filter(matches);
    nodes.min_by(|a, b| lack(a).total_cmp(&lack(b)))
}

/// The share that is used of a cluster's scarcest resource.
fn utilisation(cluster: &ClusterState) -> Amount {
    let (total, free) = (cluster.total(), cluster.free());
    let share = |total: Amount, free: Amount| {
        let used = total.minus_or_zero(free).units();
        if total.is_zero() {
            Amount::ZERO
        } else {
            Amount::from_units(used / total.units()).unwrap_or_default()
        }
    };
    let used = [(total.cpu, free.cpu), (total.gpu, free.gpu), (total.memory, free.memory)];
    used.into_iter().map(|(total, free)| share(total, free)).max().unwrap_or_default()
}

/// What a cluster has against new work just now, whatever the work asks for.
pub(super) fn passing_objection(
    now: Timestamp,
    cluster: &ClusterState,
    kind: Kind,
) -> Option<Verdict> {
    if !cluster.is_up() {
        let (link, since) = (cluster.link.word(), cluster.link.since());
        return Some(Verdict::NotReady { link, since });
    }
    if cluster.draining {
        return Some(Verdict::Draining);
    }
    match &cluster.breaker {
        Breaker::Open { until } => return Some(Verdict::BreakerOpen { until: *until }),
        Breaker::Probing { .. } => return Some(Verdict::BreakerProbing),
        Breaker::Closed | Breaker::Counting { .. } | Breaker::HalfOpen => {}
    }
    let limit = cluster.spec.max_utilisation;
    if limit < Amount::whole(1) {
        let used = utilisation(cluster);
        if used > limit {
            return Some(Verdict::OverUtilised { used, limit });
        }
    }
    match job_pause(cluster) {
        Some(until) if kind == Kind::Job && until > now => Some(Verdict::JobInterval { until }),
        _ => None,
    }
}

/// Until when a cluster wants no further job.
pub(super) fn job_pause(cluster: &ClusterState) -> Option<Timestamp> {
    cluster.last_job.map(|last| last.after(cluster.spec.job_interval))
}

fn full(cluster: &ClusterState) -> Option<Verdict> {
    let max = cluster.spec.max_tasks?;
    let allowed = usize::try_from(max).unwrap_or(usize::MAX);
    (cluster.leases() >= allowed).then_some(Verdict::TasksMax(max))
}

fn score(cluster: &ClusterState, shape: &Shape) -> Score {
    let (total, free) = (cluster.total(), cluster.free());
    let weight = cluster.spec.weight.units();
    let preferred = shape.affinity.preferred.iter().filter(|tag| cluster.spec.tags.contains(*tag));
    let affinity = preferred.fold(0.0, |sum, _| sum + Score::TAG);
    let idle = if total.cpu.is_zero() { 1.0 } else { free.cpu.units() / total.cpu.units() };
    Score {
        cpu: free.cpu.units() * weight,
        memory: free.memory.units() / GIB * 0.1 * weight,
        gpu: free.gpu.units() * 5.0,
        prefer: if cluster.spec.prefer { 1.2 } else { 1.0 },
        idle,
        affinity,
    }
}

impl Mesh {
    /// Where a shape may go at all.
    pub(super) fn sites(&self, shape: &Shape) -> Vec<Site> {
        let allowed =
            self.clusters.values().filter(|cluster| standing_objection(cluster, shape).is_none());
        allowed.filter_map(|cluster| sites_in(cluster, shape)).collect()
    }

    /// Refuses what no cluster could ever hold. A cluster that has not linked yet may be anything.
    pub(crate) fn check_feasible(
        &self,
        _now: Timestamp,
        spec: &TaskSpec,
        known: Option<SpecId>,
    ) -> Result<(), Rejection> {
        if matches!(spec.work, Work::Call { .. }) {
            return Ok(());
        }
        if let Some(name) = &spec.shape.affinity.cluster
            && self.cluster(name).is_none()
        {
            return Err(Rejection::UnknownCluster(name.clone()));
        }
        let class = known.and_then(|id| self.specs.get(&id)).and_then(|entry| entry.class);
        let has_site =
            |class: &Class| class.sites_of == Some(self.hints.fleet) && !class.sites.is_empty();
        let wanted = spec.shape.affinity.cluster.is_none();
        if wanted && class.and_then(|id| self.queue.get(id)).is_some_and(has_site) {
            return Ok(());
        }
        self.check_each(spec)
    }

    fn check_each(&self, spec: &TaskSpec) -> Result<(), Rejection> {
        let wanted = &spec.shape.affinity;
        let only = wanted.cluster.as_ref().filter(|_| wanted.otherwise == Otherwise::Wait);
        let mut objections = Vec::new();
        for cluster in self.clusters.values() {
            let verdict = match only {
                Some(name) if *name != cluster.name => Some(Verdict::OtherPreferred(name.clone())),
                _ => standing_objection(cluster, &spec.shape),
            };
            match verdict {
                None => return Ok(()),
                Some(verdict) => objections.push((cluster.name.clone(), verdict)),
            }
        }
        if objections.is_empty() || spec.wait_for_growth {
            Ok(())
        } else {
            Err(Rejection::Infeasible(objections))
        }
    }

    /// The one cluster that a shape may use now, because it prefers it and can have it, or will
    /// have no other.
    fn only<'a>(&self, shape: &'a Shape) -> Option<&'a ClusterName> {
        let name = shape.affinity.cluster.as_ref()?;
        let healthy = self.cluster(name).is_some_and(|cluster| {
            let works = matches!(cluster.breaker, Breaker::Closed | Breaker::Counting { .. });
            cluster.is_up() && !cluster.draining && works
        });
        (healthy || shape.affinity.otherwise == Otherwise::Wait).then_some(name)
    }

    /// What a cluster has against a shape, apart from room.
    fn objection(&self, now: Timestamp, cluster: &ClusterState, shape: &Shape) -> Option<Verdict> {
        match self.only(shape) {
            Some(name) if *name != cluster.name => {
                return Some(Verdict::OtherPreferred(name.clone()));
            }
            _ => {}
        }
        passing_objection(now, cluster, shape.kind).or_else(|| full(cluster))
    }

    /// The best cluster for a class now, and a node in it.
    pub(super) fn find_room(&self, now: Timestamp, class: &Class) -> Option<(ClusterId, NodeId)> {
        let mut best: Option<(f64, ClusterId, NodeId)> = None;
        let mut last_choice = None;
        for site in &class.sites {
            let Some(cluster) = self.clusters.get(&site.cluster) else { continue };
            if self.objection(now, cluster, &class.shape).is_some() {
                continue;
            }
            let Some(node) = self.node_in(cluster, site, &class.shape.resources) else { continue };
            if class.avoid == Some(cluster.id) {
                last_choice = Some((cluster.id, node));
                continue;
            }
            let total = score(cluster, &class.shape).total();
            if best.is_none_or(|(most, ..)| total > most) {
                best = Some((total, cluster.id, node));
            }
        }
        best.map(|(_, cluster, node)| (cluster, node)).or(last_choice)
    }

    fn node_in(&self, cluster: &ClusterState, site: &Site, ask: &Resources) -> Option<NodeId> {
        let most = self.limits.leases_per_node;
        if bug::is(Bug::Overbook) {
            return (0..).zip(&cluster.nodes).find(|(_, n)| n.alive).map(|(id, _)| NodeId(id));
        }
        let mut fits = |id: NodeId| {
            cluster
                .node(id)
                .is_some_and(|node| node.alive && node.leases < most && node.free().covers(ask))
        };
        let mut groups = site.groups.iter().filter_map(|group| cluster.groups.get(*group));
        groups.find_map(|group| group.room.find(ask, &mut fits))
    }

    /// What a cluster says about a shape, with the numbers.
    fn verdict(&self, now: Timestamp, cluster: &ClusterState, shape: &Shape) -> Verdict {
        let standing = standing_objection(cluster, shape);
        if let Some(verdict) = standing.or_else(|| self.objection(now, cluster, shape)) {
            return verdict;
        }
        let node = sites_in(cluster, shape)
            .and_then(|site| self.node_in(cluster, &site, &shape.resources))
            .and_then(|node| cluster.node(node));
        if let Some(node) = node {
            let score = score(cluster, shape);
            return Verdict::Fits { node: node.facts.name.clone(), score };
        }
        let free = closest(cluster, shape, NodeState::free).map(|node| node.free().clone());
        let free = free.unwrap_or_default();
        match free.shortfall(&shape.resources) {
            Some(short) => Verdict::NoRoom { free, short },
            None => {
                Verdict::TasksMax(u32::try_from(self.limits.leases_per_node).unwrap_or(u32::MAX))
            }
        }
    }

    /// What each cluster says about a shape: those that fit first, by score, the others by name.
    fn verdicts(&self, now: Timestamp, shape: &Shape) -> Vec<(ClusterName, Verdict)> {
        let judge =
            |cluster: &ClusterState| (cluster.name.clone(), self.verdict(now, cluster, shape));
        let mut verdicts: Vec<_> = self.clusters.values().map(judge).collect();
        let rank = |verdict: &Verdict| match verdict {
            Verdict::Fits { score, .. } => score.total(),
            _ => f64::NEG_INFINITY,
        };
        verdicts.sort_by(|(a_name, a), (b_name, b)| {
            rank(b).total_cmp(&rank(a)).then_with(|| a_name.cmp(b_name))
        });
        verdicts
    }

    /// What each cluster would say about a task like this, if it were submitted now.
    pub fn explain_spec(&self, now: Timestamp, spec: &TaskSpec) -> Vec<(ClusterName, Verdict)> {
        self.verdicts(now, &spec.shape)
    }

    /// Why a task is where it is.
    pub fn explain(&self, now: Timestamp, id: TaskId) -> Result<Explanation, Rejection> {
        let task = self.task(id).ok_or(Rejection::UnknownTask(id))?;
        let spec = self.spec(task.spec).ok_or(Rejection::UnknownTask(id))?;
        let because = self.because(task, spec);
        let clusters = match (&spec.work, &task.phase) {
            (Work::Call { .. }, _) | (_, Phase::Ended(_)) => Vec::new(),
            (_, Phase::Queued | Phase::Delayed { .. }) => self.verdicts(now, &spec.shape),
            (_, Phase::Assigned { .. } | Phase::Running { .. } | Phase::Stopping { .. }) => {
                Vec::new()
            }
        };
        Ok(Explanation { task: id, because, clusters })
    }

    fn because(&self, task: &Task, spec: &TaskSpec) -> Because {
        let cluster = self.cluster_of(task.id).and_then(|id| self.cluster_by_id(id));
        let name = cluster.map(|cluster| cluster.name.clone());
        if let (Some(cluster), Phase::Assigned { .. } | Phase::Running { .. }) =
            (cluster, &task.phase)
            && !cluster.is_up()
        {
            return Because::Unreachable(cluster.name.clone());
        }
        match (&task.phase, &spec.work, name) {
            (Phase::Assigned { .. }, _, Some(name)) => Because::Assigned(name),
            (Phase::Running { .. }, _, Some(name)) => Because::Running(name),
            (Phase::Stopping { .. }, _, Some(name)) => Because::Stopping(name),
            (Phase::Delayed { until, last }, ..) => {
                Because::Delayed { until: *until, last: last.clone() }
            }
            (Phase::Ended(_), ..) => Because::Ended,
            (_, Work::Call { actor, .. }, _) => Because::WaitsForActor(*actor),
            _ if self.clusters.is_empty() => Because::NoClusters,
            _ => Because::Queued { ahead: self.ahead_of(task, spec) },
        }
    }

    /// Tasks that go before a task: those of classes that rank higher, and those before it in its own.
    fn ahead_of(&self, task: &Task, spec: &TaskSpec) -> usize {
        let own = self.queue.find(&spec.shape, task.avoid);
        let mut ahead = 0;
        for (_, class) in self.queue.iter().filter(|(_, class)| !class.pending.is_empty()) {
            let higher = class.shape.priority > spec.shape.priority;
            let same = class.shape.priority == spec.shape.priority;
            ahead += match (higher, same) {
                (true, _) => class.pending.len(),
                (_, true) => class.pending.range(..task.id).take(AHEAD_MAX).count(),
                _ => 0,
            };
        }
        debug_assert!(own.is_some(), "a queued task is in a class");
        ahead.min(AHEAD_MAX)
    }
}
