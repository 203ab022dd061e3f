//! Ports of the host on which the guest is answered.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::mpsc;
use vmoon_core::vsock::{VsockListener, VsockStream};
use vmoon_core::{Code, Error, Result, VsockPort};

use super::hub::Hub;
use crate::framework::RawConnection;

/// How many connections wait to be accepted; more are refused.
const BACKLOG: usize = 128;

/// A connection and the life in which it came.
pub(super) type Dialled = (u64, RawConnection);

/// The ports that are listened on. They outlive a restore.
#[derive(Debug, Default)]
pub(crate) struct Ports(Mutex<BTreeMap<u32, mpsc::Sender<Dialled>>>);

impl Ports {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, mpsc::Sender<Dialled>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a connection of the guest's to whoever listens; false when nobody does, or too many
    /// wait already. Does not wait.
    pub(super) fn deliver(&self, port: u32, dialled: Dialled) -> bool {
        self.lock().get(&port).is_some_and(|waiting| waiting.try_send(dialled).is_ok())
    }

    /// The ports, for one more machine of the framework.
    pub(super) fn all(&self) -> Vec<u32> {
        self.lock().keys().copied().collect()
    }

    /// Begins to listen.
    ///
    /// # Errors
    /// `vm.spec` when the port is listened on already.
    pub(super) fn open(&self, port: VsockPort) -> Result<mpsc::Receiver<Dialled>> {
        let mut ports = self.lock();
        if ports.contains_key(&port.0) {
            return Err(Error::new(
                Code::VmSpec,
                format!("vsock port {port} is listened on already"),
            )
            .with_hint("close the other listener first")
            .with_detail("port", port.0));
        }
        let (sender, receiver) = mpsc::channel(BACKLOG);
        ports.insert(port.0, sender);
        Ok(receiver)
    }

    fn close(&self, port: VsockPort) {
        self.lock().remove(&port.0);
    }

    /// Ends every listener.
    pub(super) fn close_all(&self) {
        self.lock().clear();
    }
}

/// A port that is listened on until this is dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(super) hub: Arc<Hub>,
    pub(super) port: VsockPort,
    pub(super) waiting: tokio::sync::Mutex<mpsc::Receiver<Dialled>>,
}

#[async_trait]
impl VsockListener for Listener {
    fn port(&self) -> VsockPort {
        self.port
    }

    async fn accept(&self) -> Result<VsockStream> {
        let mut waiting = self.waiting.lock().await;
        loop {
            let dialled = waiting.recv().await;
            let (life, raw) =
                dialled.ok_or_else(|| Error::new(Code::VsockReset, "the machine was closed"))?;
            // What came before a restore ended with it.
            if life == self.hub.life() {
                return Ok(Box::new(self.hub.adopt(raw)?));
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.hub.ports.close(self.port);
        if let Some(sockets) = self.hub.sockets() {
            sockets.unlisten(self.port.0);
        }
    }
}
