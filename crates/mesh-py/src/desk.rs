//! What a client has asked for and has not been told the end of, as a state machine without a
//! network: it says which frames to send, is told what came back, and collects what Python must hear.
//!
//! A submission is *waiting*, then *sent*, then *watched*, then gone. When the link breaks, what was
//! sent waits again, in its old order and under its old key, and what was watched is watched again.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use mesh_api::agent::{CodeFrame, DataFrame};
use mesh_api::client_link::{Accepted, EndedTask, FromClient, SubmitFrame, SubmitTask};
use mesh_api::problem::Problem;
use mesh_api::v1::{SpecBody, WorkBody};

/// Frames of submissions on the way at once. A few keep the server busy while more tasks gather, and
/// what gathers meanwhile shares a frame, and a commit.
const FRAMES_MAX: usize = 2;

/// Most tasks in one frame.
const FRAME_TASKS_MAX: usize = 2_048;

/// Most bytes of arguments and code in one frame, give or take one task.
const FRAME_BYTES_MAX: usize = 4 << 20;

/// Larger code is uploaded before, by HTTP.
pub(crate) const CODE_INLINE_MAX: usize = 1 << 20;

/// Digests remembered as sent on this link; beyond, they are sent again.
const CODE_SENT_MAX: usize = 8_192;

/// Most tasks in one frame that watches or cancels.
const LIST_MAX: usize = 10_000;

/// How long to wait when an overloaded server does not say.
const RETRY_DEFAULT: Duration = Duration::from_millis(100);

/// Pickled code and its digest.
#[derive(Debug)]
pub(crate) struct Code {
    pub(crate) frame: CodeFrame,
}

/// What several submissions share.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) body: SpecBody,
    pub(crate) code: Option<Arc<Code>>,
}

impl Shape {
    /// Calls of an actor must arrive in the order in which they were made.
    fn ordered(&self) -> bool {
        matches!(self.body.work, WorkBody::Call { .. })
    }
}

/// One task to submit.
#[derive(Debug)]
pub(crate) struct Submission {
    /// What Python calls it.
    pub(crate) ticket: u64,
    pub(crate) shape: Arc<Shape>,
    pub(crate) key: String,
    pub(crate) name: Option<String>,
    pub(crate) payload: DataFrame,
    /// Whether its code was sent a second time because the server had dropped it.
    pub(crate) code_again: bool,
    /// Whether it was on a link that broke: then it may have been accepted, and must be sent again
    /// even to be cancelled.
    pub(crate) in_doubt: bool,
}

impl Submission {
    /// What it counts for in a bounded queue.
    pub(crate) fn size(&self) -> usize {
        const OVERHEAD: usize = 128;
        match &self.payload {
            DataFrame::Inline(bytes) => bytes.len() + OVERHEAD,
            DataFrame::None | DataFrame::Blob(_) => OVERHEAD,
        }
    }
}

/// What Python must hear.
#[derive(Debug)]
pub(crate) enum Event {
    /// It runs.
    Started { ticket: u64, task: u64 },
    /// It ended.
    Ended { ticket: u64, end: EndedTask },
    /// It was never accepted.
    Refused { ticket: u64, problem: Problem },
    /// It was cancelled before it was sent.
    Dropped { ticket: u64 },
}

impl Event {
    fn size(&self) -> usize {
        const OVERHEAD: usize = 64;
        match self {
            Self::Ended { end: EndedTask { result: DataFrame::Inline(bytes), .. }, .. } => {
                bytes.len() + OVERHEAD
            }
            Self::Ended { .. }
            | Self::Started { .. }
            | Self::Refused { .. }
            | Self::Dropped { .. } => OVERHEAD,
        }
    }
}

/// Where a ticket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Waiting { cancelled: bool },
    Sent { cancelled: bool },
    Watched { task: u64 },
}

/// Submissions in one frame on the way.
#[derive(Debug)]
struct SentFrame {
    items: Vec<Submission>,
    ordered: bool,
}

