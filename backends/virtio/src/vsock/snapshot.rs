//! Connections in a snapshot, and what becomes of them when it is restored.

use std::collections::HashMap;
use std::sync::Arc;

use vmoon_core::vsock::VsockStream;

use super::connection::{Connection, Phase};
use super::device::VsockDevice;
use super::packet::Ports;
use super::pipe::Pipe;
use super::state::{ConnectionState, VsockState};
use super::stream::HostStream;
use crate::device::RestoreMode;
use crate::state::STATE_VERSION;

impl VsockDevice {
    pub(super) fn save_connections(&self) -> VsockState {
        let known = self.table.connections.values().filter(|connection| {
            // What the guest has not been asked for yet, it does not know.
            !matches!(connection.phase, Phase::Requesting { sent: false, .. })
        });
        let mut connections: Vec<_> = known.map(save_connection).collect();
        // The guest still believes in those whose reset waits for a buffer.
        connections.extend(self.table.resets.iter().map(|&ports| ConnectionState {
            serial: 0,
            host_port: ports.host,
            guest_port: ports.guest,
            idle: false,
            received: 0,
            advertised: 0,
            sent: 0,
            guest_forwarded: 0,
            guest_buffer: 0,
        }));
        connections.sort_by_key(|it| (it.host_port, it.guest_port));
        VsockState {
            version: STATE_VERSION,
            guest_cid: self.guest_cid(),
            transport_reset: self.transport_reset,
            next_port: self.table.next_port,
            connections,
            faults: self.faults.active(),
        }
    }

    /// Both sides agree afterwards: what was idle in the snapshot and still has its host's end
    /// lives on; every other host's end is cut, and the guest is sent a reset for every other
    /// connection that it believes in. What the host asked for and still waits for is asked anew.
    pub(super) fn restore_connections(&mut self, state: &VsockState, mode: RestoreMode) {
        self.faults.restore(&state.faults);
        self.let_go();
        let (waiting, mut live) = self.take_connections();
        self.kept_cid = Some(state.guest_cid).filter(|kept| *kept != self.shared.cid());
        self.transport_reset = state.transport_reset;
        self.stalled = false;
        if mode == RestoreMode::Fresh {
            self.table.next_port = state.next_port;
        }
        let mut inherited: Vec<VsockStream> = Vec::new();
        for saved in &state.connections {
            let ports = Ports { host: saved.host_port, guest: saved.guest_port };
            let pipe = match mode {
                _ if !saved.idle || self.table.find(ports).is_some() => None,
                RestoreMode::InPlace => live
                    .get(&saved.serial)
                    .is_some_and(|connection| connection.ports == ports && can_rewind(connection))
                    .then(|| live.remove(&saved.serial))
                    .flatten()
                    .map(|connection| connection.pipe),
                RestoreMode::Fresh => {
                    let pipe = Pipe::new(saved.serial, ports, Arc::clone(&self.shared));
                    inherited.push(Box::new(HostStream::new(Arc::clone(&pipe))));
                    Some(pipe)
                }
            };
            match pipe {
                Some(pipe) => self.rewind(pipe, ports, saved),
                None => self.table.resets.push_back(ports),
            }
        }
        for connection in live.into_values() {
            connection.pipe.cut(true);
        }
        if mode == RestoreMode::Fresh {
            if inherited.is_empty() && self.kept_cid.is_some() {
                // Nothing holds the guest to the CID of the machine that it was forked from.
                self.kept_cid = None;
                self.transport_reset = true;
            }
            let dropped = {
                let mut shared = self.shared.lock();
                std::mem::replace(&mut shared.inherited, inherited)
            };
            drop(dropped);
        }
        self.ask_again(waiting);
        self.obey_rules();
    }

    /// The guest's driver started over, or broke the device: the guest knows of nothing.
    pub(super) fn forget_guest(&mut self) {
        let (waiting, live) = self.take_connections();
        for connection in live.into_values() {
            connection.pipe.cut(false);
        }
        self.let_go();
        self.kept_cid = None;
        self.transport_reset = false;
        self.stalled = false;
        self.ask_again(waiting);
    }

    /// Empties the table: those that the host waits for, and all others.
    fn take_connections(&mut self) -> (Vec<Connection>, HashMap<u64, Connection>) {
        let mut waiting = Vec::new();
        let mut live = self.table.clear();
        live.retain(|_, connection| !matches!(connection.phase, Phase::Cut));
        let requesting: Vec<u64> = live
            .iter()
            .filter(|(_, connection)| matches!(connection.phase, Phase::Requesting { .. }))
            .map(|(&serial, _)| serial)
            .collect();
        for serial in requesting {
            waiting.extend(live.remove(&serial));
        }
        (waiting, live)
    }

    /// Asks for connections again, from other ports: the guest may answer for the old ones yet.
    fn ask_again(&mut self, waiting: Vec<Connection>) {
        for connection in waiting {
            if let Phase::Requesting { reply, .. } = connection.phase {
                let phase = Phase::Requesting { reply, sent: false };
                let (serial, port) = (connection.pipe.serial, connection.ports.guest);
                self.request(serial, port, phase);
            }
        }
    }

    /// Puts a connection back to where it was in the snapshot, under the host's stream.
    fn rewind(&mut self, pipe: Arc<Pipe>, ports: Ports, saved: &ConnectionState) {
        pipe.update(|state| {
            state.lines = None;
            state.to_guest.clear();
            state.from_guest.clear();
            state.received = saved.received;
            state.advertised = saved.advertised;
            state.guest_closed = false;
            state.guest_deaf = false;
        });
        let phase = Phase::Established { respond: false };
        let serial = self.table.insert(Connection {
            sent: saved.sent,
            guest_forwarded: saved.guest_forwarded,
            guest_buffer: saved.guest_buffer,
            ..Connection::new(pipe, ports, phase)
        });
        // The guest may be owed an update of its credit.
        self.table.enqueue(serial);
    }
}

fn save_connection(connection: &Connection) -> ConnectionState {
    let idle = connection.is_idle();
    let state = connection.pipe.lock();
    ConnectionState {
        serial: connection.pipe.serial,
        host_port: connection.ports.host,
        guest_port: connection.ports.guest,
        idle,
        received: state.received,
        advertised: state.advertised,
        sent: connection.sent,
        guest_forwarded: connection.guest_forwarded,
        guest_buffer: connection.guest_buffer,
    }
}

/// Whether the host's stream has not noticed anything that cannot be taken back.
fn can_rewind(connection: &Connection) -> bool {
    let state = connection.pipe.lock();
    !state.host_gone && !state.host_closed && !state.end_seen && !state.reset
}
