//! What goes wrong, when, and how it ends.

use mesh_core::Command;
use mesh_core::model::time::Span;
use mesh_server::driver::ask::Ask;
use mesh_store::Side;
use mesh_store::memory::Fault as DiskFault;
use tokio::sync::oneshot;

use super::net::{ConnId, End};
use super::{HEALING, Happening, Relief, World};
use crate::history::{Law, Verdict, Violation};
use crate::plan::Fault;

/// How often a healed world is looked at.
const LOOK: Span = Span::from_millis(500);

impl World {
    /// Something goes wrong.
    pub(super) fn trouble(&mut self) -> Verdict {
        if self.healed.is_some() {
            return Ok(());
        }
        let faults = self.plan.faults.clone();
        if let Some(fault) = self.pick(&faults) {
            self.trace(|| format!("TROUBLE {fault}"));
            *self.stats.faults.entry(fault).or_default() += 1;
            self.befall(fault)?;
        }
        let pause = Span::from_micros(self.dice.u64(0..=self.plan.pace.micros() * 2));
        self.after(pause, Happening::Trouble);
        Ok(())
    }

    fn befall(&mut self, fault: Fault) -> Verdict {
        match fault {
            Fault::ServerKill | Fault::PowerLoss | Fault::TornCommit | Fault::KeptCommit => {
                self.kill_server(fault);
                Ok(())
            }
            Fault::CleanRestart => self.stop_cleanly(),
            Fault::DiskFull
            | Fault::DiskFailed
            | Fault::DiskLied
            | Fault::DiskSlow
            | Fault::BitFlip
            | Fault::Snapshot => {
                self.trouble_disk(fault);
                Ok(())
            }
            Fault::Cut | Fault::Partition | Fault::HalfOpen | Fault::Delay => {
                self.trouble_net(fault);
                Ok(())
            }
            Fault::AgentKill
            | Fault::AgentFreeze
            | Fault::NodeLoss
            | Fault::HeadRestart
            | Fault::WorkerDeath
            | Fault::JobForgotten
            | Fault::Nonsense
            | Fault::ForeignUse => self.trouble_cluster(fault),
            Fault::ClockJump => {
                let hours = self.dice.i64(-5..=5);
                if self.mark.is_some() {
                    self.wall_error += hours * 3_600_000_000;
                }
                Ok(())
            }
            Fault::ClusterChange | Fault::ClusterRemoved => {
                self.change_cluster(fault);
                Ok(())
            }
            // These come over what happens anyway.
            Fault::LostAnswer | Fault::Duplicate | Fault::StartFails | Fault::SlowStart => Ok(()),
        }
    }

    fn kill_server(&mut self, fault: Fault) {
        if self.server.engine.is_none() {
            return;
        }
        match fault {
            Fault::TornCommit => self.disk.crash_next(false),
            Fault::KeptCommit => self.disk.crash_next(true),
            _ => self.server_is_gone(fault == Fault::PowerLoss),
        }
    }

    fn trouble_disk(&mut self, fault: Fault) {
        let while_ = Span::from_millis(self.dice.u64(100..8_000));
        match fault {
            Fault::DiskFull => {
                self.disk.fill();
                self.after(while_, Happening::Relief(Relief::Disk));
            }
            Fault::DiskSlow => {
                self.server.commit = Span::from_millis(self.dice.u64(100..3_000));
                self.after(while_, Happening::Relief(Relief::Speed));
            }
            Fault::DiskFailed => self.disk.fail_next(DiskFault::Failed),
            Fault::DiskLied => self.disk.fail_next(DiskFault::FailedButKept),
            Fault::Snapshot => self.write_snapshot(),
            _ => {
                let tasks: Vec<_> = self.arguments.keys().copied().collect();
                if let Some(task) = self.pick(&tasks) {
                    let side = if self.dice.bool() { Side::Payload } else { Side::Result };
                    self.disk.damage(task, side);
                }
            }
        }
    }

    fn trouble_net(&mut self, fault: Fault) {
        let while_ = Span::from_millis(self.dice.u64(100..10_000));
        let conns: Vec<ConnId> = self.net.conns.keys().copied().collect();
        match fault {
            Fault::Cut => {
                if let Some(conn) = self.pick(&conns) {
                    self.cut(conn);
                }
            }
            Fault::HalfOpen => {
                if let Some(conn) = self.pick(&conns) {
                    let to = if self.dice.bool() { End::Server } else { End::Agent };
                    self.dig_hole(conn, to);
                }
            }
            Fault::Delay => {
                self.net.delay = Span::from_millis(self.dice.u64(10..3_000));
                self.after(while_, Happening::Relief(Relief::Delay));
            }
            _ => {
                let agent = self.dice.usize(..self.agents.len());
                self.net.parted.push(agent);
                for conn in conns {
                    if self.net.conns.get(&conn).is_some_and(|conn| conn.agent == agent) {
                        self.dig_hole(conn, End::Server);
                        self.dig_hole(conn, End::Agent);
                    }
                }
                self.after(while_, Happening::Relief(Relief::Network));
            }
        }
    }

    fn trouble_cluster(&mut self, fault: Fault) -> Verdict {
        let index = self.dice.usize(..self.agents.len());
        if !self.agents[index].alive {
            return Ok(());
        }
        let node = self.dice.usize(..self.agents[index].nodes.len());
        let while_ = Span::from_millis(self.dice.u64(100..10_000));
        match fault {
            Fault::AgentKill | Fault::HeadRestart => {
                self.kill_agent(index, fault == Fault::HeadRestart);
                Ok(())
            }
            Fault::AgentFreeze => {
                self.after(while_, Happening::Relief(Relief::Agent(index)));
                self.set_frozen(index, true)
            }
            Fault::NodeLoss => {
                self.after(while_, Happening::Relief(Relief::Node(index, node)));
                self.set_node(index, node, false)
            }
            Fault::ForeignUse => {
                self.agents[index].nodes[node].foreign = self.dice.u32(0..4);
                self.after(while_, Happening::Relief(Relief::Foreign(index, node)));
                self.tell_nodes(index)
            }
            Fault::WorkerDeath => self.kill_worker(index),
            Fault::JobForgotten => self.forget_job(index),
            _ => self.talk_nonsense(index),
        }
    }

