//! Packets that the guest sends.

use std::sync::Arc;

use virtio_queue::Queue;
use vmoon_core::error::{Code, Error};
use vmoon_core::units::Cid;

use super::connection::{Connection, Phase};
use super::device::{TRANSMIT_QUEUE, VsockDevice};
use super::packet::{
    HEADER_SIZE, Header, Operation, Ports, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM,
};
use super::pipe::{CAPACITY, Pipe};
use super::stream::HostStream;
use super::table::MAX_RESETS;
use crate::device::{DeviceError, Signals};
use crate::memory::GuestMemory;
use crate::ring::{Cursor, Ring};

/// How many packets one call takes at most.
const MAX_PACKETS: usize = 256;
/// After how many bytes one call stops.
const MAX_BYTES: u64 = 4 << 20;

impl VsockDevice {
    /// Takes what the guest has queued.
    pub(super) fn receive(
        &mut self,
        queues: &mut [Queue],
        memory: &GuestMemory,
    ) -> Result<Signals, DeviceError> {
        let Some(mut ring) = Ring::ready(TRANSMIT_QUEUE, queues, memory) else {
            return Ok(Signals::NONE);
        };
        let mut chain = std::mem::take(&mut self.chain);
        let mut bytes = 0_u64;
        let mut packets = 0;
        self.stalled = false;
        let more = loop {
            if packets == MAX_PACKETS || bytes >= MAX_BYTES {
                break true;
            }
            if self.table.resets.len() >= MAX_RESETS {
                // The guest asks for answers and leaves no room for them. What it sends is left
                // in its ring until it takes some.
                self.stalled = true;
                break false;
            }
            if !ring.pop(&mut chain)? {
                if ring.request_kick()? {
                    continue;
                }
                break false;
            }
            let mut reader = chain.reader(memory);
            let mut header = [0; HEADER_SIZE];
            if reader.read(&mut header) < HEADER_SIZE {
                return Err(ring.bad_request("a packet is shorter than its header"));
            }
            packets += 1;
            bytes += u64::from(chain.readable_length());
            self.take_packet(&Header::decode(&header), reader);
            ring.push(chain.head(), 0)?;
        };
        self.chain = chain;
        let signals = ring.signals()?;
        Ok(if more { signals | Signals::again(TRANSMIT_QUEUE) } else { signals })
    }

    fn take_packet(&mut self, header: &Header, payload: Cursor<'_>) {
        if header.source_cid != self.guest_cid() {
            // Whoever that is, there is nobody to answer.
            return;
        }
        let ports = header.ports_from_guest();
        if header.destination_cid != Cid::HOST || header.kind != TYPE_STREAM {
            self.refuse(header, ports);
            return;
        }
        let Some(serial) = self.table.find(ports) else {
            if header.operation == Some(Operation::Request) {
                self.answer(header, ports);
            } else {
                self.refuse(header, ports);
            }
            return;
        };
        let Some(connection) = self.table.connections.get_mut(&serial) else { return };
        connection.hear_credit(header);
        let established = matches!(connection.phase, Phase::Established { .. });
        let legal = match header.operation {
            // The guest has not seen yet that it is over.
            _ if matches!(connection.phase, Phase::Cut) => {
                if header.operation == Some(Operation::Reset) {
                    self.table.remove(serial);
                }
                return;
            }
            Some(Operation::Reset) => {
                self.end(serial);
                return;
            }
            Some(Operation::Response) => self.establish(serial),
            Some(Operation::Data) if established => {
                let pipe = Arc::clone(&connection.pipe);
                let legal = Self::take_data(connection, header, payload);
                self.hold(&pipe);
                legal
            }
            Some(Operation::Shutdown) if established => {
                if self.take_shutdown(serial, header.flags) {
                    return;
                }
                true
            }
            Some(Operation::CreditUpdate) => established,
            Some(Operation::CreditRequest) if established => {
                connection.credit_wanted = true;
                true
            }
            _ => false,
        };
        if header.operation == Some(Operation::Data) {
            self.passed(ports, header.length);
        }
        if legal {
            // New credit may let something go.
            self.table.enqueue(serial);
        } else {
            self.table.cut(serial);
        }
    }

