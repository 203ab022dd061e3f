//! A request that owns its connection, from its first write to its last answer.

use std::future::poll_fn;
use std::task::{Context, Poll};

use vmoon_protocol::{Frame, Kind, MAX_PAYLOAD};

use super::connection::{Broken, Connection};
use super::failure;
use super::life;
use super::shared::Shared;
use crate::error::Result;

/// A request under way on its connection.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) connection: Connection,
    pub(super) id: u64,
    /// The epoch that was announced ahead of it and that its first answer confirms.
    announced: Option<u64>,
}

impl Exchange {
    /// Sends a request on an idle connection, or on a new one. `queue` gives the frames with
    /// which it begins, for the id that it is given; they go out in one write.
    pub(super) async fn begin(
        shared: &Shared,
        mut queue: impl FnMut(&mut Connection, u64),
    ) -> Result<Self> {
        loop {
            let (mut connection, fresh) = match shared.pool.take() {
                Some(connection) => (connection, false),
                None => (shared.open().await?, true),
            };
            let id = shared.next_id();
            let announced = shared.lives.pending();
            if let Some(epoch) = announced {
                connection.queue(Kind::Life, id, &life::announce(epoch)?);
            }
            queue(&mut connection, id);
            let written = poll_fn(|cx| match connection.poll_drain(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                _ => Poll::Ready(Ok(())),
            });
            match written.await {
                Ok(()) => return Ok(Self { connection, id, announced }),
                Err(error) if fresh => return Err(Broken::Io(error).into()),
                // It died in the pool: the guest has seen nothing of this request.
                Err(_) => {}
            }
        }
    }

    /// Whether so much is queued that it is worth a write.
    pub(super) fn is_full(&self) -> bool {
        self.connection.unwritten() >= MAX_PAYLOAD
    }

    /// The next frame of the answer.
    pub(super) fn poll_frame(
        &mut self,
        shared: &Shared,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Frame>> {
        loop {
            let frame = match self.connection.poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Ready(Ok(frame)) => frame,
            };
            // Other ids belong to a life that a restore undid.
            if frame.id == self.id {
                if let Some(epoch) = self.announced.take() {
                    shared.lives.confirm(epoch);
                }
                return Poll::Ready(Ok(frame));
            }
        }
    }

    /// Writes what is queued, then waits for the next frame of the answer.
    pub(super) async fn frame(&mut self, shared: &Shared) -> Result<Frame> {
        poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = self.connection.poll_drain(cx) {
                return Poll::Ready(Err(Broken::Io(error).into()));
            }
            self.poll_frame(shared, cx)
        })
        .await
    }

    /// Writes what is queued; an answer that comes before the end of it is returned.
    pub(super) async fn drain(&mut self, shared: &Shared) -> Result<Option<Frame>> {
        poll_fn(|cx| {
            if let Poll::Ready(answer) = self.poll_frame(shared, cx) {
                return Poll::Ready(answer.map(Some));
            }
            match self.connection.poll_drain(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(())) => Poll::Ready(Ok(None)),
                Poll::Ready(Err(error)) => Poll::Ready(Err(Broken::Io(error).into())),
            }
        })
        .await
    }

    /// The guest has answered with this, its last frame: the connection is free for the next
    /// request, unless a frame of this one is half sent.
    pub(super) fn end(self, shared: &Shared, answer: &Frame) -> Result<()> {
        shared.pool.put(self.connection);
        match Kind::from_value(answer.kind) {
            Some(Kind::Done) => Ok(()),
            Some(Kind::Error) => Err(failure::from_frame(answer)),
            _ => Err(failure::malformed()),
        }
    }
}
