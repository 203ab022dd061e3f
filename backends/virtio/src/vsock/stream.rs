//! The host's end of a connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use vmoon_core::vsock::{ConnectionId, VsockIo};

use super::pipe::{CAPACITY, Pipe, PipeState};

/// A stream of bytes to and from a port of the guest.
#[derive(Debug)]
pub(super) struct HostStream(Arc<Pipe>);

impl HostStream {
    pub(super) const fn new(pipe: Arc<Pipe>) -> Self {
        Self(pipe)
    }

    /// Whether the connection has been cut.
    pub(super) fn is_cut(&self) -> bool {
        self.0.lock().reset
    }
}

impl VsockIo for HostStream {
    fn id(&self) -> ConnectionId {
        let ports = self.0.lock().ports;
        ConnectionId { host: ports.host, guest: ports.guest }
    }
}

impl AsyncRead for HostStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut state = self.0.lock();
        if state.readable() == 0 {
            if state.is_at_end() {
                state.end_seen = true;
                return Poll::Ready(Ok(()));
            }
            if state.is_at_cut() {
                return Poll::Ready(Err(PipeState::cut()));
            }
            state.wait_to_read(context.waker());
            return Poll::Pending;
        }
        state.pop_from_guest(buffer.remaining(), |piece| buffer.put_slice(piece));
        let credit_due = state.credit_due();
        drop(state);
        if credit_due {
            self.0.announce();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for HostStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock();
        if state.host_closed || state.guest_deaf {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if state.reset {
            return Poll::Ready(Err(PipeState::cut()));
        }
        let count = bytes.len().min(CAPACITY - state.to_guest.len());
        if count == 0 && !bytes.is_empty() {
            state.wait_to_write(context.waker());
            return Poll::Pending;
        }
        let mut rest = bytes;
        state.to_guest.push_with(count, |piece| {
            let (now, later) = rest.split_at(piece.len());
            piece.copy_from_slice(now);
            rest = later;
        });
        drop(state);
        self.0.announce();
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        let changed = !std::mem::replace(&mut state.host_closed, true) && !state.reset;
        drop(state);
        if changed {
            self.0.announce();
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for HostStream {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.host_gone = true;
        state.clear_from_guest();
        let live = !state.reset;
        drop(state);
        if live {
            self.0.announce();
        }
    }
}
