//! The bytes between the device and the host's end of a connection, and both sides' view of it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::buffer::ByteQueue;
use super::line::Line;
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
    /// The two directions of a connection that is slow on purpose: to the guest and from it.
    pub(super) lines: Option<Box<(Line, Line)>>,
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

    /// Bytes for the guest that may be sent by now.
    pub(super) fn sendable(&self) -> usize {
        self.lines.as_ref().map_or(self.to_guest.len(), |lines| lines.0.arrived())
    }

    /// Bytes of the guest that the host's reader may have by now.
    pub(super) fn readable(&self) -> usize {
        self.lines.as_ref().map_or(self.from_guest.len(), |lines| lines.1.arrived())
    }

    /// Whether the guest is to hear of the host's end by now, or has.
    pub(super) fn is_sent(&self) -> bool {
        self.to_guest.is_empty() && self.lines.as_ref().is_none_or(|lines| lines.0.is_at_end())
    }

    /// Whether the host's reader has come to the guest's end.
    pub(super) fn is_at_end(&self) -> bool {
        let arrived = self.lines.as_ref().is_none_or(|lines| lines.1.is_at_end());
        self.guest_closed && self.readable() == 0 && arrived
    }

    /// Whether the host's reader has come to where the connection was cut.
    pub(super) fn is_at_cut(&self) -> bool {
        let arrived = self.lines.as_ref().is_none_or(|lines| !lines.1.is_busy());
        self.reset && self.readable() == 0 && arrived
    }

    /// Takes bytes for the guest, as [`ByteQueue::pop_with`] does.
    pub(super) fn pop_to_guest(&mut self, limit: usize, take: impl FnMut(&[u8])) -> usize {
        let count = self.to_guest.pop_with(limit.min(self.sendable()), take);
        if let Some(lines) = &mut self.lines {
            lines.0.take(count);
        }
        count
    }

    /// Takes bytes of the guest, as [`ByteQueue::pop_with`] does.
    pub(super) fn pop_from_guest(&mut self, limit: usize, take: impl FnMut(&[u8])) -> usize {
        let count = self.from_guest.pop_with(limit.min(self.readable()), take);
        if let Some(lines) = &mut self.lines {
            lines.1.take(count);
        }
        count
    }

    /// Nothing is under way to the guest any more.
    pub(super) fn clear_to_guest(&mut self) {
        self.to_guest.clear();
        if let Some(lines) = &mut self.lines {
            lines.0.clear();
        }
    }

    /// Nothing is under way from the guest any more.
    pub(super) fn clear_from_guest(&mut self) {
        self.from_guest.clear();
        if let Some(lines) = &mut self.lines {
            lines.1.clear();
        }
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
                lines: None,
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
        let readable = state.readable() > 0 || state.is_at_end() || state.is_at_cut();
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
            state.clear_to_guest();
            if discard {
                state.clear_from_guest();
                state.guest_closed = false;
                state.guest_deaf = false;
            }
        });
    }
}
