//! The serial port: a 16550 whose output goes to a sink and whose input waits in a bounded queue.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vm_superio::serial::{NoEvents, SerialState};
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

/// Input that the guest has not taken, beside what the port's own queue holds.
const INPUT_CAPACITY: usize = 64 << 10;
/// Bytes that the port's own queue holds.
const QUEUE_SIZE: usize = 64;
/// Interrupt enable register: transmitter empty.
const ENABLE_TRANSMITTER_EMPTY: u8 = 1 << 1;
/// Interrupt enable register: data received.
const ENABLE_DATA_RECEIVED: u8 = 1;
/// Interrupt identification register: transmitter empty.
const TRANSMITTER_EMPTY: u8 = 1 << 1;
/// Interrupt identification register: data received.
const DATA_RECEIVED: u8 = 1 << 2;
/// Interrupt identification register: nothing is pending.
const NOTHING_PENDING: u8 = 1;

/// Takes what the guest prints; called from vCPU threads.
pub(crate) type ConsoleSink = Box<dyn FnMut(&[u8]) + Send>;

/// State of the serial port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each field is the 16550 register of that name")]
pub(crate) struct SerialPortState {
    pub divisor_low: u8,
    pub divisor_high: u8,
    pub interrupt_enable: u8,
    pub interrupt_identification: u8,
    pub line_control: u8,
    pub line_status: u8,
    pub modem_control: u8,
    pub modem_status: u8,
    pub scratch: u8,
    /// Input in the port's own queue.
    pub received: Vec<u8>,
    /// Input that waits for room in the port's queue.
    pub waiting: Vec<u8>,
}

impl Default for SerialPortState {
    fn default() -> Self {
        Self::new(SerialState::default(), Vec::new())
    }
}

impl SerialPortState {
    fn new(state: SerialState, waiting: Vec<u8>) -> Self {
        Self {
            divisor_low: state.baud_divisor_low,
            divisor_high: state.baud_divisor_high,
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: state.line_status,
            modem_control: state.modem_control,
            modem_status: state.modem_status,
            scratch: state.scratch,
            received: state.in_buffer,
            waiting,
        }
    }

    /// The registers, with every interrupt pending again whose cause is still there: the guest
    /// may have been about to take one that the snapshot lost. A superfluous one is harmless, a
    /// lost one stalls the guest's driver for good.
    fn registers(&self) -> SerialState {
        let mut pending = self.interrupt_identification;
        if self.interrupt_enable & ENABLE_TRANSMITTER_EMPTY != 0 {
            pending |= TRANSMITTER_EMPTY;
        }
        if self.interrupt_enable & ENABLE_DATA_RECEIVED != 0 && !self.received.is_empty() {
            pending |= DATA_RECEIVED;
        }
        if pending & (TRANSMITTER_EMPTY | DATA_RECEIVED) != 0 {
            pending &= !NOTHING_PENDING;
        }
        SerialState {
            baud_divisor_low: self.divisor_low,
            baud_divisor_high: self.divisor_high,
            interrupt_enable: self.interrupt_enable,
            interrupt_identification: pending,
            line_control: self.line_control,
            line_status: self.line_status,
            modem_control: self.modem_control,
            modem_status: self.modem_status,
            scratch: self.scratch,
            in_buffer: self.received.clone(),
        }
    }
}

/// The port's interrupt line.
#[derive(Debug)]
struct Line(Arc<EventFd>);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// What the guest prints in one access.
type Output = Vec<u8>;

/// The serial port.
pub(super) struct SerialPort {
    port: Serial<Line, NoEvents, Output>,
    line: Arc<EventFd>,
    sink: ConsoleSink,
    waiting: VecDeque<u8>,
}

impl std::fmt::Debug for SerialPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SerialPort")
            .field("port", &self.port)
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

impl SerialPort {
    /// A port in its reset state that raises `line`.
    pub(super) fn new(line: EventFd, sink: ConsoleSink) -> Self {
        let line = Arc::new(line);
        let port = Serial::new(Line(line.clone()), Output::new());
        Self { port, line, sink, waiting: VecDeque::new() }
    }

    /// The guest writes a register, once for each byte.
    pub(super) fn write(&mut self, register: u8, data: &[u8]) {
        for byte in data {
            // Only raising the interrupt can fail, when the eventfd's counter is full; then the
            // interrupt is pending anyway.
            let _ = self.port.write(register, *byte);
        }
        if !self.port.writer().is_empty() {
            (self.sink)(self.port.writer());
            self.port.writer_mut().clear();
        }
    }

    /// The guest reads a register, once for each byte.
    pub(super) fn read(&mut self, register: u8, data: &mut [u8]) {
        for byte in data {
            *byte = self.port.read(register);
        }
        // One interrupt for a whole queue, not one for every byte.
        if self.port.fifo_capacity() == QUEUE_SIZE {
            self.feed();
        }
    }

    /// Types into the port; returns how many bytes there was room for.
    pub(super) fn type_input(&mut self, bytes: &[u8]) -> usize {
        let room = INPUT_CAPACITY - self.waiting.len().min(INPUT_CAPACITY);
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.waiting.extend(taken);
        self.feed();
        taken.len()
    }

    /// Moves waiting input into the port's queue as far as there is room.
    fn feed(&mut self) {
        let count = self.port.fifo_capacity().min(self.waiting.len());
        if count == 0 {
            return;
        }
        let bytes: Vec<u8> = self.waiting.iter().take(count).copied().collect();
        // In loopback mode the port takes nothing: the input goes on waiting.
        let taken = self.port.enqueue_raw_bytes(&bytes).unwrap_or(0);
        self.waiting.drain(..taken);
    }

    pub(super) fn save(&self) -> SerialPortState {
        SerialPortState::new(self.port.state(), self.waiting.iter().copied().collect())
    }

    pub(super) fn restore(&mut self, state: &SerialPortState) {
        let line = Line(self.line.clone());
        match Serial::from_state(&state.registers(), line, NoEvents, Output::new()) {
            Ok(port) => self.port = port,
            Err(error) => tracing::error!(%error, "the serial port's state is not valid"),
        }
        self.waiting = state.waiting.iter().copied().take(INPUT_CAPACITY).collect();
        self.feed();
    }
}
