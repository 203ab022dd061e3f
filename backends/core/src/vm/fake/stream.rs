//! The host's end of a connection that can be reset.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;

use crate::error::{Code, Error, Result};
use crate::units::VsockPort;
use crate::vsock::{ConnectionId, VsockIo, VsockListener, VsockStream};

/// What both ends of a connection know.
#[derive(Debug, Default)]
pub(super) struct Link {
    reset: AtomicBool,
    dropped: AtomicBool,
    reader: Mutex<Option<Waker>>,
}

impl Link {
    pub(super) fn reset(&self) {
        self.reset.store(true, Ordering::SeqCst);
        if let Some(waker) = self.reader.lock().unwrap().take() {
            waker.wake();
        }
    }

    /// Whether the host still holds its end.
    pub(super) fn is_held(&self) -> bool {
        !self.dropped.load(Ordering::SeqCst) && !self.reset.load(Ordering::SeqCst)
    }

    fn check(&self) -> io::Result<()> {
        if self.reset.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(super) struct FakeStream {
    pub(super) id: ConnectionId,
    pub(super) end: DuplexStream,
    pub(super) link: Arc<Link>,
}

impl Drop for FakeStream {
    fn drop(&mut self) {
        self.link.dropped.store(true, Ordering::SeqCst);
    }
}

impl VsockIo for FakeStream {
    fn id(&self) -> ConnectionId {
        self.id
    }
}

impl AsyncRead for FakeStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.link.check()?;
        *self.link.reader.lock().unwrap() = Some(cx.waker().clone());
        Pin::new(&mut self.end).poll_read(cx, buffer)
    }
}

impl AsyncWrite for FakeStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.link.check()?;
        Pin::new(&mut self.end).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.end).poll_shutdown(cx)
    }
}

#[derive(Debug)]
pub(super) struct FakeListener {
    pub(super) port: VsockPort,
    pub(super) dials: tokio::sync::Mutex<mpsc::UnboundedReceiver<VsockStream>>,
}

#[async_trait]
impl VsockListener for FakeListener {
    fn port(&self) -> VsockPort {
        self.port
    }

    async fn accept(&self) -> Result<VsockStream> {
        let closed = || Error::new(Code::VsockReset, "the port was closed");
        self.dials.lock().await.recv().await.ok_or_else(closed)
    }
}