    /// Answers a packet that fits no connection (virtio 1.3 section 5.10.6.4): with a reset,
    /// unless it is one.
    fn refuse(&mut self, header: &Header, ports: Ports) {
        if header.operation != Some(Operation::Reset) {
            self.table.resets.push_back(ports);
        }
    }

    /// The guest wants a connection to a port of the host.
    fn answer(&mut self, header: &Header, ports: Ports) {
        let backlog = self.shared.lock().listeners.get(&ports.host).cloned();
        let Some(backlog) = backlog.filter(|backlog| {
            !self.table.is_full() && backlog.has_room() && !self.is_barred(ports)
        }) else {
            self.refuse(header, ports);
            return;
        };
        let pipe = Pipe::new(self.shared.serial(), ports, self.shared.clone());
        let phase = Phase::Established { respond: true };
        let mut connection = Connection::new(pipe.clone(), ports, phase);
        connection.hear_credit(header);
        let serial = self.table.insert(connection);
        self.begin(&pipe);
        self.table.enqueue(serial);
        backlog.push(HostStream::new(pipe));
    }

    /// The guest accepted a connection that the host asked for; whether it had been asked.
    fn establish(&mut self, serial: u64) -> bool {
        let Some(connection) = self.table.connections.get_mut(&serial) else { return false };
        if !matches!(connection.phase, Phase::Requesting { sent: true, .. }) {
            return false;
        }
        let phase = Phase::Established { respond: false };
        if let Phase::Requesting { reply, .. } = std::mem::replace(&mut connection.phase, phase) {
            // Where nobody waits any more the stream is dropped here, which cuts the connection.
            let _ = reply.send(Ok(Box::new(HostStream::new(connection.pipe.clone()))));
        }
        true
    }

    /// Bytes for the host; whether the guest may send them.
    fn take_data(connection: &Connection, header: &Header, mut payload: Cursor<'_>) -> bool {
        let Ok(count) = usize::try_from(header.length) else { return false };
        if header.length > payload.remaining() {
            return false;
        }
        connection.pipe.update(|state| {
            if state.guest_closed || state.host_gone || count > CAPACITY - state.from_guest.len() {
                return false;
            }
            state.from_guest.push_with(count, |piece| {
                payload.read(piece);
            });
            state.received = state.received.wrapping_add(header.length);
            true
        })
    }

    /// The guest closes one direction or both; whether the connection is over.
    fn take_shutdown(&mut self, serial: u64, flags: u32) -> bool {
        let Some(connection) = self.table.connections.get(&serial) else { return true };
        let pipe = Arc::clone(&connection.pipe);
        let over = pipe.update(|state| {
            state.guest_closed |= flags & SHUTDOWN_SEND != 0;
            if flags & SHUTDOWN_RECEIVE != 0 {
                state.guest_deaf = true;
                state.clear_to_guest();
            }
            state.guest_closed && state.guest_deaf
        });
        self.hold(&pipe);
        if over && let Some(connection) = self.table.remove(serial) {
            // A reset completes the disconnection (virtio 1.3 section 5.10.6.5). The host's
            // stream goes on until it has read everything.
            self.table.resets.push_back(connection.ports);
        }
        over
    }

    /// The guest reset a connection, or refused one.
    fn end(&mut self, serial: u64) {
        let Some(connection) = self.table.remove(serial) else { return };
        if let Phase::Requesting { reply, .. } = connection.phase {
            let port = connection.ports.guest;
            let _ = reply.send(Err(Error::new(
                Code::VsockRefused,
                format!("the guest refused vsock port {port}"),
            )
            .with_detail("port", port.0)));
        } else {
            connection.pipe.cut(false);
        }
    }
}
