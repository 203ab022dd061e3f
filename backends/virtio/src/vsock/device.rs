//! The device: its queues, and what the host asks of it.

use std::sync::Arc;

use virtio_queue::Queue;
use vmoon_core::error::{Code, Error};
use vmoon_core::faults::VsockRule;
use vmoon_core::units::{Cid, VsockPort};

use super::connection::Phase;
use super::delays::Delays;
use super::faults;
use super::host::VsockHost;
use super::packet::Ports;
use super::shared::{Shared, Wanted};
use super::table::Table;
use crate::device::{COMMON_FEATURES, Device, DeviceError, DeviceKind, RestoreMode, Signals};
use crate::faults::FaultRules;
use crate::memory::GuestMemory;
use crate::ring::Chain;
use crate::state::DeviceState;
use crate::waker::HostWaker;

pub(super) const RECEIVE_QUEUE: usize = 0;
pub(super) const TRANSMIT_QUEUE: usize = 1;
pub(super) const EVENT_QUEUE: usize = 2;

/// `VIRTIO_VSOCK_F_STREAM`.
const FEATURE_STREAM: u64 = 1 << 0;

/// The vsock device.
#[derive(Debug)]
pub struct VsockDevice {
    /// The CID that the guest knows itself by where it is not the machine's: in a fork whose
    /// connections live on.
    pub(super) kept_cid: Option<Cid>,
    pub(super) shared: Arc<Shared>,
    pub(super) table: Table,
    /// Whether the guest's packets wait until it has taken some of ours.
    pub(super) stalled: bool,
    /// Whether the guest has yet to be told that all its connections are gone.
    pub(super) transport_reset: bool,
    pub(super) chain: Chain,
    /// Reused between calls.
    touched: Vec<u64>,
    pub(super) bytes_sent: u64,
    pub(super) faults: FaultRules<VsockRule>,
    pub(super) delays: Delays,
}

impl VsockDevice {
    /// The device of a machine with this CID. `waker` calls its owner.
    pub fn new(cid: Cid, waker: HostWaker) -> Self {
        Self {
            kept_cid: None,
            faults: FaultRules::new(waker.clone()),
            delays: Delays::new(waker.clone()),
            shared: Shared::new(cid, waker),
            table: Table::new(),
            stalled: false,
            transport_reset: false,
            chain: Chain::default(),
            touched: Vec::new(),
            bytes_sent: 0,
        }
    }

    /// The CID that the guest knows itself by.
    pub(super) fn guest_cid(&self) -> Cid {
        self.kept_cid.unwrap_or_else(|| self.shared.cid())
    }

    /// The rules by which connections are cut or slow on purpose.
    pub fn faults(&self) -> FaultRules<VsockRule> {
        self.faults.clone()
    }

    /// The host's handle.
    pub fn host(&self) -> VsockHost {
        VsockHost(Arc::clone(&self.shared))
    }

    /// Looks at what the host has done since the last call.
    fn hear_host(&mut self) {
        let wanted = {
            let mut state = self.shared.lock();
            std::mem::swap(&mut state.touched, &mut self.touched);
            std::mem::take(&mut state.wanted)
        };
        for wanted in wanted {
            self.want(wanted);
        }
        let mut touched = std::mem::take(&mut self.touched);
        for serial in touched.drain(..) {
            self.look_at(serial);
        }
        self.touched = touched;
    }

    fn want(&mut self, wanted: Wanted) {
        let Wanted { serial, guest_port, reply } = wanted;
        if reply.is_closed() {
            return;
        }
        if self.table.is_full() {
            let _ = reply.send(Err(Error::new(
                Code::VsockRefused,
                "the machine has too many vsock connections",
            )));
            return;
        }
        let asked = Ports { host: self.table.next_port, guest: guest_port };
        if self.is_barred(asked) {
            let _ = reply.send(Err(faults::barred()));
            return;
        }
        let phase = Phase::Requesting { reply, sent: false };
        self.request(serial, guest_port, phase);
    }

