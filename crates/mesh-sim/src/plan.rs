//! What a seed stands for: a small world, and which faults come over it. Half of the faults are left
//! out of each seed (swarm testing: Groce et al., ISSTA 2012), because faults that always come
//! together hide what each of them does alone.

use std::fmt;

use fastrand::Rng;
use mesh_core::Limits;
use mesh_core::model::time::Span;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $word:literal),* $(,)?) => {
        /// Something that goes wrong in the world.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $($(#[$doc])* $name,)*
        }

        impl Fault {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its name.
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

faults! {
    /// The control plane dies between two turns.
    ServerKill = "server killed",
    /// The control plane dies in a commit, of which nothing is kept.
    TornCommit = "server killed in a commit, torn",
    /// The control plane dies in a commit, which is kept.
    KeptCommit = "server killed in a commit, kept",
    /// The power fails: peers are not told that their connections are gone.
    PowerLoss = "power lost",
    /// The control plane ends as it should, and comes back.
    CleanRestart = "clean restart",
    /// The disk is full for a while.
    DiskFull = "disk full",
    /// A write or its sync fails, and was not kept.
    DiskFailed = "sync failed",
    /// A sync fails, and was kept.
    DiskLied = "sync failed but kept",
    /// Commits take seconds.
    DiskSlow = "disk slow",
    /// Arguments or results can't be read back.
    BitFlip = "stored bytes damaged",
    /// A connection breaks, with what was under way.
    Cut = "connection cut",
    /// Nothing comes through any more, and nobody is told.
    Partition = "partition",
    /// Nothing comes through in one direction.
    HalfOpen = "half-open connection",
    /// Everything takes long.
    Delay = "network slow",
    /// An answer to a client is lost.
    LostAnswer = "answer lost",
    /// The same request arrives twice.
    Duplicate = "request duplicated",
    /// An agent dies.
    AgentKill = "agent killed",
    /// An agent stands still for a while.
    AgentFreeze = "agent frozen",
    /// A node of a Ray cluster dies.
    NodeLoss = "node lost",
    /// The head of a Ray cluster dies, and all its work with it.
    HeadRestart = "head restarted",
    /// The process of one task dies.
    WorkerDeath = "worker died",
    /// Ray forgets a job.
    JobForgotten = "job forgotten",
    /// Work can't be started.
    StartFails = "start failed",
    /// Work takes long to start.
    SlowStart = "slow start",
    /// An agent reports what it reported before, or what it never ran.
    Nonsense = "false report",
    /// A wall clock jumps.
    ClockJump = "clock jumped",
    /// A cluster is drained, or its settings change.
    ClusterChange = "cluster changed",
    /// A cluster is removed while it works.
    ClusterRemoved = "cluster removed",
    /// Somebody else takes room on a node.
    ForeignUse = "foreign use",
    /// A snapshot is written.
    Snapshot = "snapshot written",
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.word())
    }
}

/// A world, before it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What decides everything else, and every throw of the dice.
    pub seed: u64,
    /// How many clusters there are.
    pub clusters: usize,
    /// Most nodes in each.
    pub nodes: usize,
    /// Most cores of each.
    pub cores: u32,
    /// How many clients there are.
    pub clients: usize,
    /// How many tasks they submit together.
    pub tasks: usize,
    /// How long things go wrong.
    pub trouble: Span,
    /// The mean time between two faults.
    pub pace: Span,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// The limits of the control plane, so tight that they matter.
    pub limits: Limits,
    /// How often both sides of a link say something.
    pub heartbeat: Span,
    /// How long a cluster may be silent.
    pub lost_after: Span,
    /// The longest that a task runs.
    pub run_max: Span,
}

impl Plan {
    /// The world of a seed.
    pub fn new(seed: u64) -> Self {
        let mut dice = Rng::with_seed(seed ^ 0x5ced_41e5);
        let mut faults: Vec<Fault> = Fault::ALL.iter().copied().filter(|_| dice.bool()).collect();
        if dice.u8(..10) == 0 {
            faults.clear(); // now and then a day on which nothing goes wrong
        }
        let between = |dice: &mut Rng, low: u64, high: u64| Span::from_millis(dice.u64(low..=high));
        let heartbeat = between(&mut dice, 200, 2_000);
        Self {
            seed,
            clusters: dice.usize(1..=4),
            nodes: dice.usize(1..=4),
            cores: dice.u32(1..=6),
            clients: dice.usize(1..=4),
            tasks: dice.choice([10, 40, 150]).unwrap_or(10),
            trouble: between(&mut dice, 2_000, 60_000),
            pace: between(&mut dice, 50, 2_000),
            faults,
            limits: Limits {
                queue_max: if dice.bool() { 20 } else { 1_000 },
                retention: between(&mut dice, 5_000, 600_000),
                ended_max: if dice.bool() { 20 } else { 1_000 },
                lookahead: between(&mut dice, 1, 100),
                lookahead_tasks: dice.usize(1..=20),
                lookahead_bytes: if dice.bool() { 200 } else { 1 << 20 },
                calls_ahead: dice.usize(1..=5),
                leases_per_node: dice.usize(2..=20),
            },
            heartbeat,
            lost_after: heartbeat.times(dice.u64(1..=8)),
            run_max: between(&mut dice, 5, 3_000),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "{} clusters of up to {} nodes with up to {} cores; {} clients, {} tasks of up to {}",
            self.clusters, self.nodes, self.cores, self.clients, self.tasks, self.run_max
        )?;
        let faults: Vec<_> = self.faults.iter().map(|fault| fault.word()).collect();
        let faults = if faults.is_empty() { "nothing".to_owned() } else { faults.join(", ") };
        write!(out, "for {}, every {} or so: {faults}", self.trouble, self.pace)
    }
}
