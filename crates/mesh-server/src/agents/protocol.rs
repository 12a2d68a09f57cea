//! What an agent's frames mean, apart from the connection that brings them. The links of the server
//! and those of the simulator go by it alike.

use mesh_api::LINK_PROTOCOL;
use mesh_api::agent::{AskAnswer, FromAgent, PullFrame, PushFrame};
use mesh_api::convert::{agent_facts, held, nodes, reported};
use mesh_api::problem::Problem;
use mesh_core::command::Held;
use mesh_core::model::cluster::{AgentFacts, NodeFacts};
use mesh_core::model::id::ClusterName;

use crate::clients::upgrade;
use crate::driver::ask::AgentSaid;

/// After so many heartbeats without a word the other side counts as gone.
pub const SILENCE_BEATS: u32 = 4;

/// A hello that was understood.
#[derive(Debug)]
pub struct Greeting {
    /// The cluster that the agent serves.
    pub cluster: ClusterName,
    /// What it says of itself.
    pub facts: AgentFacts,
    /// Every attempt whose end it has not yet had confirmed.
    pub held: Vec<Held>,
    /// The nodes of the cluster.
    pub nodes: Vec<NodeFacts>,
}

/// Reads the first frame of a link. `claim` is the cluster that the agent's token stands for;
/// nothing for a token that stands for all of them.
pub fn greeting(bytes: &[u8], claim: Option<&ClusterName>) -> Result<Greeting, Problem> {
    let FromAgent::Hello(hello) = decode(bytes)? else {
        return Err(bad_frame("the first frame must be a hello"));
    };
    if hello.protocol != LINK_PROTOCOL {
        return Err(upgrade("agent", &hello.version, hello.protocol));
    }
    let cluster: ClusterName = hello.cluster.parse().map_err(|error| {
        bad_frame(&format!("{:?} is not the name of a cluster: it {error}", hello.cluster))
    })?;
    if let Some(claim) = claim.filter(|claim| **claim != cluster) {
        return Err(Problem::new(
            "FORBIDDEN",
            format!("the token is for cluster {claim}, the agent serves cluster {cluster}"),
            format!("make a token with `schedulemesh cluster token {cluster}`"),
        ));
    }
    let facts = agent_facts(&hello)?;
    Ok(Greeting { cluster, facts, held: held(&hello.held), nodes: nodes(hello.nodes)? })
}

/// What a frame after the first one says.
#[derive(Debug)]
pub enum Heard {
    /// Nothing but that the agent is there.
    Nothing,
    /// Something that the driver must know.
    Said(AgentSaid),
    /// An answer for somebody who asked.
    Answer(AskAnswer),
    /// A part of a blob is wanted.
    Pull(PullFrame),
    /// A part of a blob comes.
    Push(PushFrame),
}

/// Reads any later frame of a link.
pub fn hear(bytes: &[u8]) -> Result<Heard, Problem> {
    Ok(match decode(bytes)? {
        FromAgent::Hello(_) => return Err(bad_frame("a second hello")),
        FromAgent::Heartbeat(_) => Heard::Nothing,
        FromAgent::Report(frame) => {
            let items = frame.items.into_iter().map(reported).collect::<Result<Vec<_>, _>>()?;
            Heard::Said(AgentSaid::Reports { seq: frame.seq, items })
        }
        FromAgent::Nodes(wire) => Heard::Said(AgentSaid::Nodes(nodes(wire)?)),
        FromAgent::Answer(answer) => Heard::Answer(answer),
        FromAgent::Pull(pull) => Heard::Pull(pull),
        FromAgent::Push(push) => Heard::Push(push),
    })
}

/// The agent does not keep to the protocol.
pub(super) fn bad_frame(what: &str) -> Problem {
    Problem::new("INVALID", what, "use the agent of this server's version")
}

fn decode(bytes: &[u8]) -> Result<FromAgent, Problem> {
    mesh_api::decode(bytes).map_err(|error| bad_frame(&format!("a frame can't be read: {error}")))
}
