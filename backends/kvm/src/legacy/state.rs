//! The state of all port devices, for snapshots.

use serde::{Deserialize, Serialize};

use super::cmos::CmosState;
use super::serial::SerialPortState;

/// State of a [`PortBus`](super::PortBus).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LegacyState {
    /// The serial port.
    pub serial: SerialPortState,
    /// The real-time clock; its time is the host's and is not stored.
    pub cmos: CmosState,
    /// Events that the guest has not read from the event status register.
    pub pending_events: u8,
}
