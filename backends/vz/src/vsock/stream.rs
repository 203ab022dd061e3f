//! A stream between host and guest: a socket that the framework gave.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use vmoon_core::VsockPort;
use vmoon_core::vsock::{ConnectionId, VsockIo};

use crate::framework::RawConnection;

/// A stream whose other end is a program in the guest.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: UnixStream,
    id: ConnectionId,
    life: Arc<Life>,
}

/// What the machine keeps of a stream.
#[derive(Debug)]
struct Life {
    /// A second descriptor of the socket, so that it can be shut down from elsewhere.
    socket: OwnedFd,
    reset: AtomicBool,
}

impl Stream {
    fn reset_if_over<T>(&self, otherwise: io::Result<T>) -> io::Result<T> {
        if self.life.reset.load(Ordering::Acquire) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        otherwise
    }
}

impl VsockIo for Stream {
    fn id(&self) -> ConnectionId {
        self.id
    }

    fn outlives_restores(&self) -> bool {
        // The framework's saved state has no host's side of connections.
        false
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer).map(|read| self.reset_if_over(read))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes).map(|wrote| self.reset_if_over(wrote))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// The streams of one machine that are open.
#[derive(Debug, Default)]
pub(crate) struct Streams(Mutex<Vec<Weak<Life>>>);

impl Streams {
    /// Takes a connection in. Must be called on a tokio runtime.
    pub(crate) fn adopt(&self, raw: RawConnection) -> io::Result<Stream> {
        let socket = StdUnixStream::from(raw.socket);
        socket.set_nonblocking(true)?;
        let life =
            Arc::new(Life { socket: socket.try_clone()?.into(), reset: AtomicBool::new(false) });
        let id = ConnectionId { host: VsockPort(raw.host_port), guest: VsockPort(raw.guest_port) };
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|life| life.strong_count() > 0);
        open.push(Arc::downgrade(&life));
        Ok(Stream { socket: UnixStream::from_std(socket)?, id, life })
    }

    /// Resets every stream: its machine is no more, or goes back in time.
    pub(crate) fn reset_all(&self) {
        let open = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for life in open.iter().filter_map(Weak::upgrade) {
            life.reset.store(true, Ordering::Release);
            // Wakes whoever reads or writes. One that the guest closed is shut down already.
            let _ = rustix::net::shutdown(&life.socket, rustix::net::Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn pair() -> (RawConnection, StdUnixStream) {
        let (ours, theirs) = StdUnixStream::pair().unwrap();
        (RawConnection { socket: ours.into(), host_port: 70, guest_port: 1024 }, theirs)
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_the_halves_close_one_by_one() {
        let (raw, theirs) = pair();
        theirs.set_nonblocking(true).unwrap();
        let mut guest = UnixStream::from_std(theirs).unwrap();
        let mut stream = Streams::default().adopt(raw).unwrap();
        assert_eq!((stream.id().host, stream.id().guest), (VsockPort(70), VsockPort(1024)));
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut heard = String::new();
        guest.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "hello");
        guest.write_all(b"bye").await.unwrap();
        drop(guest);
        heard.clear();
        stream.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "bye");
    }

    #[tokio::test]
    async fn a_reset_reaches_who_waits_and_who_comes_later() {
        let streams = Arc::new(Streams::default());
        let (raw, _theirs) = pair();
        let mut stream = streams.adopt(raw).unwrap();
        let reader = tokio::spawn(async move {
            let error = stream.read_u8().await.unwrap_err();
            (error.kind(), stream.write_all(b"x").await.unwrap_err().kind())
        });
        tokio::task::yield_now().await;
        streams.reset_all();
        let reset = io::ErrorKind::ConnectionReset;
        let (read, written) = reader.await.unwrap();
        assert_eq!(read, reset);
        assert!([reset, io::ErrorKind::BrokenPipe].contains(&written), "{written}");
    }
}
