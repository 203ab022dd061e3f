//! The I/O ports of a PC, as far as a guest needs them: serial port, clock, power, panic notice.
//!
//! Each device is behind a lock of its own, as vCPU threads come here directly. Ports without a
//! device read as all ones and ignore writes, like an empty bus.

mod bus;
mod cmos;
pub(crate) mod ports;
mod power;
mod serial;
mod state;

pub(crate) use bus::{LegacyInterrupts, PortBus, PortOutcome};
pub(crate) use state::LegacyState;
