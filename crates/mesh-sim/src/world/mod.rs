//! The world of one seed: one loop over everything that is due, in the order of a clock that is only
//! counted. Nothing in it depends on anything but the plan.

mod agent;
mod client;
mod disk;
mod net;
mod server;
mod trouble;

use std::collections::{BTreeMap, BinaryHeap};

use bytes::Bytes;
use fastrand::Rng;
use mesh_core::Mesh;
use mesh_core::model::cluster::ClusterSpec;
use mesh_core::model::id::{ClusterId, ClusterName, TaskId};
use mesh_core::model::time::{Span, Timestamp};
use mesh_server::clients::ClientId;
use mesh_server::handle::Payload;
use mesh_store::Entry;

use self::agent::{Agent, Fence, SimNode, Step};
use self::client::{Answer, Client};
use self::disk::Disk;
use self::net::{ConnId, End, Net};
use self::server::Server;
use crate::history::{Journal, Law, Verdict, Violation, Witness};
use crate::plan::{Fault, Plan};

/// When every world begins: late enough that times before it can be told.
const BEGINNING: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
/// How long everything may take to end once all faults are healed.
pub const HEALING: Span = Span::from_secs(3_600);
/// How many steps one world may take; more means that something spins.
const STEPS_MAX: u64 = 2_000_000;

/// What was done in a world.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Things that were due, one after the other.
    pub steps: u64,
    /// How much time passed in the world.
    pub time: Span,
    /// Turns of the control plane.
    pub turns: u64,
    /// Times that it was started.
    pub lives: u64,
    /// Events of the journal that were judged.
    pub events: u64,
    /// Questions of clients.
    pub asked: u64,
    /// Acknowledgements that were judged.
    pub acknowledged: u64,
    /// Tasks that were accepted.
    pub tasks: u64,
    /// Faults, by kind.
    pub faults: BTreeMap<Fault, u64>,
}

impl Stats {
    /// Adds what was done in another world.
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.time = self.time.plus(other.time);
        self.turns += other.turns;
        self.lives += other.lives;
        self.events += other.events;
        self.asked += other.asked;
        self.acknowledged += other.acknowledged;
        self.tasks += other.tasks;
        for (fault, count) in &other.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
    }
}

/// How a world ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The first law that was broken, if one was.
    pub verdict: Verdict,
    /// What was done.
    pub stats: Stats,
    /// A number that depends on everything that happened, in its order.
    pub fingerprint: u64,
    /// What happened, when that was asked for.
    pub story: Vec<String>,
}

/// Something that is due.
enum Happening {
    Turn { life: u64 },
    Restart,
    Frame { conn: ConnId, to: End, bytes: Bytes },
    Closed { conn: ConnId, to: End },
    Beat(ConnId),
    Dial(usize),
    AgentUp(usize),
    Work(usize, u128, Fence, Step),
    Client(usize),
    Answer(usize, Box<Answer>),
    Trouble,
    Relief(Relief),
    Heal,
    Rest,
}

/// The end of a fault that lasts.
#[derive(Clone, Copy, Debug)]
enum Relief {
    Disk,
    Speed,
    Network,
    Delay,
    Agent(usize),
    Node(usize, usize),
    Foreign(usize, usize),
}

