//! The host's handle to the sockets of a machine.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use tokio::sync::oneshot;
use vmoon_core::error::{Code, Error, Result};
use vmoon_core::units::{Cid, VsockPort};
use vmoon_core::vsock::{VsockListener, VsockStream};

use super::listener::{Backlog, Listener};
use super::shared::{Shared, Wanted, closed};

/// Opens and answers connections with the guest, from any task. Clones share one device.
#[derive(Clone, Debug)]
pub struct VsockHost(pub(super) Arc<Shared>);

impl VsockHost {
    /// Names a machine that was made before it was known which it would be. To be called before
    /// its guest runs.
    pub fn set_cid(&self, cid: Cid) {
        self.0.set_cid(cid);
    }

    /// Opens a connection to a port of the guest. Waits until the guest's driver is up and the
    /// guest has answered. Cancel-safe.
    ///
    /// # Errors
    /// `vsock.refused` if nobody listens; `vsock.reset` once the machine is gone.
    pub async fn connect(&self, port: VsockPort) -> Result<VsockStream> {
        let (reply, answer) = oneshot::channel();
        let serial = self.0.serial();
        {
            let mut state = self.0.lock();
            if state.closed {
                return Err(closed());
            }
            state.wanted.push_back(Wanted { serial, guest_port: port, reply });
        }
        // However this ends, the device is told: a caller that gave up is not waited for.
        let _announce = Announce { shared: &self.0, serial };
        self.0.wake();
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Answers the guest on a port of the host.
    ///
    /// # Errors
    /// `vsock.refused` where the port has a listener already; `vsock.reset` once the machine is
    /// gone.
    pub fn listen(&self, port: VsockPort) -> Result<Box<dyn VsockListener>> {
        let mut state = self.0.lock();
        if state.closed {
            return Err(closed());
        }
        let Entry::Vacant(entry) = state.listeners.entry(port) else {
            return Err(Error::new(
                Code::VsockRefused,
                format!("port {port} of the host has a listener already"),
            )
            .with_hint("close the other listener, or choose another port")
            .with_detail("port", port.0));
        };
        let backlog = Arc::<Backlog>::default();
        entry.insert(Arc::clone(&backlog));
        drop(state);
        Ok(Box::new(Listener::new(port, backlog, Arc::clone(&self.0))))
    }

    /// The host ends of the connections that were idle in the snapshot that a fresh device was
    /// restored from. Each is given out once; those never taken are reset with the device.
    pub fn take_inherited(&self) -> Vec<VsockStream> {
        std::mem::take(&mut self.0.lock().inherited)
    }
}

/// Tells the device to look at a connection when dropped.
struct Announce<'a> {
    shared: &'a Shared,
    serial: u64,
}

impl Drop for Announce<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let waiting = state.wanted.len();
        state.wanted.retain(|wanted| wanted.serial != self.serial);
        let unseen = state.wanted.len() < waiting;
        drop(state);
        if !unseen {
            self.shared.announce(self.serial);
        }
    }
}
