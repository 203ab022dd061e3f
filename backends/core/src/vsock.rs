//! Streams and listeners between host and guest.

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::Result;
use crate::units::VsockPort;

/// The two ports of a connection. Unique among the live connections of one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    /// The port on the host's side.
    pub host: VsockPort,
    /// The port on the guest's side.
    pub guest: VsockPort,
}

/// One end of a vsock connection, on the host.
///
/// `poll_shutdown` closes the writing half; dropping the stream resets the connection unless
/// both halves have been closed. I/O fails with `ConnectionReset` after the guest or a restore
/// reset it. A reader that does not read stops the guest's writer: no buffer grows without bound.
pub trait VsockIo: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug {
    /// The connection's ports.
    fn id(&self) -> ConnectionId;

    /// Whether it lives on after a restore to a snapshot in which it lay idle. Not so where the
    /// hypervisor keeps the host's side of connections out of its saved state.
    fn outlives_restores(&self) -> bool {
        true
    }
}

/// An owned stream.
pub type VsockStream = Box<dyn VsockIo>;

/// A port of the host on which guests are answered. Dropping it closes the port: connections
/// that nobody accepted are reset, accepted ones live on.
#[async_trait]
pub trait VsockListener: Send + Sync + std::fmt::Debug {
    /// The port.
    fn port(&self) -> VsockPort;

    /// The next connection. Cancel-safe: dropping the future loses no connection.
    async fn accept(&self) -> Result<VsockStream>;
}
