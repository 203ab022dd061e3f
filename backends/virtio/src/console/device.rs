//! The device.

use std::fmt;
use std::sync::Arc;

use virtio_queue::Queue;

use super::host::{ConsoleHost, Input};
use super::state::ConsoleState;
use crate::device::{COMMON_FEATURES, Device, DeviceError, DeviceKind, RestoreMode, Signals};
use crate::memory::GuestMemory;
use crate::ring::{Chain, Ring};
use crate::state::{DeviceState, STATE_VERSION};
use crate::waker::HostWaker;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const QUEUE_SIZES: [u16; 2] = [64, 64];
/// How much is copied at a time, and printed for one buffer at most before the next.
const CHUNK: usize = 4096;
/// The most buffers that are served before the machine's thread looks at other work.
const MAX_ROUND: usize = 256;
/// The most bytes in one buffer to print; Linux sends 32 KiB.
const MAX_PRINT: u32 = 1 << 20;

/// Takes what the guest prints.
pub type ConsoleSink = Box<dyn FnMut(&[u8]) + Send>;

/// The console: prints to a sink, reads from a [`ConsoleHost`].
pub struct ConsoleDevice {
    sink: ConsoleSink,
    input: Arc<Input>,
    chain: Chain,
    printed: u64,
}

impl fmt::Debug for ConsoleDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleDevice").field("printed", &self.printed).finish_non_exhaustive()
    }
}

impl ConsoleDevice {
    /// A console that prints to `sink`, and its keyboard.
    pub fn new(sink: ConsoleSink, waker: HostWaker) -> (Self, ConsoleHost) {
        let host = ConsoleHost::new(waker);
        let input = Arc::clone(&host.input);
        (Self { sink, input, chain: Chain::default(), printed: 0 }, host)
    }

    /// Prints what the guest sent.
    fn transmit(&mut self, ring: &mut Ring<'_>, memory: &GuestMemory) -> Result<bool, DeviceError> {
        let mut chunk = [0; CHUNK];
        let start = self.printed;
        for _ in 0..MAX_ROUND {
            while !ring.pop(&mut self.chain)? {
                if !ring.request_kick()? {
                    return Ok(false);
                }
            }
            if self.chain.readable_length() > MAX_PRINT {
                return Err(ring.bad_request("a buffer to print is longer than 1 MiB"));
            }
            let mut reader = self.chain.reader(memory);
            loop {
                let length = reader.read(&mut chunk);
                if length == 0 {
                    break;
                }
                self.printed += length as u64;
                (self.sink)(&chunk[..length]);
            }
            ring.push(self.chain.head(), 0)?;
            if self.printed - start >= u64::from(MAX_PRINT) {
                break;
            }
        }
        Ok(true)
    }

    /// Gives the guest what was typed, as far as it has buffers.
    fn receive(&mut self, ring: &mut Ring<'_>, memory: &GuestMemory) -> Result<bool, DeviceError> {
        let mut input = self.input.lock();
        for _ in 0..MAX_ROUND {
            if input.is_empty() {
                return Ok(false);
            }
            while !ring.pop(&mut self.chain)? {
                if !ring.request_kick()? {
                    return Ok(false);
                }
            }
            let written = self.chain.writer(memory).write(input.make_contiguous());
            input.drain(..written);
            ring.push(self.chain.head(), u32::try_from(written).unwrap_or(0))?;
        }
        Ok(true)
    }
}

impl Device for ConsoleDevice {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Console
    }

    fn name(&self) -> &'static str {
        "console"
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        COMMON_FEATURES
    }

    fn activate(&mut self, _features: u64) {}

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn process_queue(
        &mut self,
        index: usize,
        queues: &mut [Queue],
        memory: &GuestMemory,
    ) -> Result<Signals, DeviceError> {
        if index > TRANSMIT {
            return Err(DeviceError::NoQueue(index));
        }
        let Some(mut ring) = Ring::ready(index, queues, memory) else {
            return Ok(Signals::NONE);
        };
        let more = match index {
            RECEIVE => self.receive(&mut ring, memory)?,
            _ => self.transmit(&mut ring, memory)?,
        };
        let again = if more { Signals::again(index) } else { Signals::NONE };
        Ok(ring.signals()? | again)
    }

    fn process_host(
        &mut self,
        queues: &mut [Queue],
        memory: &GuestMemory,
    ) -> Result<Signals, DeviceError> {
        self.process_queue(RECEIVE, queues, memory)
    }

    fn reset(&mut self) {}

    fn describe(&self) -> String {
        format!("{} bytes printed", self.printed)
    }

    fn save(&self) -> DeviceState {
        DeviceState::Console(ConsoleState { version: STATE_VERSION })
    }

    fn restore(&mut self, state: &DeviceState, _mode: RestoreMode) -> Result<(), DeviceError> {
        match state {
            DeviceState::Console(_) => Ok(()),
            _ => Err(state.mismatch(DeviceKind::Console)),
        }
    }
}
