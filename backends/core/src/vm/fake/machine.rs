//! The machine: its state, its connections, and what a snapshot keeps of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::backend::Behaviour;
use super::disk::FakeDisk;
use super::guest;
use super::image::FakeImage;
use super::stream::{FakeListener, FakeStream, Link};
use crate::backend::{
    BalloonLevel, BalloonStatistics, Machine, MachineInfo, RestoreOptions, RestoreReport,
    SnapshotImage, Status,
};
use crate::console::Console;
use crate::disk::DiskContents;
use crate::error::{Code, Error, Result};
use crate::faults::FaultInjection;
use crate::lifecycle::State;
use crate::units::{Bytes, SnapshotId, VsockPort};
use crate::vsock::{ConnectionId, VsockListener, VsockStream};

/// Fits a frame of the largest size once, so that flow control is seen.
const PIPE: usize = 80 << 10;

/// The guest's end of a connection, shared so that a restore can hand it to a new guest task.
pub(super) type GuestEnd = Arc<tokio::sync::Mutex<DuplexStream>>;

#[derive(Debug)]
pub(in super::super) struct FakeMachine {
    pub(super) behaviour: Behaviour,
    memory: Bytes,
    status: watch::Sender<Status>,
    console: Arc<Console>,
    balloon: watch::Sender<BalloonLevel>,
    inner: Mutex<Inner>,
    this: std::sync::Weak<Self>,
}

#[derive(Debug, Default)]
struct Inner {
    connections: BTreeMap<ConnectionId, Connection>,
    listeners: BTreeMap<VsockPort, mpsc::UnboundedSender<VsockStream>>,
    snapshots: BTreeMap<SnapshotId, Frozen>,
    next_port: u32,
    log: Vec<String>,
    /// How many connections the host opened.
    connects: usize,
    closed: bool,
}

#[derive(Debug)]
struct Connection {
    guest: GuestEnd,
    link: Arc<Link>,
    task: AbortHandle,
}

/// What a snapshot keeps.
#[derive(Clone, Debug)]
pub(super) struct Frozen {
    pub(super) state: State,
    pub(super) connections: BTreeSet<ConnectionId>,
}

impl FakeMachine {
    pub(super) fn new(behaviour: Behaviour, memory: Bytes) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            behaviour,
            memory,
            status: watch::Sender::new(Status { state: State::Created, reason: None }),
            console: Arc::new(Console::new()),
            balloon: watch::Sender::new(BalloonLevel { target: memory, actual: memory }),
            inner: Mutex::new(Inner { next_port: 5000, ..Inner::default() }),
            this: this.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// What the guest was told, in order.
    pub(in super::super) fn log(&self) -> Vec<String> {
        self.lock().log.clone()
    }

    pub(super) fn note(&self, line: String) {
        self.lock().log.push(line);
    }

    /// How many connections the host opened to the guest.
    pub(in super::super) fn connects(&self) -> usize {
        self.lock().connects
    }

    pub(in super::super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    pub(in super::super) fn end(&self, state: State, reason: &str) {
        self.status.send_replace(Status { state, reason: Some(reason.to_owned()) });
    }

    fn set_state(&self, state: State) {
        self.status.send_replace(Status { state, reason: None });
    }

    /// Resets every connection, as a reboot of the guest does.
    pub(in super::super) fn reset_connections(&self) {
        for connection in std::mem::take(&mut self.lock().connections).into_values() {
            connection.task.abort();
            connection.link.reset();
        }
    }

    /// The guest dials the host's agent port.
    pub(in super::super) fn dial_agent(&self) {
        let id = {
            let mut inner = self.lock();
            inner.next_port += 1;
            ConnectionId { host: VsockPort::AGENT, guest: VsockPort(inner.next_port) }
        };
        let stream = self.connection(id, true);
        if let Some(listener) = self.lock().listeners.get(&VsockPort::AGENT) {
            let _ = listener.send(stream);
        }
    }

    fn connection(&self, id: ConnectionId, announces: bool) -> VsockStream {
        let (end, guest) = duplex(PIPE);
        let guest = Arc::new(tokio::sync::Mutex::new(guest));
        let link = Arc::new(Link::default());
        let task = self.serve(id, guest.clone(), announces);
        let connection = Connection { guest, link: link.clone(), task };
        self.lock().connections.insert(id, connection);
        Box::new(FakeStream { id, end, link })
    }

    fn serve(&self, id: ConnectionId, end: GuestEnd, announces: bool) -> AbortHandle {
        let machine = self.this.upgrade().unwrap();
        tokio::spawn(guest::serve(machine, id, end, announces)).abort_handle()
    }

    /// A new machine in the state of a snapshot, with the connections that live on.
    pub(super) fn fork(image: &FakeImage) -> (Arc<Self>, Vec<VsockStream>) {
        let machine = Self::new(image.behaviour.clone(), image.memory);
        machine.set_state(State::Paused);
        machine.lock().snapshots.insert(image.id, image.frozen.clone());
        let connections = image.frozen.connections.iter();
        let connections = connections.map(|id| machine.connection(*id, false)).collect();
        (machine, connections)
    }

    fn frozen(&self, id: SnapshotId) -> Result<Frozen> {
        let missing = || Error::new(Code::SnapshotNotFound, "no such snapshot");
        self.lock().snapshots.get(&id).cloned().ok_or_else(missing)
    }
}

#[async_trait]
impl Machine for FakeMachine {
    fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    async fn start(&self) -> Result<()> {
        self.set_state(State::Running);
        self.console.append(b"booting\n");
        if self.behaviour.crashes_on_boot {
            self.console.append(b"Kernel panic - not syncing: no init\n");
            self.end(State::Crashed, "triple fault");
        } else if self.behaviour.dials {
            self.dial_agent();
        }
        Ok(())
    }

