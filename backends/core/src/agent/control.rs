//! The control connection, and the task that reads it.
//!
//! The stream lies behind a mutex rather than in the task, so that a restore can stop the reading,
//! and afterwards rewind the stream, without waiting for the task's turn.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::{oneshot, watch};
use vmoon_protocol::message::Ready;
use vmoon_protocol::{Frame, Kind, VERSION};

use super::connection::Connection;
use super::failure;
use super::life::Lives;
use super::memory::{Mark, Memo};
use super::observed::Observed;
use crate::error::{Code, Error, Result};
use crate::vsock::{VsockListener, VsockStream};

/// What is known of the agent.
#[derive(Clone, Debug, Default)]
pub(super) struct Presence {
    /// What it announced; an error when it cannot be used.
    pub(super) agent: Option<Result<Ready>>,
    /// Whether the control connection is open and the agent has announced itself on it.
    pub(super) connected: bool,
}

/// The control connection of one machine.
#[derive(Debug)]
pub(super) struct Control {
    state: Mutex<ControlState>,
    presence: watch::Sender<Presence>,
    lives: Arc<Lives>,
    serials: AtomicU64,
}

#[derive(Debug, Default)]
struct ControlState {
    connection: Option<Connection>,
    /// A restore is under way: nothing is read, accepted or written.
    held: bool,
    waiting: HashMap<u64, Waiter>,
    driver: Option<Waker>,
}

/// Somebody who waits for an answer.
#[derive(Debug)]
struct Waiter {
    answer: oneshot::Sender<Result<Frame>>,
    observed: Observed,
}

impl Control {
    /// Without a connection: the guest will dial.
    pub(super) fn new(lives: Arc<Lives>) -> Self {
        Self {
            state: Mutex::default(),
            presence: watch::Sender::default(),
            lives,
            serials: AtomicU64::new(1),
        }
    }

    /// For a fork: the agent serves already, perhaps on a connection that lives on.
    pub(super) fn adopt(&self, ready: Option<Ready>, stream: Option<VsockStream>) -> Option<Mark> {
        let connection = stream.map(|stream| Connection::new(stream, self.next_serial()));
        let mark = connection.as_ref().and_then(Connection::mark);
        let connected = connection.is_some();
        self.lock().connection = connection;
        self.presence.send_replace(Presence { agent: ready.map(Ok), connected });
        mark
    }

    fn lock(&self) -> MutexGuard<'_, ControlState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a new stream of this machine.
    pub(super) fn next_serial(&self) -> u64 {
        self.serials.fetch_add(1, Ordering::Relaxed)
    }

    /// What is known of the agent, as it changes.
    pub(super) fn presence(&self) -> watch::Receiver<Presence> {
        self.presence.subscribe()
    }

