//! What a machine's vsock device is to the host, whichever machine of the framework is behind it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use vmoon_core::vsock::VsockListener;
use vmoon_core::{Code, Error, Result, VsockPort};

use super::connect::{self, Tries};
use super::listener::{Listener, Ports};
use super::stream::{Stream, Streams};
use crate::framework::{RawConnection, Sockets};

/// The host's side of a machine's vsock device.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    /// The device of the present machine of the framework.
    sockets: Mutex<Option<Arc<dyn Sockets>>>,
    pub(super) ports: Ports,
    /// Counts the machines of the framework.
    life: AtomicU64,
    streams: Streams,
}

impl Hub {
    pub(super) fn sockets(&self) -> Option<Arc<dyn Sockets>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The present machine of the framework, by its number.
    pub(super) fn life(&self) -> u64 {
        self.life.load(Ordering::SeqCst)
    }

    /// Hands in a connection that the guest of this life opened; false when nobody takes it.
    pub(crate) fn deliver(&self, life: u64, port: u32, raw: RawConnection) -> bool {
        self.ports.deliver(port, (life, raw))
    }

    /// A machine of the framework takes over: what was connected to the one before is reset, and
    /// the ports that are listened on are its own now.
    pub(crate) fn attach(&self, life: u64, sockets: Option<Arc<dyn Sockets>>) {
        self.life.store(life, Ordering::SeqCst);
        self.streams.reset_all();
        if let Some(sockets) = &sockets {
            for port in self.ports.all() {
                sockets.listen(port);
            }
        }
        *self.sockets.lock().unwrap_or_else(PoisonError::into_inner) = sockets;
    }

    /// The machine has ended, or is about to go back: every connection is reset.
    pub(crate) fn reset(&self) {
        self.streams.reset_all();
    }

    /// The machine of the framework is no more; another may come.
    pub(crate) fn detach(&self) {
        self.attach(self.life() + 1, None);
    }

    /// The machine was closed: nobody is answered any more.
    pub(crate) fn close(&self) {
        self.detach();
        self.ports.close_all();
    }

    /// Connects to a port of the guest.
    pub(crate) async fn connect(&self, port: VsockPort) -> Result<Stream> {
        let sockets = self.sockets().ok_or_else(gone)?;
        let raw = connect::connect(&sockets, port, Tries::DEFAULT).await?;
        self.adopt(raw)
    }

    /// Answers the guest on a port of the host.
    pub(crate) fn listen(self: &Arc<Self>, port: VsockPort) -> Result<Box<dyn VsockListener>> {
        let sockets = self.sockets().ok_or_else(gone)?;
        let waiting = tokio::sync::Mutex::new(self.ports.open(port)?);
        sockets.listen(port.0);
        Ok(Box::new(Listener { hub: self.clone(), port, waiting }))
    }

    pub(super) fn adopt(&self, raw: RawConnection) -> Result<Stream> {
        self.streams.adopt(raw).map_err(|error| {
            Error::new(Code::VsockReset, "the connection cannot be used").with_source(error)
        })
    }
}

fn gone() -> Error {
    Error::new(Code::VmState, "the machine is closed").with_detail("state", "closed")
}
