//! The I/O ports of a PC, as far as a guest needs them: serial port, clock, power, panic notice.
//!
//! Each device is behind a lock of its own, as vCPU threads come here directly. Ports without a
//! device read as all ones and ignore writes, like an empty bus.

mod bus;
mod cmos;
pub mod ports;
mod power;
mod serial;
mod state;

pub use bus::{LegacyInterrupts, PortBus, PortOutcome};
pub use cmos::CmosState;
pub use serial::{ConsoleSink, SerialPortState};
pub use state::LegacyState;