/// All that one client has under way.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    waiting: VecDeque<Submission>,
    frames: BTreeMap<u64, SentFrame>,
    /// Bytes of what is waiting or sent.
    unaccepted_bytes: usize,
    unaccepted: usize,
    next_id: u64,
    slots: HashMap<u64, Slot>,
    /// The ticket of each watched task, and further ones where a key was submitted twice.
    tickets: HashMap<u64, u64>,
    twins: HashMap<u64, Vec<u64>>,
    /// Ends told before the acceptance that says whose they are.
    early: HashMap<u64, EndedTask>,
    to_watch: Vec<u64>,
    to_cancel: Vec<u64>,
    cancelling: BTreeMap<u64, Vec<u64>>,
    code_sent: HashSet<String>,
    events: Vec<Event>,
    events_bytes: usize,
}

impl Desk {
    /// How many submissions are not accepted yet, and their bytes.
    pub(crate) fn unaccepted(&self) -> (usize, usize) {
        (self.unaccepted, self.unaccepted_bytes)
    }

    /// Whether the server has answered everything that was asked of it.
    pub(crate) fn is_settled(&self) -> bool {
        self.unaccepted == 0 && self.to_cancel.is_empty() && self.cancelling.is_empty()
    }

    /// How many bytes of news wait for Python.
    pub(crate) fn events_bytes(&self) -> usize {
        self.events_bytes
    }

