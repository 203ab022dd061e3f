//! The header of every packet (virtio 1.3 section 5.10.6).

use vmoon_core::units::{Cid, VsockPort};

/// The size of a header, in bytes.
pub(super) const HEADER_SIZE: usize = 44;
/// The same, as lengths of buffers count.
pub(super) const HEADER_LENGTH: u32 = 44;
/// `VIRTIO_VSOCK_TYPE_STREAM`.
pub(super) const TYPE_STREAM: u16 = 1;
/// Flag of `SHUTDOWN`: the sender receives no more.
pub(super) const SHUTDOWN_RECEIVE: u32 = 1;
/// Flag of `SHUTDOWN`: the sender sends no more.
pub(super) const SHUTDOWN_SEND: u32 = 2;

/// What a packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Operation {
    Request = 1,
    Response = 2,
    Reset = 3,
    Shutdown = 4,
    Data = 5,
    CreditUpdate = 6,
    CreditRequest = 7,
}

impl Operation {
    const fn from_wire(value: u16) -> Option<Self> {
        Some(match value {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::Data,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => return None,
        })
    }
}

/// The two ports that name a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Ports {
    pub(super) host: VsockPort,
    pub(super) guest: VsockPort,
}

/// A packet's header, from whoever sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) source_cid: Cid,
    pub(super) destination_cid: Cid,
    pub(super) source_port: u32,
    pub(super) destination_port: u32,
    /// Bytes of payload.
    pub(super) length: u32,
    pub(super) kind: u16,
    /// `None` for an operation that the standard does not know.
    pub(super) operation: Option<Operation>,
    pub(super) flags: u32,
    /// The sender's whole buffer for the connection, in bytes.
    pub(super) buffer: u32,
    /// Bytes of the connection that the sender's application has taken, modulo 2^32.
    pub(super) forwarded: u32,
}

impl Header {
    pub(super) fn decode(bytes: &[u8; HEADER_SIZE]) -> Self {
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            source_cid: Cid(u64_at(0)),
            destination_cid: Cid(u64_at(8)),
            source_port: u32_at(16),
            destination_port: u32_at(20),
            length: u32_at(24),
            kind: u16_at(28),
            operation: Operation::from_wire(u16_at(30)),
            flags: u32_at(32),
            buffer: u32_at(36),
            forwarded: u32_at(40),
        }
    }

    pub(super) fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        let operation = self.operation.map_or(0, |operation| operation as u16);
        bytes[0..8].copy_from_slice(&self.source_cid.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.destination_cid.0.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.source_port.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.destination_port.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.length.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.kind.to_le_bytes());
        bytes[30..32].copy_from_slice(&operation.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.buffer.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.forwarded.to_le_bytes());
        bytes
    }

    /// The connection's ports, of a packet that the guest sent.
    pub(super) const fn ports_from_guest(&self) -> Ports {
        Ports { host: VsockPort(self.destination_port), guest: VsockPort(self.source_port) }
    }
}
