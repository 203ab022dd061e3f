//! The bytes between the device and the host's end of a connection, and both sides' view of it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::buffer::ByteQueue;
use super::packet::Ports;
use super::shared::Shared;

/// How many bytes each direction of a connection holds at most; the buffer size that the guest is
/// told.
pub(super) const CAPACITY: usize = 256 << 10;
/// The same, as the guest is told it.
pub(super) const CAPACITY_ON_WIRE: u32 = 256 << 10;
/// After how many bytes taken by the host the guest is told of the room.
pub(super) const CREDIT_STEP: u32 = CAPACITY_ON_WIRE / 4;

/// One connection, shared by the device and the host's stream.
#[derive(Debug)]
pub(super) struct Pipe {
    /// Names the connection for the life of the device, whatever becomes of its ports.
    pub(super) serial: u64,
    shared: Arc<Shared>,
    /// Whether the device has been told to look at this pipe and has not looked yet.
    announced: AtomicBool,
    state: Mutex<PipeState>,
}

/// What the two sides share under the pipe's lock.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts, not one state")]
pub(super) struct PipeState {
    pub(super) ports: Ports,
    pub(super) to_guest: ByteQueue,
    pub(super) from_guest: ByteQueue,
    /// Bytes received from the guest, modulo 2^32.
    pub(super) received: u32,
    /// Bytes that the guest was last told that the host has taken, modulo 2^32.
    pub(super) advertised: u32,
    /// The host's stream will write no more.
    pub(super) host_closed: bool,
    /// The host's stream is gone.
    pub(super) host_gone: bool,
    /// The guest will write no more.
    pub(super) guest_closed: bool,
    /// The guest will read no more.
    pub(super) guest_deaf: bool,
    /// The host's reader has been told of the end.
    pub(super) end_seen: bool,
    /// The connection is cut.
    pub(super) reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl PipeState {
    /// Bytes that the host's application has taken, modulo 2^32.
    #[allow(clippy::cast_possible_truncation, reason = "the queue is bounded by its capacity")]
    pub(super) const fn forwarded(&self) -> u32 {
        self.received.wrapping_sub(self.from_guest.len() as u32)
    }

    /// Whether the guest is to be told of room in the buffer.
    pub(super) const fn credit_due(&self) -> bool {
        self.forwarded().wrapping_sub(self.advertised) >= CREDIT_STEP
    }

    /// Keeps the reader's waker for bytes from the guest, an end or a reset.
    pub(super) fn wait_to_read(&mut self, waker: &Waker) {
        self.reader = Some(waker.clone());
    }

    /// Keeps the writer's waker for room or a reset.
    pub(super) fn wait_to_write(&mut self, waker: &Waker) {
        self.writer = Some(waker.clone());
    }

    /// The error of a stream that was cut.
    pub(super) fn cut() -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionReset, "the vsock connection was reset")
    }
}

impl Pipe {
    pub(super) fn new(serial: u64, ports: Ports, shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self {
            serial,
            shared,
            announced: AtomicBool::new(false),
            state: Mutex::new(PipeState {
                ports,
                to_guest: ByteQueue::default(),
                from_guest: ByteQueue::default(),
                received: 0,
                advertised: 0,
                host_closed: false,
                host_gone: false,
                guest_closed: false,
                guest_deaf: false,
                end_seen: false,
                reset: false,
                reader: None,
                writer: None,
            }),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, PipeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the device to look at this pipe. Not to be called with the pipe's lock held.
    pub(super) fn announce(&self) {
        if !self.announced.swap(true, Ordering::AcqRel) {
            self.shared.announce(self.serial);
        }
    }

    /// The device is about to look.
    pub(super) fn heard(&self) {
        self.announced.store(false, Ordering::Release);
    }

    /// Changes the state on the device's side and wakes whom the change concerns.
    pub(super) fn update<T>(&self, change: impl FnOnce(&mut PipeState) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        let readable = !state.from_guest.is_empty() || state.guest_closed || state.reset;
        let writable = state.to_guest.len() < CAPACITY || state.guest_deaf || state.reset;
        let reader = if readable { state.reader.take() } else { None };
        let writer = if writable { state.writer.take() } else { None };
        drop(state);
        for waker in [reader, writer].into_iter().flatten() {
            waker.wake();
        }
        result
    }

    /// Cuts the connection. The reader still gets what arrived before, and the end if the guest
    /// had closed its side, unless `discard` is set: then both halves fail at once.
    pub(super) fn cut(&self, discard: bool) {
        self.update(|state| {
            state.reset = true;
            state.to_guest.clear();
            if discard {
                state.from_guest.clear();
                state.guest_closed = false;
                state.guest_deaf = false;
            }
        });
    }
}
