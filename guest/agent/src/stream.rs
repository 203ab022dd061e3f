//! A connection that carries frames and never blocks but where it is asked to.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};

use vmoon_protocol::files::{Piece, Sender};
use vmoon_protocol::frame::{self, Decoder, Frame, Kind};
use vmoon_protocol::message::Failure;
use vmoon_protocol::{HEADER_LEN, MAX_PAYLOAD};

use crate::sys;

/// The longest piece of output in one frame: with its header it fills a vsock packet of 64 KiB.
pub(crate) const CHUNK: usize = MAX_PAYLOAD - HEADER_LEN;

/// A connection: frames that arrived, and bytes that wait to be sent.
#[derive(Debug)]
pub(crate) struct Stream {
    file: File,
    decoder: Decoder,
    buffer: Vec<u8>,
    unsent: Vec<u8>,
    sent: usize,
}

impl Stream {
    /// Wraps a connected socket.
    pub(crate) fn new(file: File) -> io::Result<Self> {
        sys::set_nonblocking(file.as_fd())?;
        Ok(Self {
            file,
            decoder: Decoder::new(),
            buffer: vec![0; 16 * 1024],
            unsent: Vec::new(),
            sent: 0,
        })
    }

    /// Whether bytes wait to be sent.
    pub(crate) fn is_congested(&self) -> bool {
        self.sent < self.unsent.len()
    }

    /// Queues a frame; [`Stream::flush`] sends it.
    pub(crate) fn queue(&mut self, kind: Kind, id: u64, payload: &[u8]) {
        frame::encode(&mut self.unsent, kind, id, payload);
    }

    /// Queues a piece of a tree.
    pub(crate) fn queue_piece(&mut self, id: u64, piece: &Piece<'_>) {
        piece.encode(&mut self.unsent, Sender::Guest, id);
    }

    /// Queues the answer to a request that failed.
    pub(crate) fn queue_failure(&mut self, id: u64, failure: &Failure) {
        let payload = failure.encode();
        self.queue(Kind::Error, id, &payload[..payload.len().min(MAX_PAYLOAD)]);
    }

    /// Sends as much as the connection takes now.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.is_congested() {
            match self.file.write(&self.unsent[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.unsent.clear();
        self.sent = 0;
        Ok(())
    }

    /// Sends everything, waiting for the host where it does not read.
    pub(crate) fn flush_all(&mut self) -> io::Result<()> {
        self.flush()?;
        while self.is_congested() {
            sys::poll(&mut [sys::entry(Some(&self.file), libc::POLLOUT)], None)?;
            self.flush()?;
        }
        Ok(())
    }

    /// Sends everything once it is worth a packet.
    pub(crate) fn flush_full(&mut self) -> io::Result<()> {
        if self.unsent.len() < CHUNK { Ok(()) } else { self.flush_all() }
    }

    /// Reads what is there, once; an end of the stream is `UnexpectedEof`.
    pub(crate) fn fill(&mut self) -> io::Result<()> {
        match self.file.read(&mut self.buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.decoder.push(&self.buffer[..count]);
                Ok(())
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The next frame that has arrived whole.
    pub(crate) fn next_frame(&mut self) -> io::Result<Option<Frame>> {
        self.decoder
            .next_frame()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
    }

    /// Waits for the next frame.
    pub(crate) fn wait_frame(&mut self) -> io::Result<Frame> {
        loop {
            if let Some(frame) = self.next_frame()? {
                return Ok(frame);
            }
            sys::poll(&mut [sys::entry(Some(&self.file), libc::POLLIN)], None)?;
            self.fill()?;
        }
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}
