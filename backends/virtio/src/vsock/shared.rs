//! What the device shares with the handles of the host.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use vmoon_core::error::{Code, Error, Result};
use vmoon_core::units::{Cid, VsockPort};
use vmoon_core::vsock::VsockStream;

use super::listener::Backlog;
use crate::waker::HostWaker;

/// The meeting place of the device, on its owner's thread, and the host's tasks.
#[derive(Debug)]
pub(super) struct Shared {
    waker: HostWaker,
    cid: AtomicU64,
    serials: AtomicU64,
    state: Mutex<SharedState>,
}

/// What the host asks of the device.
#[derive(Debug, Default)]
pub(super) struct SharedState {
    /// Who is answered on which port of the host.
    pub(super) listeners: HashMap<VsockPort, Arc<Backlog>>,
    /// Connections wanted by the host, which the device has not seen yet.
    pub(super) wanted: VecDeque<Wanted>,
    /// The serials of pipes that the host has touched.
    pub(super) touched: Vec<u64>,
    /// Host ends made for a fork, until they are taken.
    pub(super) inherited: Vec<VsockStream>,
    /// The device is gone.
    pub(super) closed: bool,
}

/// A connection that the host wants.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) serial: u64,
    pub(super) guest_port: VsockPort,
    pub(super) reply: oneshot::Sender<Result<VsockStream>>,
}

impl Shared {
    pub(super) fn new(cid: Cid, waker: HostWaker) -> Arc<Self> {
        // Serials outlive the device: in snapshots, forks and files. Where they start is left to
        // chance, so that no device takes another's connection for its own.
        let first = RandomState::new().build_hasher().finish();
        let (cid, serials) = (AtomicU64::new(cid.0), AtomicU64::new(first));
        Arc::new(Self { waker, cid, serials, state: Mutex::default() })
    }

    /// The CID of the machine.
    pub(super) fn cid(&self) -> Cid {
        Cid(self.cid.load(Ordering::Acquire))
    }

    pub(super) fn set_cid(&self, cid: Cid) {
        self.cid.store(cid.0, Ordering::Release);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, SharedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    /// A number that no connection of this device has had.
    pub(super) fn serial(&self) -> u64 {
        self.serials.fetch_add(1, Ordering::Relaxed)
    }

    /// Tells the device to look at a connection.
    pub(super) fn announce(&self, serial: u64) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        state.touched.push(serial);
        drop(state);
        self.waker.wake();
    }

    /// The device is gone, and with it the machine.
    pub(super) fn close(&self) {
        let (listeners, wanted, inherited) = {
            let mut state = self.lock();
            state.closed = true;
            state.touched = Vec::new();
            (
                std::mem::take(&mut state.listeners),
                std::mem::take(&mut state.wanted),
                std::mem::take(&mut state.inherited),
            )
        };
        drop(inherited);
        for backlog in listeners.into_values() {
            backlog.close();
        }
        for wanted in wanted {
            let _ = wanted.reply.send(Err(closed()));
        }
    }
}

/// The error for whoever uses the sockets of a machine that is gone.
pub(super) fn closed() -> Error {
    Error::new(Code::VsockReset, "the machine was closed")
}