    async fn pause(&self) -> Result<()> {
        self.set_state(State::Paused);
        Ok(())
    }

    async fn resume(&self) -> Result<()> {
        self.set_state(State::Running);
        Ok(())
    }

    async fn press_power_button(&self) -> Result<()> {
        self.note("power button".to_owned());
        if self.behaviour.heeds_power_button {
            self.set_state(State::Stopped);
        }
        Ok(())
    }

    async fn begin_stop(&self) -> Result<()> {
        self.set_state(State::Stopping);
        Ok(())
    }

    async fn kill(&self) -> Result<()> {
        self.end(State::Stopped, "killed");
        Ok(())
    }

    fn close(&self) {
        self.reset_connections();
        let mut inner = self.lock();
        inner.closed = true;
        inner.listeners.clear();
        drop(inner);
        self.end(State::Stopped, "closed");
    }

    async fn snapshot(&self, id: SnapshotId) -> Result<Arc<dyn SnapshotImage>> {
        let state = self.status.borrow().state;
        let connections = self.lock().connections.keys().copied().collect();
        let frozen = Frozen { state, connections };
        self.lock().snapshots.insert(id, frozen.clone());
        Ok(Arc::new(FakeImage {
            id,
            frozen,
            behaviour: self.behaviour.clone(),
            memory: self.memory,
        }))
    }

    async fn restore(&self, id: SnapshotId, options: RestoreOptions) -> Result<RestoreReport> {
        let frozen = self.frozen(id)?;
        if self.behaviour.restore_fails {
            return Err(Error::new(Code::SnapshotCorrupt, "damaged"));
        }
        let connections = std::mem::take(&mut self.lock().connections);
        for (id, mut connection) in connections {
            connection.task.abort();
            if frozen.connections.contains(&id) && connection.link.is_held() {
                connection.task = self.serve(id, connection.guest.clone(), false);
                self.lock().connections.insert(id, connection);
            } else {
                connection.link.reset();
            }
        }
        self.set_state(if options.paused { State::Paused } else { frozen.state });
        Ok(RestoreReport { dirty_pages: 1, ..RestoreReport::default() })
    }

    async fn forget(&self, id: SnapshotId) -> Result<()> {
        self.frozen(id)?;
        self.lock().snapshots.remove(&id);
        Ok(())
    }

    async fn connect(&self, port: VsockPort) -> Result<VsockStream> {
        if port == VsockPort(9) {
            std::future::pending::<()>().await;
        }
        if port != VsockPort::AGENT {
            return Err(Error::new(Code::VsockRefused, format!("port {port} refused")));
        }
        let host = {
            let mut inner = self.lock();
            inner.connects += 1;
            inner.next_port += 1;
            VsockPort(inner.next_port)
        };
        Ok(self.connection(ConnectionId { host, guest: port }, false))
    }

    async fn listen(&self, port: VsockPort) -> Result<Box<dyn VsockListener>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.lock().listeners.insert(port, sender);
        Ok(Box::new(FakeListener { port, dials: tokio::sync::Mutex::new(receiver) }))
    }

    fn console(&self) -> &Arc<Console> {
        &self.console
    }

    async fn type_console(&self, bytes: Vec<u8>) -> Result<()> {
        self.console.append(&bytes);
        Ok(())
    }

    async fn set_balloon(&self, target: Bytes) -> Result<()> {
        let moves = self.behaviour.balloon_moves;
        self.balloon.send_modify(|level| {
            level.target = target;
            level.actual = if moves { target } else { level.actual };
        });
        Ok(())
    }

    async fn balloon(&self) -> Result<watch::Receiver<BalloonLevel>> {
        Ok(self.balloon.subscribe())
    }

    async fn balloon_statistics(&self) -> Result<BalloonStatistics> {
        Ok(BalloonStatistics::default())
    }

    async fn disk(&self, _: usize) -> Result<Arc<dyn DiskContents>> {
        Ok(Arc::new(FakeDisk))
    }

    fn faults(&self) -> Result<&dyn FaultInjection> {
        Err(Error::new(Code::BackendUnsupported, "nothing here can break"))
    }

    async fn info(&self) -> Result<MachineInfo> {
        Ok(MachineInfo::default())
    }
}