    /// Whether Python has something to hear.
    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// The news since the last call.
    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        self.events_bytes = 0;
        std::mem::take(&mut self.events)
    }

    /// Takes a submission in.
    pub(crate) fn submit(&mut self, submission: Submission) {
        self.unaccepted += 1;
        self.unaccepted_bytes += submission.size();
        self.slots.insert(submission.ticket, Slot::Waiting { cancelled: false });
        self.waiting.push_back(submission);
    }

    /// Watches a task that was submitted elsewhere.
    pub(crate) fn watch(&mut self, ticket: u64, task: u64) {
        self.attach(ticket, task);
        self.to_watch.push(task);
    }

    /// Asks for the end of a task; `false` when it is not under way.
    pub(crate) fn cancel(&mut self, ticket: u64) -> bool {
        match self.slots.get_mut(&ticket) {
            None => return false,
            Some(Slot::Waiting { cancelled } | Slot::Sent { cancelled }) => *cancelled = true,
            Some(Slot::Watched { task }) => self.to_cancel.push(*task),
        }
        true
    }

    /// The task of a ticket, once it is accepted; the outer `None` when it is not under way.
    #[expect(clippy::option_option, reason = "under way and accepted are two questions")]
    pub(crate) fn task_of(&self, ticket: u64) -> Option<Option<u64>> {
        self.slots.get(&ticket).map(|slot| match slot {
            Slot::Watched { task } => Some(*task),
            Slot::Waiting { .. } | Slot::Sent { .. } => None,
        })
    }

    /// The next frame to send. `may_submit` is false while the server asks for a pause.
    pub(crate) fn next_frame(&mut self, may_submit: bool) -> Option<FromClient> {
        if !self.to_watch.is_empty() {
            let rest = self.to_watch.split_off(self.to_watch.len().min(LIST_MAX));
            return Some(FromClient::Watch { tasks: std::mem::replace(&mut self.to_watch, rest) });
        }
        if !self.to_cancel.is_empty() {
            let rest = self.to_cancel.split_off(self.to_cancel.len().min(LIST_MAX));
            let tasks = std::mem::replace(&mut self.to_cancel, rest);
            let id = self.new_id();
            self.cancelling.insert(id, tasks.clone());
            return Some(FromClient::Cancel { id, tasks });
        }
        if may_submit { self.next_submit().map(FromClient::Submit) } else { None }
    }

    fn next_submit(&mut self) -> Option<SubmitFrame> {
        if self.frames.len() >= FRAMES_MAX {
            return None;
        }
        let ordered_on_the_way = self.frames.values().any(|frame| frame.ordered);
        let mut draft = Draft::default();
        while let Some(next) = self.waiting.front() {
            // Two frames of calls on the way could be accepted in part, the later one first.
            if draft.full() || (ordered_on_the_way && next.shape.ordered()) {
                break;
            }
            let Some(submission) = self.waiting.pop_front() else { break };
            let cancelled =
                self.slots.get(&submission.ticket) == Some(&Slot::Waiting { cancelled: true });
            if cancelled && !submission.in_doubt {
                self.drop_waiting(&submission);
                continue;
            }
            self.slots.insert(submission.ticket, Slot::Sent { cancelled });
            draft.add(submission, &mut self.code_sent);
        }
        if draft.items.is_empty() {
            return None;
        }
        let id = self.new_id();
        let (frame, sent) = draft.finish(id);
        self.frames.insert(id, sent);
        Some(frame)
    }

    fn drop_waiting(&mut self, submission: &Submission) {
        self.forget_unaccepted(submission);
        self.slots.remove(&submission.ticket);
        self.tell(Event::Dropped { ticket: submission.ticket });
    }

    /// Takes the answer to a frame. Returns how long to wait before the next one, when the server
    /// asks for a pause.
    pub(crate) fn accepted(&mut self, id: u64, results: Vec<Accepted>) -> Option<Duration> {
        let frame = self.frames.remove(&id)?;
        let mut again = Vec::new();
        let mut pause = None;
        let mut results = results.into_iter();
        for submission in frame.items {
            match results.next() {
                Some(Accepted::Task { task, .. }) => self.settle(&submission, task),
                Some(Accepted::Error(problem)) if is_open(&submission, &problem) => {
                    let wait = problem.retry_after_ms.map(Duration::from_millis);
                    pause = pause.max(Some(wait.unwrap_or(RETRY_DEFAULT)));
                    again.push(submission);
                }
                Some(Accepted::Error(problem)) => {
                    again.extend(self.refuse_unless_code(submission, problem));
                }
                // An answer that is too short leaves the question open.
                None => again.push(submission),
            }
        }
        self.requeue(again);
        if self.frames.is_empty() {
            self.early.clear();
        }
        pause
    }

    /// A refusal is final, except that code which the server has dropped is sent once more.
    fn refuse_unless_code(
        &mut self,
        mut submission: Submission,
        problem: Problem,
    ) -> Option<Submission> {
        if problem.code == "UNKNOWN_CODE"
            && !submission.code_again
            && let Some(code) = &submission.shape.code
        {
            self.code_sent.remove(&code.frame.digest);
            submission.code_again = true;
            return Some(submission);
        }
        self.forget_unaccepted(&submission);
        self.slots.remove(&submission.ticket);
        self.tell(Event::Refused { ticket: submission.ticket, problem });
        None
    }

    fn settle(&mut self, submission: &Submission, task: u64) {
        self.forget_unaccepted(submission);
        let cancelled = self.slots.get(&submission.ticket) == Some(&Slot::Sent { cancelled: true });
        self.attach(submission.ticket, task);
        if let Some(end) = self.early.remove(&task) {
            self.end(end);
        } else if cancelled {
            self.to_cancel.push(task);
        }
    }

    fn attach(&mut self, ticket: u64, task: u64) {
        self.slots.insert(ticket, Slot::Watched { task });
        if let Some(first) = self.tickets.get(&task) {
            if *first != ticket {
                self.twins.entry(task).or_default().push(ticket);
            }
        } else {
            self.tickets.insert(task, ticket);
        }
    }

    /// Watched tasks run.
    pub(crate) fn started(&mut self, tasks: &[u64]) {
        for task in tasks {
            let twins = self.twins.get(task).cloned().unwrap_or_default();
            for ticket in self.tickets.get(task).copied().into_iter().chain(twins) {
                self.tell(Event::Started { ticket, task: *task });
            }
        }
    }

    /// Watched tasks ended.
    pub(crate) fn ended(&mut self, tasks: Vec<EndedTask>) {
        for end in tasks {
            if self.tickets.contains_key(&end.task) {
                self.end(end);
            } else if !self.frames.is_empty() {
                self.early.insert(end.task, end);
            }
        }
    }

    fn end(&mut self, end: EndedTask) {
        for ticket in self.twins.remove(&end.task).unwrap_or_default() {
            self.slots.remove(&ticket);
            self.tell(Event::Ended { ticket, end: end.clone() });
        }
        if let Some(ticket) = self.tickets.remove(&end.task) {
            self.slots.remove(&ticket);
            self.tell(Event::Ended { ticket, end });
        }
    }

    /// A request to cancel was answered. What it did is told by the end of the tasks.
    pub(crate) fn cancel_answered(&mut self, id: u64) {
        self.cancelling.remove(&id);
    }

    /// The link broke: everything that was on the way is open again.
    pub(crate) fn link_lost(&mut self) {
        let frames = std::mem::take(&mut self.frames);
        let mut open: Vec<_> = frames.into_values().flat_map(|frame| frame.items).collect();
        for submission in &mut open {
            submission.in_doubt = true;
        }
        self.requeue(open);
        self.early.clear();
        self.code_sent.clear();
        self.to_watch = self.tickets.keys().copied().collect();
        self.to_watch.sort_unstable();
        for tasks in std::mem::take(&mut self.cancelling).into_values() {
            self.to_cancel.extend(tasks);
        }
        self.to_cancel.retain(|task| self.tickets.contains_key(task));
    }

    /// Nothing will be heard any more: refuses all that is under way.
    pub(crate) fn refuse_all(&mut self, problem: &Problem) {
        let events = std::mem::take(&mut self.events);
        let tickets: Vec<u64> = self.slots.keys().copied().collect();
        *self = Self { events, events_bytes: self.events_bytes, ..Self::default() };
        for ticket in tickets {
            self.tell(Event::Refused { ticket, problem: problem.clone() });
        }
    }

    fn requeue(&mut self, items: Vec<Submission>) {
        for submission in items.into_iter().rev() {
            let cancelled =
                self.slots.get(&submission.ticket) == Some(&Slot::Sent { cancelled: true });
            self.slots.insert(submission.ticket, Slot::Waiting { cancelled });
            self.waiting.push_front(submission);
        }
    }

    fn forget_unaccepted(&mut self, submission: &Submission) {
        self.unaccepted -= 1;
        self.unaccepted_bytes -= submission.size();
    }

    fn tell(&mut self, event: Event) {
        self.events_bytes += event.size();
        self.events.push(event);
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

/// Whether an answer leaves open what becomes of a submission. While the store is in trouble, one
/// that was on a link that broke may have been accepted, and only the store knows.
fn is_open(submission: &Submission, problem: &Problem) -> bool {
    match problem.code.as_str() {
        "OVERLOADED" => true,
        "STORE_FULL" | "STORE_FAILED" => submission.in_doubt,
        _ => false,
    }
}

/// A frame in the making.
#[derive(Default)]
struct Draft {
    shapes: Vec<Arc<Shape>>,
    by_address: HashMap<usize, u32>,
    code: Vec<CodeFrame>,
    tasks: Vec<SubmitTask>,
    items: Vec<Submission>,
    bytes: usize,
    ordered: bool,
}

impl Draft {
    fn full(&self) -> bool {
        self.items.len() >= FRAME_TASKS_MAX || self.bytes >= FRAME_BYTES_MAX
    }

    fn add(&mut self, submission: Submission, code_sent: &mut HashSet<String>) {
        self.bytes += submission.size();
        self.ordered |= submission.shape.ordered();
        if let Some(code) = &submission.shape.code {
            self.add_code(code, code_sent);
        }
        let spec = self.shape_index(&submission.shape);
        self.tasks.push(SubmitTask {
            spec,
            key: submission.key.clone(),
            name: submission.name.clone(),
            payload: submission.payload.clone(),
        });
        self.items.push(submission);
    }

    fn add_code(&mut self, code: &Code, sent: &mut HashSet<String>) {
        if code.frame.bytes.len() > CODE_INLINE_MAX || sent.contains(&code.frame.digest) {
            return;
        }
        if sent.len() >= CODE_SENT_MAX {
            sent.clear();
        }
        sent.insert(code.frame.digest.clone());
        self.bytes += code.frame.bytes.len();
        self.code.push(code.frame.clone());
    }

    fn shape_index(&mut self, shape: &Arc<Shape>) -> u32 {
        let address = Arc::as_ptr(shape).addr();
        if let Some(index) = self.by_address.get(&address) {
            return *index;
        }
        let index = u32::try_from(self.shapes.len()).unwrap_or(u32::MAX);
        self.by_address.insert(address, index);
        self.shapes.push(Arc::clone(shape));
        index
    }

    fn finish(self, id: u64) -> (SubmitFrame, SentFrame) {
        let specs = self.shapes.iter().map(|shape| shape.body.clone()).collect();
        let frame = SubmitFrame { id, specs, code: self.code, tasks: self.tasks };
        (frame, SentFrame { items: self.items, ordered: self.ordered })
    }
}
