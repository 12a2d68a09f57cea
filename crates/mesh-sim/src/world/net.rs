//! The network between agents and the control plane: connections that carry frames in order, late, or
//! not at all.

use std::collections::BTreeMap;

use bytes::Bytes;
use mesh_core::model::time::{Span, Timestamp};

use super::{Happening, World};

/// The number of a connection; also that of the link in the control plane.
pub(super) type ConnId = u64;

/// Which end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Server,
    Agent,
}

/// A connection, as each of its ends sees it.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) agent: usize,
    /// Whether the end believes that it is there.
    pub(super) open: [bool; 2],
    /// Nothing arrives at this end any more.
    hole: [bool; 2],
    /// When the last frame will have arrived at this end.
    arrives: [Timestamp; 2],
    /// When this end last heard anything.
    pub(super) heard: [Timestamp; 2],
}

impl End {
    pub(super) fn index(self) -> usize {
        match self {
            Self::Server => 0,
            Self::Agent => 1,
        }
    }

    pub(super) fn other(self) -> Self {
        match self {
            Self::Server => Self::Agent,
            Self::Agent => Self::Server,
        }
    }
}

/// All connections, and the weather.
#[derive(Debug, Default)]
pub(super) struct Net {
    pub(super) conns: BTreeMap<ConnId, Conn>,
    next: ConnId,
    /// Added to every delivery.
    pub(super) delay: Span,
    /// Agents that nothing reaches, nor comes from.
    pub(super) parted: Vec<usize>,
}

impl World {
    /// An agent dials. Nothing when nobody answers.
    pub(super) fn dial(&mut self, agent: usize) -> Option<ConnId> {
        if self.server.engine.is_none() || self.net.parted.contains(&agent) {
            return None;
        }
        self.net.next += 1;
        let id = self.net.next;
        let now = self.now;
        let conn =
            Conn { agent, open: [true; 2], hole: [false; 2], arrives: [now; 2], heard: [now; 2] };
        self.net.conns.insert(id, conn);
        self.after(self.plan.heartbeat, Happening::Beat(id));
        Some(id)
    }

    /// Sends a frame to one end of a connection.
    pub(super) fn send(&mut self, id: ConnId, to: End, bytes: Bytes) {
        if let Some(at) = self.arrival(id, to) {
            self.at(at, Happening::Frame { conn: id, to, bytes });
        }
    }

    fn arrival(&mut self, id: ConnId, to: End) -> Option<Timestamp> {
        let micros = self.dice.u64(50..2_000) + self.dice.u64(0..=self.net.delay.micros());
        let conn = self.net.conns.get_mut(&id)?;
        let parted = self.net.parted.contains(&conn.agent);
        if conn.hole[to.index()] || parted {
            return None;
        }
        let earliest = self.now.after(Span::from_micros(micros));
        let at = earliest.max(conn.arrives[to.index()]);
        conn.arrives[to.index()] = at;
        Some(at)
    }

    /// One end closes a connection; the other is told, if anything reaches it.
    pub(super) fn close(&mut self, id: ConnId, end: End) {
        let Some(conn) = self.net.conns.get_mut(&id) else { return };
        if !std::mem::replace(&mut conn.open[end.index()], false) {
            return;
        }
        if let Some(at) = self.arrival(id, end.other()) {
            self.at(at, Happening::Closed { conn: id, to: end.other() });
        }
        self.forget_if_closed(id);
    }

    /// A connection breaks: what was under way is lost, and both ends are told.
    pub(super) fn cut(&mut self, id: ConnId) {
        let Some(conn) = self.net.conns.get_mut(&id) else { return };
        conn.hole = [true; 2];
        self.soon(Happening::Closed { conn: id, to: End::Server });
        self.soon(Happening::Closed { conn: id, to: End::Agent });
    }

    /// Nothing arrives at one end any more, and nobody is told.
    pub(super) fn dig_hole(&mut self, id: ConnId, to: End) {
        if let Some(conn) = self.net.conns.get_mut(&id) {
            conn.hole[to.index()] = true;
        }
    }

    /// A machine without power tells nobody.
    pub(super) fn vanish(&mut self, end: End) {
        for conn in self.net.conns.values_mut() {
            conn.open[end.index()] = false;
            conn.hole[end.other().index()] = true;
        }
        let gone: Vec<ConnId> = self.net.conns.keys().copied().collect();
        for id in gone {
            self.forget_if_closed(id);
        }
    }

    pub(super) fn is_open(&self, id: ConnId, end: End) -> bool {
        self.net.conns.get(&id).is_some_and(|conn| conn.open[end.index()])
    }

    /// Whether a frame that was under way still arrives.
    pub(super) fn arrives(&mut self, id: ConnId, to: End) -> bool {
        let now = self.now;
        let Some(conn) = self.net.conns.get_mut(&id) else { return false };
        let parted = self.net.parted.contains(&conn.agent);
        let arrives = conn.open[to.index()] && !conn.hole[to.index()] && !parted;
        if arrives {
            conn.heard[to.index()] = now;
        }
        arrives
    }

    pub(super) fn forget_if_closed(&mut self, id: ConnId) {
        if self.net.conns.get(&id).is_some_and(|conn| conn.open == [false; 2]) {
            self.net.conns.remove(&id);
        }
    }
}