struct Due {
    at: Timestamp,
    number: u64,
    what: Happening,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    /// The earliest is the greatest, because that is what a heap gives out first.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// A world under way.
pub(crate) struct World {
    plan: Plan,
    dice: Rng,
    now: Timestamp,
    due: BinaryHeap<Due>,
    scheduled: u64,
    disk: Disk,
    server: Server,
    net: Net,
    agents: Vec<Agent>,
    clients: Vec<Client>,
    /// What clients submitted over links and were not told of yet.
    link_submissions: BTreeMap<(ClientId, u64), Vec<usize>>,
    /// How far the wall clock of the control plane is off, in microseconds.
    wall_error: i64,
    /// When the control plane last started, truly and by its own clock; forgotten with the power.
    mark: Option<(Timestamp, Timestamp)>,
    /// Numbers for lives of agents and links of clients.
    lives: u128,
    journal: Journal,
    witness: Witness,
    /// What the journal alone leads to.
    shadow: Mesh,
    log: Vec<Entry>,
    /// The arguments of every task that was accepted.
    arguments: BTreeMap<TaskId, Bytes>,
    names: BTreeMap<ClusterId, ClusterName>,
    /// Clusters that were given up, or had their agent replaced, and when.
    given_up: BTreeMap<ClusterName, Timestamp>,
    /// Since when nothing goes wrong any more.
    healed: Option<Timestamp>,
    over: bool,
    stats: Stats,
    fingerprint: u64,
    story: Option<Vec<String>>,
}

/// Lives through the world of a plan. `tell` says whether its story is kept.
pub fn run(plan: &Plan, tell: bool) -> Ended {
    let mut world = World::new(plan, tell);
    let verdict = world.live();
    world.stats.time = world.now.since(BEGINNING);
    world.stats.acknowledged = world.witness.acknowledged();
    world.stats.tasks = u64::try_from(world.journal.tasks().count()).unwrap_or(u64::MAX);
    if let Err(broken) = &verdict {
        world.trace(|| format!("BROKEN {broken}"));
    }
    Ended {
        verdict,
        stats: world.stats,
        fingerprint: world.fingerprint,
        story: world.story.unwrap_or_default(),
    }
}

impl World {
    fn new(plan: &Plan, tell: bool) -> Self {
        let mut dice = Rng::with_seed(plan.seed);
        let mut agents = Vec::new();
        for cluster in 0..plan.clusters {
            let nodes = (0..dice.usize(1..=plan.nodes))
                .map(|node| SimNode::new(format!("n{cluster}-{node}"), dice.u32(1..=plan.cores)))
                .collect();
            let name = format!("c{cluster}").parse().unwrap_or_else(|_| unreachable!());
            agents.push(Agent::new(name, nodes));
        }
        Self {
            plan: plan.clone(),
            dice,
            now: BEGINNING,
            due: BinaryHeap::new(),
            scheduled: 0,
            disk: Disk::default(),
            server: Server::off(),
            net: Net::default(),
            agents,
            clients: Vec::new(),
            link_submissions: BTreeMap::new(),
            wall_error: 0,
            mark: None,
            lives: 0,
            journal: Journal::default(),
            witness: Witness::default(),
            shadow: Mesh::new(plan.limits),
            log: Vec::new(),
            arguments: BTreeMap::new(),
            names: BTreeMap::new(),
            given_up: BTreeMap::new(),
            healed: None,
            over: false,
            stats: Stats::default(),
            fingerprint: 0xcbf2_9ce4_8422_2325,
            story: tell.then(Vec::new),
        }
    }

    /// From the beginning to the end, or to the first law that is broken.
    fn live(&mut self) -> Verdict {
        self.start_server()?;
        self.make_clients();
        for index in 0..self.agents.len() {
            self.agents[index].alive = false;
            let pause = Span::from_millis(self.dice.u64(0..300));
            self.after(pause, Happening::AgentUp(index));
        }
        self.after(self.plan.pace, Happening::Trouble);
        self.after(self.plan.trouble, Happening::Heal);
        while !self.over {
            let Some(Due { at, what, .. }) = self.due.pop() else { break };
            self.now = at;
            self.stats.steps += 1;
            if self.stats.steps > STEPS_MAX {
                return Err(Violation::new(Law::EverythingEnds, "it spins"));
            }
            self.happen(what)?;
        }
        self.at_the_end()
    }