    fn change_cluster(&mut self, fault: Fault) {
        let index = self.dice.usize(..self.agents.len());
        let name = self.agents[index].name.clone();
        let command = if fault == Fault::ClusterRemoved {
            Command::RemoveCluster { name, force: self.dice.bool() }
        } else if self.dice.bool() {
            Command::DrainCluster(name, self.dice.bool())
        } else {
            let mut spec = self.cluster_spec();
            spec.max_tasks = self.dice.bool().then(|| self.dice.u32(1..4));
            spec.prefer = self.dice.bool();
            spec.job_interval = Span::from_millis(self.dice.u64(0..2_000));
            Command::ChangeCluster(name, Box::new(spec))
        };
        self.command(vec![command]);
        if fault == Fault::ClusterRemoved && self.dice.bool() {
            let add = self.add_cluster(index);
            self.ask(add, None);
        }
    }

    fn command(&mut self, commands: Vec<Command>) {
        let (reply, _nobody) = oneshot::channel();
        self.ask(Ask::Commands { commands, reply }, None);
    }

    /// A fault that lasted is over.
    pub(super) fn relieve(&mut self, relief: Relief) -> Verdict {
        self.trace(|| format!("relief {relief:?}"));
        match relief {
            Relief::Disk => self.disk.free(),
            Relief::Speed => self.server.commit = Span::from_millis(1),
            Relief::Network => self.net.parted.clear(),
            Relief::Delay => self.net.delay = Span::ZERO,
            Relief::Agent(index) => return self.set_frozen(index, false),
            Relief::Node(index, node) => return self.set_node(index, node, true),
            Relief::Foreign(index, node) => {
                self.agents[index].nodes[node].foreign = 0;
                return self.tell_nodes(index);
            }
        }
        Ok(())
    }

    /// From now on nothing goes wrong any more.
    pub(super) fn heal(&mut self) -> Verdict {
        self.trace(|| "HEALED".into());
        self.healed = Some(self.now);
        self.disk.calm();
        self.net.delay = Span::ZERO;
        self.net.parted.clear();
        self.server.commit = Span::from_millis(1);
        // A store that failed stays so until the operator restarts it.
        if self.store_failed() || self.dice.bool() {
            self.stop_cleanly()?;
        }
        for index in 0..self.agents.len() {
            self.set_frozen(index, false)?;
            self.agent_up(index)?;
            // What waits for growth gets it, and actors that wait for each other all fit.
            let nodes = self.plan.tasks / self.plan.limits.leases_per_node + 1;
            self.agents[index].grow(nodes);
            for node in 0..self.agents[index].nodes.len() {
                self.agents[index].nodes[node].foreign = 0;
                self.set_node(index, node, true)?;
            }
            self.tell_nodes(index)?;
        }
        self.after(LOOK, Happening::Rest);
        Ok(())
    }

    fn store_failed(&self) -> bool {
        let trouble = self.server.engine.as_ref().and_then(|engine| engine.tail().trouble());
        trouble.is_some_and(|problem| problem.code == "STORE_FAILED")
    }

    /// Whether a healed world has come to rest.
    pub(super) fn rest(&mut self) -> Verdict {
        let Some(healed) = self.healed else { return Ok(()) };
        if self.store_failed() {
            self.stop_cleanly()?; // a snapshot that failed earlier may show only now
        }
        self.restore_clusters();
        let open = self.journal.open().count();
        if open == 0 && self.clients_are_done() && self.left_overs().is_none() {
            self.over = true;
            return Ok(());
        }
        if self.now.since(healed) > HEALING {
            let explain = self.server.engine.as_ref().map(|engine| {
                let now = self.server_time();
                let open = self.journal.open().take(3);
                open.map(|id| format!("{id}: {:?}", engine.mesh().explain(now, id)))
                    .collect::<Vec<_>>()
            });
            let (left, clients) = (self.left_overs(), self.unfinished());
            return Err(Violation::new(
                Law::EverythingEnds,
                format!(
                    "{HEALING} after everything was healed {open} tasks are open: {explain:#?}; \
                     left over: {left:?}; clients wait for {clients:?}"
                ),
            ));
        }
        self.after(LOOK, Happening::Rest);
        Ok(())
    }

    /// The operator sees to it that every cluster is there and takes work.
    fn restore_clusters(&mut self) {
        let Some(engine) = &self.server.engine else { return };
        let mut commands = Vec::new();
        let mut adds = Vec::new();
        let usual = self.cluster_spec();
        for (index, agent) in self.agents.iter().enumerate() {
            match engine.mesh().cluster(&agent.name) {
                None => adds.push(index),
                Some(cluster) => {
                    if cluster.draining {
                        commands.push(Command::DrainCluster(agent.name.clone(), false));
                    }
                    if cluster.spec != usual {
                        let usual = Box::new(usual.clone());
                        commands.push(Command::ChangeCluster(agent.name.clone(), usual));
                    }
                }
            }
        }
        for index in adds {
            let add = self.add_cluster(index);
            self.ask(add, None);
        }
        if !commands.is_empty() {
            self.command(commands);
        }
    }
}