    /// A connection that the host wants, from a port that is free.
    pub(super) fn request(&mut self, serial: u64, guest: VsockPort, phase: Phase) {
        let pipe = self.table.request(&self.shared, serial, guest, phase);
        self.begin(&pipe);
    }

    /// The host has touched a connection: written, read, closed or dropped its stream, or given
    /// up waiting for it.
    fn look_at(&mut self, serial: u64) {
        let Some(connection) = self.table.connections.get(&serial) else { return };
        connection.pipe.heard();
        if self.faults.any() {
            let pipe = Arc::clone(&connection.pipe);
            self.hold(&pipe);
        }
        let Some(connection) = self.table.connections.get(&serial) else { return };
        match &connection.phase {
            Phase::Requesting { reply, sent } if reply.is_closed() => {
                if *sent {
                    self.table.cut(serial);
                } else {
                    self.table.remove(serial);
                }
            }
            Phase::Established { .. } => {
                let dropped = {
                    let state = connection.pipe.lock();
                    state.host_gone && !state.host_closed
                };
                if dropped {
                    self.table.cut(serial);
                } else {
                    self.table.enqueue(serial);
                }
            }
            _ => {}
        }
    }

    /// Everything that is to be said to the guest, after whatever happened.
    fn answer_guest(
        &mut self,
        queues: &mut [Queue],
        memory: &GuestMemory,
    ) -> Result<Signals, DeviceError> {
        let mut signals = self.send(queues, memory)?;
        if self.stalled && self.table.resets.is_empty() {
            self.stalled = false;
            signals |= Signals::again(TRANSMIT_QUEUE);
        }
        if self.transport_reset {
            signals |= self.send_event(queues, memory)?;
        }
        Ok(signals)
    }
}

impl Device for VsockDevice {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Vsock
    }

    fn name(&self) -> &'static str {
        "vsock"
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[256, 256, 64]
    }

    fn features(&self) -> u64 {
        COMMON_FEATURES | FEATURE_STREAM
    }

    fn activate(&mut self, _features: u64) {}

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        crate::device::read_config_bytes(&self.guest_cid().0.to_le_bytes(), offset, data);
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn process_queue(
        &mut self,
        index: usize,
        queues: &mut [Queue],
        memory: &GuestMemory,
    ) -> Result<Signals, DeviceError> {
        self.heed_rules();
        let signals = match index {
            RECEIVE_QUEUE | EVENT_QUEUE => Signals::NONE,
            TRANSMIT_QUEUE => self.receive(queues, memory)?,
            _ => return Err(DeviceError::NoQueue(index)),
        };
        Ok(signals | self.answer_guest(queues, memory)?)
    }

    fn process_host(
        &mut self,
        queues: &mut [Queue],
        memory: &GuestMemory,
    ) -> Result<Signals, DeviceError> {
        self.heed_rules();
        self.hear_host();
        self.cut_by_rule();
        self.let_arrive();
        self.answer_guest(queues, memory)
    }

    fn reset(&mut self) {
        self.forget_guest();
    }

    fn describe(&self) -> String {
        let count = self.table.connections.len();
        let plural = if count == 1 { "" } else { "s" };
        format!(
            "cid {}, {count} connection{plural}, {} bytes sent to the guest",
            self.guest_cid().0,
            self.bytes_sent
        )
    }

    fn save(&self) -> DeviceState {
        DeviceState::Vsock(self.save_connections())
    }

    fn restore(&mut self, state: &DeviceState, mode: RestoreMode) -> Result<(), DeviceError> {
        let DeviceState::Vsock(state) = state else {
            return Err(state.mismatch(DeviceKind::Vsock));
        };
        self.restore_connections(state, mode);
        Ok(())
    }
}

impl Drop for VsockDevice {
    fn drop(&mut self) {
        self.shared.close();
        for connection in self.table.clear().into_values() {
            connection.pipe.cut(false);
            if let Phase::Requesting { reply, .. } = connection.phase {
                let _ = reply.send(Err(super::shared::closed()));
            }
        }
        self.let_go();
    }
}
