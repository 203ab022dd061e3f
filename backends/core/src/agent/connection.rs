//! A vsock stream that carries frames.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use vmoon_protocol::frame::{self, Decoder, FrameError};
use vmoon_protocol::{Frame, Kind};

use super::memory::Mark;
use crate::vsock::{ConnectionId, VsockStream};

/// How much is read at once: a whole frame of output, nearly always.
const READ_SIZE: usize = 64 << 10;

/// A stream with its decoder and what is not written yet.
///
/// Nothing here waits by itself: the methods are polled by whoever drives the connection.
pub(super) struct Connection {
    stream: VsockStream,
    decoder: Decoder,
    scratch: Box<[u8]>,
    outgoing: Vec<u8>,
    written: usize,
    /// Tells this stream from a later one with the same ports.
    serial: u64,
    /// Counts what happened on it, so that a snapshot can tell whether it lay idle meanwhile.
    activity: u64,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("stream", &self.stream)
            .field("serial", &self.serial)
            .field("unwritten", &self.unwritten())
            .finish_non_exhaustive()
    }
}

/// Why a connection carries no more frames.
#[derive(Debug)]
pub(super) enum Broken {
    /// The guest closed it.
    Ended,
    /// It was reset, or could not be read or written.
    Io(io::Error),
    /// The guest sent what is not a frame.
    Frame(FrameError),
}

impl Connection {
    pub(super) fn new(stream: VsockStream, serial: u64) -> Self {
        Self {
            stream,
            decoder: Decoder::new(),
            scratch: vec![0; READ_SIZE].into_boxed_slice(),
            outgoing: Vec::new(),
            written: 0,
            serial,
            activity: 0,
        }
    }

    pub(super) fn id(&self) -> ConnectionId {
        self.stream.id()
    }

    /// What a snapshot remembers of it; none while anything is under way, or if a restore ends it.
    pub(super) fn mark(&self) -> Option<Mark> {
        let kept = self.is_idle() && self.stream.outlives_restores();
        kept.then(|| Mark { id: self.id(), serial: self.serial, activity: self.activity })
    }

    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    /// Whether no frame is half sent or half received.
    pub(super) fn is_idle(&self) -> bool {
        self.is_drained() && self.decoder.is_empty()
    }

    pub(super) fn is_drained(&self) -> bool {
        self.unwritten() == 0
    }

    /// How many bytes wait to be written.
    pub(super) fn unwritten(&self) -> usize {
        self.outgoing.len() - self.written
    }

    /// Adds a frame to what will be written.
    pub(super) fn queue(&mut self, kind: Kind, id: u64, payload: &[u8]) {
        self.queue_by(|outgoing| frame::encode(outgoing, kind, id, payload));
    }

    /// Adds the frames that `encode` appends.
    pub(super) fn queue_by(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        if self.is_drained() {
            self.outgoing.clear();
            self.written = 0;
        }
        self.activity += 1;
        encode(&mut self.outgoing);
    }

    /// Writes what is queued.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_drained() {
            return Poll::Ready(Ok(()));
        }
        while !self.is_drained() {
            let rest = &self.outgoing[self.written..];
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => self.written += count,
            }
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Reads the next whole frame.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, Broken>> {
        loop {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => {
                    self.activity += 1;
                    return Poll::Ready(Ok(frame));
                }
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(Broken::Frame(error))),
            }
            let mut buffer = ReadBuf::new(&mut self.scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken::Io(error))),
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                    return Poll::Ready(Err(Broken::Ended));
                }
                Poll::Ready(Ok(())) => self.decoder.push(buffer.filled()),
            }
        }
    }

    /// Whether the stream is open and silent: what a connection between two commands must be.
    /// Frames for requests of another life may have come meanwhile; they count as silence.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match self.poll_frame(&mut cx) {
                Poll::Pending => return self.is_idle(),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return false,
            }
        }
    }

    /// Forgets what was half received or half sent: the snapshot, to which the machine went back,
    /// was taken between two frames.
    pub(super) fn rewind(&mut self) {
        self.decoder = Decoder::new();
        self.outgoing.clear();
        self.written = 0;
        self.activity += 1;
    }
}
