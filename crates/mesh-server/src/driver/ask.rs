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
use mesh_core::snapshot::Snapshot;
use mesh_core::{Answer, Command, Mesh};
use mesh_store::{Entry, Seq, Side};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::clients::{ClientId, Notice};
use crate::handle::{Reply, Submitted};
use crate::outbox::Outbox;

/// The number of a connection with an agent. Only grows.
pub(crate) type LinkId = u64;

/// A question, and its share of the byte budget, given back when it was dealt with.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) ask: Ask,
    pub(crate) room: OwnedSemaphorePermit,
}

/// Something that reads the state.
pub(crate) type Reader = Box<dyn FnOnce(&Mesh, Timestamp) + Send>;

/// What may be asked of the driver.
pub(crate) enum Ask {
    /// Accept tasks.
    Submit { tasks: Vec<Result<Accept, Problem>>, reply: Reply<Vec<Result<Submitted, Problem>>> },
    /// Do what commands say.
    Commands { commands: Vec<Command>, reply: Reply<Vec<Result<Answer, Problem>>> },
    /// Read the state.
    Read(Reader),
    /// Read the bytes of a task.
    Data { task: TaskId, side: Side, reply: Reply<Option<Bytes>> },
    /// Keep code.
    PutCode { code: Vec<(Digest, Bytes)>, reply: Reply<()> },
    /// Say whether code is kept.
    HasCode { digest: Digest, reply: Reply<bool> },
    /// Say when a task has ended.
    WaitEnded { task: TaskId, reply: Reply<()> },
    /// Read old events, up to a few.
    Replay { after: Seq, reply: Reply<Vec<Entry>> },
    /// An agent said hello.
    Link(Box<LinkAsk>),
    /// An agent spoke.
    Agent { link: LinkId, cluster: ClusterName, said: AgentSaid },
    /// A client link opened.
    Client { client: ClientId, outbox: Outbox<Notice> },
    /// A client submitted.
    ClientSubmit(Box<ClientSubmit>),
    /// A client wants to know when these end.
    Watch { client: ClientId, tasks: Vec<TaskId> },
    /// A client link closed.
    ClientGone { client: ClientId },
    /// Keep a snapshot that includes the events up to this one.
    SaveSnapshot { seq: Seq, snapshot: Box<Snapshot>, reply: Reply<()> },
    /// Say which blobs something refers to.
    UsedBlobs { reply: Reply<HashSet<BlobId>> },
    /// End, with a last snapshot or without one.
    Shutdown { snapshot: bool, reply: oneshot::Sender<()> },
}

/// The hello of an agent.
#[derive(Debug)]
pub(crate) struct LinkAsk {
    pub(crate) link: LinkId,
    pub(crate) cluster: ClusterName,
    pub(crate) facts: AgentFacts,
    pub(crate) held: Vec<Held>,
    pub(crate) nodes: Vec<NodeFacts>,
    pub(crate) outbox: Outbox<ToAgent>,
    pub(crate) reply: Reply<()>,
}

/// What a linked agent says.
#[derive(Debug)]
pub(crate) enum AgentSaid {
    /// Numbered reports; the number is that of the first.
    Reports { seq: u64, items: Vec<Reported> },
    /// Its nodes.
    Nodes(Vec<NodeFacts>),
    /// Nothing any more: the connection is gone.
    Gone,
}

/// A submission over a client link.
#[derive(Debug)]
pub(crate) struct ClientSubmit {
    pub(crate) client: ClientId,
    pub(crate) id: u64,
    pub(crate) tasks: Vec<Result<Accept, Problem>>,
    pub(crate) code: Vec<(Digest, Bytes)>,
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
            Self::SaveSnapshot { .. } => "SaveSnapshot",
            Self::UsedBlobs { .. } => "UsedBlobs",
            Self::Shutdown { .. } => "Shutdown",
        };
        out.write_str(name)
    }
}