    fn happen(&mut self, what: Happening) -> Verdict {
        match what {
            Happening::Turn { life } => {
                self.mix(1);
                self.turn(life)
            }
            Happening::Restart if self.server.engine.is_none() => {
                self.trace(|| "the control plane starts".into());
                self.start_server()
            }
            Happening::Restart => Ok(()),
            Happening::Frame { conn, to, bytes } => {
                self.mix(conn ^ u64::try_from(bytes.len()).unwrap_or(0) << 20);
                match to {
                    End::Server => self.frame_to_server(conn, &bytes),
                    End::Agent => self.frame_to_agent(conn, &bytes),
                }
            }
            Happening::Closed { conn, to: End::Server } => {
                self.closed_to_server(conn);
                Ok(())
            }
            Happening::Closed { conn, to: End::Agent } => {
                self.closed_to_agent(conn);
                Ok(())
            }
            Happening::Beat(conn) => self.beat(conn),
            Happening::Dial(agent) => self.agent_dials(agent),
            Happening::AgentUp(agent) => self.agent_up(agent),
            Happening::Work(agent, life, fence, step) => {
                self.mix(fence.0 << 8 ^ u64::from(fence.1));
                self.work(agent, life, fence, step)
            }
            Happening::Client(client) => self.client_acts(client),
            Happening::Answer(client, answer) => {
                self.mix(3);
                self.answered(client, *answer)
            }
            Happening::Trouble => self.trouble(),
            Happening::Relief(relief) => self.relieve(relief),
            Happening::Heal => self.heal(),
            Happening::Rest => self.rest(),
        }
    }

    /// Everything has ended: the last laws.
    fn at_the_end(&mut self) -> Verdict {
        if let Some(engine) = &self.server.engine {
            self.compare(engine.mesh())?;
        }
        self.witness.finish(&self.journal)
    }

    fn at(&mut self, at: Timestamp, what: Happening) {
        self.scheduled += 1;
        self.due.push(Due { at, number: self.scheduled, what });
    }

    fn after(&mut self, span: Span, what: Happening) {
        self.at(self.now.after(span), what);
    }

    fn soon(&mut self, what: Happening) {
        self.at(self.now, what);
    }

    /// What the wall clock of the control plane says.
    fn wall(&self) -> Timestamp {
        Timestamp::from_micros(self.now.micros().saturating_add_signed(self.wall_error))
    }

    fn has(&self, fault: Fault) -> bool {
        self.healed.is_none() && self.plan.faults.contains(&fault)
    }

    fn is_over(&self) -> bool {
        self.over
    }

    /// Whether the control plane can't write, or may not have been able to a moment ago.
    fn is_troubled(&self) -> bool {
        self.healed.is_none()
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        if of.is_empty() { None } else { of.get(self.dice.usize(..of.len())).copied() }
    }

    fn trace(&mut self, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            let at = self.now.since(BEGINNING);
            story.push(format!("{:>12} {}", at.to_string(), line()));
        }
    }

    /// Mixes something that happened into the fingerprint (FNV-1a, of 64 bits at a time).
    fn mix(&mut self, what: u64) {
        for part in [self.now.micros(), what] {
            self.fingerprint = (self.fingerprint ^ part).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// Takes note of what the journal says that later laws need to know.
    fn witness_ends(&mut self, entry: &Entry) {
        use mesh_core::Event;
        self.mix(entry.first);
        for event in &entry.events {
            match event {
                Event::Submitted { task, key, .. } => {
                    let bytes = self.clients.iter().find_map(|client| client.arguments_of(key));
                    self.arguments.insert(*task, bytes.unwrap_or_default());
                }
                Event::ClusterLost(id)
                | Event::ClusterRemoved(id)
                | Event::ClusterLinked(id, _) => {
                    if let Some(name) = self.names.get(id) {
                        self.given_up.insert(name.clone(), self.now);
                    }
                }
                Event::ClusterAdded(id, name, _) => {
                    self.names.insert(*id, name.clone());
                }
                _ => {}
            }
        }
    }

    fn cluster_spec(&self) -> ClusterSpec {
        ClusterSpec {
            lost_after: self.plan.lost_after,
            breaker_failures: 3,
            breaker_recovery: Span::from_millis(500),
            ..ClusterSpec::default()
        }
    }
}

/// What a payload holds.
fn bytes_of(payload: &Payload) -> Bytes {
    match payload {
        Payload::Inline(bytes) => bytes.clone(),
        Payload::None | Payload::Blob(..) => Bytes::new(),
    }
}