    /// Whether the agent has announced itself and can be used, without waiting.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.presence.borrow().agent, Some(Ok(_)))
    }

    /// What the agent announced.
    pub(super) fn ready(&self) -> Option<Ready> {
        self.presence.borrow().agent.clone().and_then(Result::ok)
    }

    /// What a snapshot remembers of the connection.
    pub(super) fn mark(&self) -> Option<Mark> {
        self.lock().connection.as_ref().and_then(Connection::mark)
    }

    /// Asks the agent; none when there is no connection. What it sees until it answers is kept in
    /// `observed`.
    pub(super) fn ask(
        self: &Arc<Self>,
        kind: Kind,
        id: u64,
        payload: &[u8],
        observed: Observed,
    ) -> Option<PendingAnswer> {
        let mut state = self.lock();
        state.connection.as_mut()?.queue(kind, id, payload);
        let (answer, receiver) = oneshot::channel();
        state.waiting.insert(id, Waiter { answer, observed });
        state.wake();
        Some(PendingAnswer { control: self.clone(), kind, id, receiver })
    }

    /// Stops all reading until [`Control::rewind`].
    pub(super) fn hold(&self) {
        self.lock().held = true;
    }

    /// Goes on as before a restore that changed nothing.
    pub(super) fn release(&self) {
        let mut state = self.lock();
        state.held = false;
        state.wake();
    }

    /// Goes on after a restore: with the same connection if it lay idle in the snapshot, else
    /// without one, until the guest dials again.
    pub(super) fn rewind(&self, memo: &Memo) {
        let mut state = self.lock();
        state.fail_waiting(&failure::restored());
        state.connection = state
            .connection
            .take()
            .filter(|connection| memo.control.is_some_and(|m| m.serial == connection.serial()));
        if let Some(connection) = &mut state.connection {
            connection.rewind();
        }
        state.held = false;
        self.presence.send_replace(Presence {
            agent: memo.ready.clone().map(Ok),
            connected: state.connection.is_some(),
        });
        state.wake();
    }

    /// Closes the connection for good.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.connection = None;
        state.fail_waiting(&Error::new(Code::VsockReset, "the machine was closed"));
    }

    /// A new dial replaces the connection: the guest was rebooted or reset.
    fn replace(&self, stream: VsockStream) {
        let connection = Connection::new(stream, self.next_serial());
        let mut state = self.lock();
        state.fail_waiting(&Error::new(Code::VsockReset, "the guest's agent started anew"));
        state.connection = Some(connection);
    }

    /// Reads and writes as far as possible; false while a restore holds everything.
    fn poll(&self, cx: &mut Context<'_>) -> bool {
        let mut state = self.lock();
        state.driver = Some(cx.waker().clone());
        if state.held {
            return false;
        }
        while let Some(connection) = &mut state.connection {
            if let Poll::Ready(Err(error)) = connection.poll_drain(cx) {
                tracing::debug!(%error, "the control connection broke");
                self.lost(&mut state);
                break;
            }
            match connection.poll_frame(cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(frame)) => self.dispatch(&mut state, frame),
                Poll::Ready(Err(error)) => {
                    tracing::debug!(?error, "the control connection ended");
                    self.lost(&mut state);
                }
            }
        }
        true
    }

    fn lost(&self, state: &mut ControlState) {
        state.connection = None;
        state.fail_waiting(&Error::new(Code::VsockReset, "the guest's agent went away"));
        self.presence.send_replace(Presence::default());
    }

    fn dispatch(&self, state: &mut ControlState, frame: Frame) {
        match Kind::from_value(frame.kind) {
            Some(Kind::Ready) => {
                let agent = announced(&frame.payload);
                self.presence.send_replace(Presence { agent: Some(agent), connected: true });
            }
            Some(Kind::Log) => {
                tracing::info!(target: "vmoon::guest", "{}", String::from_utf8_lossy(&frame.payload));
            }
            Some(Kind::Observed) => {
                if let Some(waiter) = state.waiting.get(&frame.id) {
                    waiter.observed.set(&frame.payload);
                }
            }
            Some(kind @ (Kind::Done | Kind::Error | Kind::LifeDone)) => {
                if kind == Kind::LifeDone
                    && let Ok(epoch) = frame.payload.as_slice().try_into()
                {
                    self.lives.confirm(u64::from_le_bytes(epoch));
                }
                if let Some(waiter) = state.waiting.remove(&frame.id) {
                    // Nobody waits any more: the request was dropped.
                    let _ = waiter.answer.send(Ok(frame));
                }
            }
            _ => {}
        }
    }
}

impl ControlState {
    fn wake(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    fn fail_waiting(&mut self, error: &Error) {
        for (_, waiter) in self.waiting.drain() {
            let _ = waiter.answer.send(Err(error.clone()));
        }
    }
}

fn announced(payload: &[u8]) -> Result<Ready> {
    let ready = Ready::decode(payload)?;
    if ready.version == VERSION {
        return Ok(ready);
    }
    Err(Error::new(
        Code::AgentUnavailable,
        format!(
            "the guest's agent speaks version {} of the protocol, this vmoon speaks {VERSION}",
            ready.version
        ),
    )
    .with_hint("put the agent of this vmoon into the guest's image")
    .with_detail("version", ready.version))
}

/// Accepts the guest's dials and reads the control connection, until the machine is closed.
pub(super) async fn drive(control: Arc<Control>, listener: Box<dyn VsockListener>) {
    let mut dial = listener.accept();
    poll_fn(|cx| {
        // A stream of the life that a restore is undoing must not be accepted, nor one of the new
        // life before the bookkeeping is done.
        while control.poll(cx) {
            match dial.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, "the agent's port was closed");
                    return Poll::Ready(());
                }
                Poll::Ready(Ok(stream)) => {
                    control.replace(stream);
                    dial = listener.accept();
                }
            }
        }
        Poll::Pending
    })
    .await;
}

/// A question over control. Dropping it withdraws it.
#[derive(Debug)]
pub(super) struct PendingAnswer {
    control: Arc<Control>,
    kind: Kind,
    id: u64,
    receiver: oneshot::Receiver<Result<Frame>>,
}

impl PendingAnswer {
    /// The answer; the guest's refusal is an error.
    pub(super) async fn answer(mut self) -> Result<Frame> {
        let frame = match (&mut self.receiver).await {
            Ok(answer) => answer?,
            Err(_) => return Err(Error::new(Code::VsockReset, "the guest's agent went away")),
        };
        if Kind::from_value(frame.kind) == Some(Kind::Error) {
            return Err(failure::from_frame(&frame));
        }
        Ok(frame)
    }
}

impl Drop for PendingAnswer {
    fn drop(&mut self) {
        let mut state = self.control.lock();
        if state.waiting.remove(&self.id).is_some()
            && self.kind == Kind::Watch
            && let Some(connection) = &mut state.connection
        {
            connection.queue(Kind::Unwatch, self.id, &[]);
            state.wake();
        }
    }
}
