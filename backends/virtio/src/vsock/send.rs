//! Packets that the guest receives.

use virtio_queue::Queue;
use vmoon_core::units::Cid;

use super::device::{EVENT_QUEUE, RECEIVE_QUEUE, VsockDevice};
use super::packet::{HEADER_LENGTH, Header, Operation, Ports, TYPE_STREAM};
use super::pipe::CAPACITY_ON_WIRE;
use super::table::Next;
use crate::device::{DeviceError, Signals};
use crate::memory::GuestMemory;
use crate::ring::{Chain, Cursor, Ring};

/// How many packets one call sends at most.
const MAX_PACKETS: usize = 256;
/// After how many bytes one call stops.
const MAX_BYTES: u32 = 4 << 20;
/// How many bytes one packet carries at most, whatever the buffer: others get their turn.
const MAX_PAYLOAD: u32 = 64 << 10;
/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`.
const EVENT_TRANSPORT_RESET: u32 = 0;

impl VsockDevice {
    /// Fills the guest's receive buffers with what there is to send.
    pub(super) fn send(
        &mut self,
        queues: &mut [Queue],
        memory: &GuestMemory,
    ) -> Result<Signals, DeviceError> {
        let Some(mut ring) = Ring::ready(RECEIVE_QUEUE, queues, memory) else {
            return Ok(Signals::NONE);
        };
        let mut chain = std::mem::take(&mut self.chain);
        let mut bytes = 0;
        let mut packets = 0;
        let more = loop {
            let Some(next) = self.table.next() else { break false };
            if packets == MAX_PACKETS || bytes >= MAX_BYTES {
                break true;
            }
            if !ring.pop(&mut chain)? {
                if ring.request_kick()? {
                    continue;
                }
                break false;
            }
            let written = self.write_packet(next, &chain, memory, &ring)?;
            ring.push(chain.head(), written)?;
            self.table.sent(next);
            if let Next::Packet(serial, Operation::Data) = next
                && let Some(ports) = self.table.connections.get(&serial).map(|it| it.ports)
            {
                self.passed(ports, written - HEADER_LENGTH);
            }
            packets += 1;
            bytes += written;
        };
        self.chain = chain;
        let signals = ring.signals()?;
        Ok(if more { signals | Signals::again(RECEIVE_QUEUE) } else { signals })
    }

    /// Writes one packet into a buffer; its length.
    fn write_packet(
        &mut self,
        next: Next,
        chain: &Chain,
        memory: &GuestMemory,
        ring: &Ring<'_>,
    ) -> Result<u32, DeviceError> {
        let space = chain.writable_length().saturating_sub(HEADER_LENGTH);
        if chain.writable_length() < HEADER_LENGTH {
            return Err(ring.bad_request("a receive buffer is shorter than a header"));
        }
        let mut header = chain.writer(memory);
        let (serial, operation) = match next {
            Next::Reset(ports) => {
                header.write(&self.header(ports, Operation::Reset).encode());
                return Ok(HEADER_LENGTH);
            }
            Next::Packet(serial, operation) => (serial, operation),
        };
        let guest_cid = self.guest_cid();
        let Some(connection) = self.table.connections.get_mut(&serial) else {
            return Err(ring.bad_request("a connection vanished"));
        };
        let mut packet =
            Header { destination_cid: guest_cid, ..Self::header_for(connection.ports, operation) };
        if operation == Operation::Data {
            if space == 0 {
                return Err(ring.bad_request("a receive buffer has no room for data"));
            }
            let limit = space.min(MAX_PAYLOAD).min(connection.credit());
            let mut payload = header.clone();
            payload.skip(HEADER_LENGTH);
            packet.length = connection.pipe.update(|state| {
                let mut room = payload.take(limit);
                state.pop_to_guest(limit as usize, |piece| copy(&mut room, piece));
                limit - room.remaining()
            });
            connection.sent = connection.sent.wrapping_add(packet.length);
            self.bytes_sent += u64::from(packet.length);
        }
        (packet.flags, packet.forwarded) = connection.record(operation);
        header.write(&packet.encode());
        Ok(HEADER_LENGTH + packet.length)
    }

    fn header(&self, ports: Ports, operation: Operation) -> Header {
        Header { destination_cid: self.guest_cid(), ..Self::header_for(ports, operation) }
    }

    const fn header_for(ports: Ports, operation: Operation) -> Header {
        Header {
            source_cid: Cid::HOST,
            destination_cid: Cid(0),
            source_port: ports.host.0,
            destination_port: ports.guest.0,
            length: 0,
            kind: TYPE_STREAM,
            operation: Some(operation),
            flags: 0,
            buffer: CAPACITY_ON_WIRE,
            forwarded: 0,
        }
    }

    /// Tells the guest that all its connections are gone and its CID may have changed (virtio 1.3
    /// section 5.10.6.7), once there is a buffer for it.
    pub(super) fn send_event(
        &mut self,
        queues: &mut [Queue],
        memory: &GuestMemory,
    ) -> Result<Signals, DeviceError> {
        let Some(mut ring) = Ring::ready(EVENT_QUEUE, queues, memory) else {
            return Ok(Signals::NONE);
        };
        while self.transport_reset {
            if !ring.pop(&mut self.chain)? {
                if ring.request_kick()? {
                    continue;
                }
                break;
            }
            if self.chain.writer(memory).write(&EVENT_TRANSPORT_RESET.to_le_bytes()) < 4 {
                return Err(ring.bad_request("an event buffer is shorter than an event"));
            }
            ring.push(self.chain.head(), 4)?;
            self.transport_reset = false;
        }
        ring.signals()
    }
}

/// Copies a piece that fits.
fn copy(room: &mut Cursor<'_>, piece: &[u8]) {
    room.write(piece);
}
