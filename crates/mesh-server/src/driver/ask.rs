//! What waits in the driver's queue.

use std::collections::HashSet;

use bytes::Bytes;
use mesh_api::agent::ToAgent;
use mesh_api::convert::{Accept, Reported};
use mesh_api::problem::Problem;
use mesh_core::command::Held;
use mesh_core::model::cluster::{AgentFacts, NodeFacts};
use mesh_core::model::id::{ClusterName, Digest, TaskId};
use mesh_core::model::task::BlobId;
use mesh_core::model::time::Timestamp;
use mesh_core::{Answer, Command, Mesh};
use mesh_store::{Entry, Seq, Side};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::clients::{ClientId, Notice};
use crate::handle::{Reply, Submitted};
use crate::outbox::Outbox;

/// The number of a connection with an agent. Only grows.
pub type LinkId = u64;

/// A question, and its share of the byte budget, given back when it was dealt with.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) ask: Ask,
    pub(crate) room: OwnedSemaphorePermit,
}

/// Something that reads the state.
pub type Reader = Box<dyn FnOnce(&Mesh, Timestamp) + Send>;

/// What may be asked of the driver.
pub enum Ask {
    /// Accept tasks.
    Submit {
        /// The tasks, or why one of them can't be read.
        tasks: Vec<Result<Accept, Problem>>,
        /// One answer each, in order.
        reply: Reply<Vec<Result<Submitted, Problem>>>,
    },
    /// Do what commands say.
    Commands {
        /// The commands.
        commands: Vec<Command>,
        /// One answer each, in order.
        reply: Reply<Vec<Result<Answer, Problem>>>,
    },
    /// Read the state.
    Read(Reader),
    /// Read the bytes of a task.
    Data {
        /// The task.
        task: TaskId,
        /// Which of its bytes.
        side: Side,
        /// Nothing when there are none.
        reply: Reply<Option<Bytes>>,
    },
    /// Keep code.
    PutCode {
        /// The code, whose digests the asker has checked.
        code: Vec<(Digest, Bytes)>,
        /// Answered when it is durable.
        reply: Reply<()>,
    },
    /// Say whether code is kept.
    HasCode {
        /// Its digest.
        digest: Digest,
        /// Whether it is.
        reply: Reply<bool>,
    },
    /// Say when a task has ended.
    WaitEnded {
        /// The task.
        task: TaskId,
        /// Answered when it has, or when there is no record of it.
        reply: Reply<()>,
    },
    /// Read old events, up to a few.
    Replay {
        /// The last event that the asker has seen.
        after: Seq,
        /// What came next.
        reply: Reply<Vec<Entry>>,
    },
    /// An agent said hello.
    Link(Box<LinkAsk>),
    /// An agent spoke.
    Agent {
        /// The connection.
        link: LinkId,
        /// The cluster that its hello named.
        cluster: ClusterName,
        /// What it said.
        said: AgentSaid,
    },
    /// A client link opened.
    Client {
        /// The link.
        client: ClientId,
        /// Where it is told what became of its tasks.
        outbox: Outbox<Notice>,
    },
    /// A client submitted.
    ClientSubmit(Box<ClientSubmit>),
    /// A client wants to know when these end.
    Watch {
        /// The client link.
        client: ClientId,
        /// The tasks.
        tasks: Vec<TaskId>,
    },
    /// A client link closed.
    ClientGone {
        /// The link.
        client: ClientId,
    },
    /// Say which blobs something refers to.
    UsedBlobs {
        /// The blobs.
        reply: Reply<HashSet<BlobId>>,
    },
    /// End, with a last snapshot or without one.
    Shutdown {
        /// Whether a last snapshot is written.
        snapshot: bool,
        /// Answered when the store is closed.
        reply: oneshot::Sender<()>,
    },
}

/// The hello of an agent.
#[derive(Debug)]
pub struct LinkAsk {
    /// The connection.
    pub link: LinkId,
    /// The cluster that it serves.
    pub cluster: ClusterName,
    /// What it says of itself.
    pub facts: AgentFacts,
    /// Every attempt whose end it has not yet had confirmed.
    pub held: Vec<Held>,
    /// The nodes of the cluster.
    pub nodes: Vec<NodeFacts>,
    /// Where it is told what is to be done, from the welcome on.
    pub outbox: Outbox<ToAgent>,
    /// Answered when the link is durable; the welcome is in the outbox then.
    pub reply: Reply<()>,
}

/// What a linked agent says.
#[derive(Debug)]
pub enum AgentSaid {
    /// Numbered reports.
    Reports {
        /// The number of the first.
        seq: u64,
        /// What happened, in order.
        items: Vec<Reported>,
    },
    /// Its nodes.
    Nodes(Vec<NodeFacts>),
    /// Nothing any more: the connection is gone.
    Gone,
}

/// A submission over a client link.
#[derive(Debug)]
pub struct ClientSubmit {
    /// The client link.
    pub client: ClientId,
    /// What the client calls the submission.
    pub id: u64,
    /// The tasks, or why one of them can't be read.
    pub tasks: Vec<Result<Accept, Problem>>,
    /// Code that they use and that may not be here yet.
    pub code: Vec<(Digest, Bytes)>,
}

impl std::fmt::Debug for Ask {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            Self::Submit { .. } => "Submit",
            Self::Commands { .. } => "Commands",
            Self::Read(_) => "Read",
            Self::Data { .. } => "Data",
            Self::PutCode { .. } => "PutCode",
            Self::HasCode { .. } => "HasCode",
            Self::WaitEnded { .. } => "WaitEnded",
            Self::Replay { .. } => "Replay",
            Self::Link(_) => "Link",
            Self::Agent { .. } => "Agent",
            Self::Client { .. } => "Client",
            Self::ClientSubmit(_) => "ClientSubmit",
            Self::Watch { .. } => "Watch",
            Self::ClientGone { .. } => "ClientGone",
            Self::UsedBlobs { .. } => "UsedBlobs",
            Self::Shutdown { .. } => "Shutdown",
        };
        out.write_str(name)
    }
}
