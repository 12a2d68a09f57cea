//! A queue from the driver to one link. The driver never waits for a slow peer: when too much
//! is queued, the link is closed, and the peer comes back and is told what still holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::mpsc;

/// The driver's end.
#[derive(Debug)]
pub struct Outbox<T> {
    frames: mpsc::UnboundedSender<(T, usize)>,
    state: Arc<State>,
}

/// The link's end.
#[derive(Debug)]
pub struct Inbox<T> {
    frames: mpsc::UnboundedReceiver<(T, usize)>,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    queued: AtomicUsize,
    max: usize,
    closed: AtomicBool,
    wake: tokio::sync::Notify,
}

impl<T> Clone for Outbox<T> {
    fn clone(&self) -> Self {
        Self { frames: self.frames.clone(), state: Arc::clone(&self.state) }
    }
}

/// A queue that holds about `max` bytes.
pub fn outbox<T>(max: usize) -> (Outbox<T>, Inbox<T>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let state = Arc::new(State {
        queued: AtomicUsize::new(0),
        max,
        closed: AtomicBool::new(false),
        wake: tokio::sync::Notify::new(),
    });
    (Outbox { frames: sender, state: Arc::clone(&state) }, Inbox { frames: receiver, state })
}

impl<T> Outbox<T> {
    /// Queues a frame of about `bytes`; closes the link instead when that is too much.
    pub fn push(&self, frame: T, bytes: usize) {
        let queued = self.state.queued.fetch_add(bytes, Ordering::Relaxed);
        if queued > self.state.max || self.frames.send((frame, bytes)).is_err() {
            self.close();
        }
    }

    /// Bytes that are queued.
    pub fn queued(&self) -> usize {
        self.state.queued.load(Ordering::Relaxed)
    }

    /// Ends the link.
    pub fn close(&self) {
        self.state.closed.store(true, Ordering::Release);
        self.state.wake.notify_one();
    }
}

impl<T> Inbox<T> {
    /// The next frame; nothing when the link is to be closed. Cancelling loses nothing.
    pub(crate) async fn next(&mut self) -> Option<T> {
        if self.is_closed() {
            return None;
        }
        tokio::select! {
            biased;
            () = self.state.wake.notified() => None,
            frame = self.frames.recv() => {
                let (frame, bytes) = frame?;
                self.state.queued.fetch_sub(bytes, Ordering::Relaxed);
                Some(frame)
            }
        }
    }
}

impl<T> Inbox<T> {
    /// A frame that is there already; nothing when there is none, or the link is to be closed.
    pub fn take(&mut self) -> Option<T> {
        if self.is_closed() {
            return None;
        }
        let (frame, bytes) = self.frames.try_recv().ok()?;
        self.state.queued.fetch_sub(bytes, Ordering::Relaxed);
        Some(frame)
    }

    /// Whether the link is to be closed.
    pub fn is_closed(&self) -> bool {
        self.state.closed.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_in_order_until_too_much_is_queued() {
        let (outbox, mut inbox) = outbox(100);
        outbox.push(1, 60);
        outbox.push(2, 60);
        assert_eq!(inbox.next().await, Some(1));
        assert_eq!(inbox.next().await, Some(2));
        assert_eq!(outbox.queued(), 0);
        outbox.push(3, 101);
        outbox.push(4, 1);
        assert_eq!(inbox.next().await, None, "closed, whatever is still queued");
    }
}
