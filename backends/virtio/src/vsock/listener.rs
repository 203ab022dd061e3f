//! Ports of the host on which the guest is answered.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;
use vmoon_core::error::Result;
use vmoon_core::units::VsockPort;
use vmoon_core::vsock::{VsockListener, VsockStream};

use super::shared::{Shared, closed};
use super::stream::HostStream;

/// How many connections wait to be accepted on a port; the guest is refused beyond that.
const BACKLOG: usize = 512;

/// The connections of one port that nobody has accepted yet.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    state: Mutex<BacklogState>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct BacklogState {
    streams: VecDeque<HostStream>,
    closed: bool,
}

impl Backlog {
    fn lock(&self) -> MutexGuard<'_, BacklogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is room for another connection.
    pub(super) fn has_room(&self) -> bool {
        let mut state = self.lock();
        if state.streams.len() >= BACKLOG {
            state.streams.retain(|stream| !stream.is_cut());
        }
        !state.closed && state.streams.len() < BACKLOG
    }

    /// A connection for the next caller of `accept`.
    pub(super) fn push(&self, stream: HostStream) {
        self.lock().streams.push_back(stream);
        self.arrived.notify_one();
    }

    /// Drops who waits, and lets nobody in again.
    pub(super) fn close(&self) {
        let streams = {
            let mut state = self.lock();
            state.closed = true;
            std::mem::take(&mut state.streams)
        };
        drop(streams);
        self.arrived.notify_waiters();
    }
}

/// The host's handle to a port.
#[derive(Debug)]
pub(super) struct Listener {
    port: VsockPort,
    backlog: Arc<Backlog>,
    shared: Arc<Shared>,
}

impl Listener {
    pub(super) const fn new(port: VsockPort, backlog: Arc<Backlog>, shared: Arc<Shared>) -> Self {
        Self { port, backlog, shared }
    }
}

#[async_trait]
impl VsockListener for Listener {
    fn port(&self) -> VsockPort {
        self.port
    }

    async fn accept(&self) -> Result<VsockStream> {
        loop {
            let arrived = self.backlog.arrived.notified();
            tokio::pin!(arrived);
            // Registers before the check, so that an arrival between the two is not missed.
            arrived.as_mut().enable();
            {
                let mut state = self.backlog.lock();
                while let Some(stream) = state.streams.pop_front() {
                    // Who left before being accepted never came.
                    if !stream.is_cut() {
                        let more = !state.streams.is_empty();
                        drop(state);
                        if more {
                            self.backlog.arrived.notify_one();
                        }
                        return Ok(Box::new(stream));
                    }
                }
                if state.closed {
                    return Err(closed());
                }
            }
            arrived.await;
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if state.listeners.get(&self.port).is_some_and(|it| Arc::ptr_eq(it, &self.backlog)) {
            state.listeners.remove(&self.port);
        }
        drop(state);
        self.backlog.close();
    }
}
