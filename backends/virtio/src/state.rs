//! What a snapshot keeps of each kind of device.

use serde::{Deserialize, Serialize};

use crate::balloon::BalloonState;
use crate::block::BlockState;
use crate::console::ConsoleState;
use crate::device::{DeviceError, DeviceKind};
use crate::entropy::EntropyState;
use crate::vsock::VsockState;

/// The version of the states below; raised when a field changes its meaning. A reader refuses
/// what it does not know.
pub const STATE_VERSION: u32 = 1;

/// The state of a device, without its queues, which belong to the transport's state.
///
/// Plain data: cloning is cheap (an overlay's blocks are shared), and serde writes it to disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum DeviceState {
    /// A block device.
    Block(BlockState),
    /// A console.
    Console(ConsoleState),
    /// A source of entropy.
    Entropy(EntropyState),
    /// A balloon.
    Balloon(BalloonState),
    /// Sockets.
    Vsock(VsockState),
}

impl DeviceState {
    /// The kind of device that this is the state of.
    pub const fn kind(&self) -> DeviceKind {
        match self {
            Self::Block(_) => DeviceKind::Block,
            Self::Console(_) => DeviceKind::Console,
            Self::Entropy(_) => DeviceKind::Entropy,
            Self::Balloon(_) => DeviceKind::Balloon,
            Self::Vsock(_) => DeviceKind::Vsock,
        }
    }

    /// The version of the state, see [`STATE_VERSION`].
    pub const fn version(&self) -> u32 {
        match self {
            Self::Block(state) => state.version,
            Self::Console(state) => state.version,
            Self::Entropy(state) => state.version,
            Self::Balloon(state) => state.version,
            Self::Vsock(state) => state.version,
        }
    }

    /// The error for a state that does not fit a device.
    pub(crate) const fn mismatch(&self, device: DeviceKind) -> DeviceError {
        DeviceError::WrongState { saved: self.kind().name(), device: device.name() }
    }
}
