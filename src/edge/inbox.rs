//! The way from the edge to the driver: one bounded queue, and callers that wait for an answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::engine::message::{Answer, Input, RequestId};
use crate::journal::Write;

/// Inputs that may wait while one commit is under way. At 2,000 durable events a second this is two
/// seconds of the worst load; beyond it callers are told to come back.
const QUEUE_MAX: usize = 4096;

/// What the driver takes from its queue.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "most messages are inputs, and the queue is bounded")]
pub enum Message {
    Input(Input),
    /// A write that concerns only the store; `done` is told when it is on disk.
    Write(Write, Option<oneshot::Sender<()>>),
    Stop,
}

/// Cloneable handle on the driver's queue.
#[derive(Debug, Clone)]
pub struct Inbox {
    queue: SyncSender<Message>,
    waiting: Arc<Mutex<HashMap<RequestId, oneshot::Sender<Answer>>>>,
    next: Arc<AtomicU64>,
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// The queue is full: come back in a second.
    Busy,
    /// The driver is gone: the process is ending.
    Stopping,
}

impl Inbox {
    pub fn new() -> (Inbox, Receiver<Message>) {
        let (queue, receiver) = sync_channel(QUEUE_MAX);
        (Inbox { queue, waiting: Arc::default(), next: Arc::new(AtomicU64::new(1)) }, receiver)
    }

    /// Hands over an input that nobody waits for.
    pub fn tell(&self, input: Input) -> Result<(), NotTaken> {
        self.send(Message::Input(input))
    }

    /// Hands over an input and waits for the engine's answer, which comes after the commit.
    pub async fn ask(&self, input: impl FnOnce(RequestId) -> Input) -> Result<Answer, NotTaken> {
        let request = RequestId(self.next.fetch_add(1, Ordering::Relaxed));
        let (sender, answer) = oneshot::channel();
        self.lock().insert(request, sender);
        if let Err(error) = self.send(Message::Input(input(request))) {
            self.lock().remove(&request);
            return Err(error);
        }
        answer.await.map_err(|_| NotTaken::Stopping)
    }

    /// Hands over a write that nobody waits for.
    pub fn write(&self, write: Write) -> Result<(), NotTaken> {
        self.send(Message::Write(write, None))
    }

    /// Hands over a write and waits until it is on disk.
    pub async fn write_synced(&self, write: Write) -> Result<(), NotTaken> {
        let (sender, done) = oneshot::channel();
        self.send(Message::Write(write, Some(sender)))?;
        done.await.map_err(|_| NotTaken::Stopping)
    }

    pub fn stop(&self) {
        // Blocking is right here: the message must get through even when the queue is full.
        let _ = self.queue.send(Message::Stop);
    }

    /// Called by dispatch for `Command::Reply`. A caller that left, or one of another process, is no loss.
    pub fn answer(&self, request: RequestId, answer: Answer) {
        if let Some(sender) = self.lock().remove(&request) {
            let _ = sender.send(answer);
        }
    }

    fn send(&self, message: Message) -> Result<(), NotTaken> {
        self.queue.try_send(message).map_err(|error| match error {
            TrySendError::Full(_) => NotTaken::Busy,
            TrySendError::Disconnected(_) => NotTaken::Stopping,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<RequestId, oneshot::Sender<Answer>>> {
        // The map stays whole whatever a panicking holder did: it only inserts and removes.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
