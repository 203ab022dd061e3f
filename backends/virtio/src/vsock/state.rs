//! What a snapshot keeps of the sockets.

use serde::{Deserialize, Serialize};
use vmoon_core::faults::VsockRule;
use vmoon_core::units::{Cid, VsockPort};

use crate::faults::Active;

/// The state of the vsock device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VsockState {
    /// See [`STATE_VERSION`](crate::state::STATE_VERSION).
    pub version: u32,
    /// The CID that the guest knows itself by. A fork keeps it while connections live on: the
    /// guest reads it once.
    pub guest_cid: Cid,
    /// Whether the guest has yet to be told that all its connections are gone.
    pub transport_reset: bool,
    /// The next port of the host to connect from.
    pub next_port: VsockPort,
    /// Every connection that the guest may know of.
    pub connections: Vec<ConnectionState>,
    /// The faults in force; on disk there are none.
    #[serde(skip)]
    pub faults: Vec<Active<VsockRule>>,
}

/// A connection as the guest knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionState {
    /// Names the connection whatever becomes of its ports.
    pub serial: u64,
    /// The port on the host.
    pub host_port: VsockPort,
    /// The port in the guest.
    pub guest_port: VsockPort,
    /// Whether it is established and no byte is under way in either direction. The counters mean
    /// something only then.
    pub idle: bool,
    /// Bytes received from the guest, modulo 2^32.
    pub received: u32,
    /// Bytes that the guest was told that the host has taken, modulo 2^32.
    pub advertised: u32,
    /// Bytes sent to the guest, modulo 2^32.
    pub sent: u32,
    /// Bytes that the guest said its application had taken, modulo 2^32. What it has not taken
    /// lies in its own memory, which is part of the snapshot.
    pub guest_forwarded: u32,
    /// The guest's buffer for the connection, in bytes.
    pub guest_buffer: u32,
}
