//! The device.

use virtio_queue::Queue;

use super::host::EntropyHost;
use super::state::{EntropySource, EntropyState};
use crate::device::{COMMON_FEATURES, Device, DeviceError, DeviceKind, RestoreMode, Signals};
use crate::memory::GuestMemory;
use crate::ring::{Chain, Ring};
use crate::state::{DeviceState, STATE_VERSION};

const REQUESTS: usize = 0;
const QUEUE_SIZES: [u16; 1] = [64];
/// The most bytes for one request, and how many are made at a time; a guest asks again for more.
const MAX_REQUEST: usize = 4096;
/// The most requests that are served before the machine's thread looks at other work.
const MAX_ROUND: usize = 64;

/// The entropy device: fills the guest's buffers with random bytes.
#[derive(Debug)]
pub struct Entropy {
    source: EntropyHost,
    chain: Chain,
    served: u64,
}

impl Entropy {
    /// A device that takes its bytes from the host's kernel, and the handle that changes that.
    pub fn new() -> (Self, EntropyHost) {
        let host = EntropyHost::default();
        (Self { source: host.clone(), chain: Chain::default(), served: 0 }, host)
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.source.fill(bytes).map_err(|_| DeviceError::Request {
            queue: REQUESTS,
            reason: "the host's kernel gives no random bytes",
        })
    }
}

impl Device for Entropy {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Entropy
    }

    fn name(&self) -> &'static str {
        "entropy"
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
        if index != REQUESTS {
            return Err(DeviceError::NoQueue(index));
        }
        let Some(mut ring) = Ring::ready(REQUESTS, queues, memory) else {
            return Ok(Signals::NONE);
        };
        let mut chain = std::mem::take(&mut self.chain);
        let mut bytes = [0; MAX_REQUEST];
        let mut left = MAX_ROUND;
        let mut result = Ok(());
        while left > 0 && result.is_ok() {
            match ring.pop(&mut chain) {
                Ok(true) => {
                    left -= 1;
                    let length = MAX_REQUEST.min(chain.writable_length() as usize);
                    result = self.fill(&mut bytes[..length]).and_then(|()| {
                        let written = chain.writer(memory).write(&bytes[..length]);
                        self.served += written as u64;
                        ring.push(chain.head(), u32::try_from(written).unwrap_or(0))
                    });
                }
                Ok(false) => match ring.request_kick() {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => result = Err(error),
                },
                Err(error) => result = Err(error),
            }
        }
        self.chain = chain;
        result?;
        let again = if left == 0 { Signals::again(REQUESTS) } else { Signals::NONE };
        Ok(ring.signals()? | again)
    }

    fn process_host(
        &mut self,
        _queues: &mut [Queue],
        _memory: &GuestMemory,
    ) -> Result<Signals, DeviceError> {
        Ok(Signals::NONE)
    }

    fn reset(&mut self) {}

    fn describe(&self) -> String {
        let source = match self.source.source() {
            EntropySource::Os => "",
            EntropySource::Seeded { .. } => ", deterministic",
        };
        format!("{} bytes given{source}", self.served)
    }

    fn save(&self) -> DeviceState {
        DeviceState::Entropy(EntropyState { version: STATE_VERSION, source: self.source.source() })
    }

    fn restore(&mut self, state: &DeviceState, _mode: RestoreMode) -> Result<(), DeviceError> {
        let DeviceState::Entropy(state) = state else {
            return Err(state.mismatch(DeviceKind::Entropy));
        };
        self.source.set(state.source);
        Ok(())
    }
}
