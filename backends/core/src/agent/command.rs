//! A command from its first write to its exit.

use std::task::{Context, Poll};
use std::time::Duration;

use vmoon_protocol::message::Exit;
use vmoon_protocol::{Frame, Kind, MAX_PAYLOAD};

use super::connection::{Broken, Connection};
use super::exchange::Exchange;
use super::failure;
use super::request::ExecRequest;
use super::shared::Shared;
use crate::error::{Code, Error, Result};

/// A command under way on its connection.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) exchange: Exchange,
    stdin: Stdin,
    timeout: Option<Duration>,
}

/// What a command said.
#[derive(Debug)]
pub(super) enum Event {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    Exit(Exit),
    /// The guest could not run it, or killed it; the connection is free again.
    Failed(Error),
}

/// The input that is known when a command starts, cut into frames as the guest takes them.
#[derive(Debug, Default)]
pub(super) struct Stdin {
    bytes: Vec<u8>,
    sent: usize,
    /// Whether there is any input, now or later; otherwise it is empty.
    follows: bool,
    /// Whether nothing follows these bytes, which the guest must be told.
    closes: bool,
    closed: bool,
}

impl Stdin {
    pub(super) fn new(bytes: Option<Vec<u8>>, keep_open: bool) -> Self {
        let follows = keep_open || bytes.is_some();
        let closes = !keep_open && follows;
        Self { bytes: bytes.unwrap_or_default(), sent: 0, follows, closes, closed: false }
    }

    fn follows(&self) -> bool {
        self.follows
    }

    fn is_done(&self) -> bool {
        self.sent == self.bytes.len() && self.closes == self.closed
    }

    /// Back to the first byte, for another connection.
    fn rewind(&mut self) {
        self.sent = 0;
        self.closed = false;
    }

    /// Queues the next frame, and the end behind the last one.
    fn queue(&mut self, connection: &mut Connection, id: u64) {
        let end = self.bytes.len().min(self.sent + MAX_PAYLOAD);
        if self.sent < end {
            connection.queue(Kind::Stdin, id, &self.bytes[self.sent..end]);
            self.sent = end;
        }
        if self.sent == self.bytes.len() && self.closes && !self.closed {
            connection.queue(Kind::Stdin, id, &[]);
            self.closed = true;
        }
    }
}

impl Command {
    /// Sends the command on an idle connection, or on a new one. All that the guest needs to
    /// begin goes out in one write.
    pub(super) async fn start(
        shared: &Shared,
        request: &ExecRequest,
        stdin: Stdin,
    ) -> Result<Self> {
        let message = request.message(stdin.follows()).encode();
        if message.len() > MAX_PAYLOAD {
            return Err(Error::new(
                Code::VmSpec,
                format!("a command of {} bytes is over the limit of {MAX_PAYLOAD}", message.len()),
            )
            .with_hint("pass long data through stdin or a file"));
        }
        let mut stdin = stdin;
        let exchange = Exchange::begin(shared, |connection, id| {
            stdin.rewind();
            connection.queue(Kind::Exec, id, &message);
            stdin.queue(connection, id);
        })
        .await?;
        Ok(Self { exchange, stdin, timeout: request.timeout })
    }

    /// Writes what is queued, and the known input as the guest takes it.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            match self.exchange.connection.poll_drain(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken::Io(error).into())),
                Poll::Ready(Ok(())) if self.stdin.is_done() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => {
                    self.stdin.queue(&mut self.exchange.connection, self.exchange.id);
                }
            }
        }
    }

    /// Writes what it can, then reads what the command says next.
    pub(super) fn poll_event(
        &mut self,
        shared: &Shared,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Event>> {
        if let Poll::Ready(Err(error)) = self.poll_write(cx) {
            return Poll::Ready(Err(error));
        }
        self.poll_read(shared, cx)
    }

    /// What the command says next.
    pub(super) fn poll_read(
        &mut self,
        shared: &Shared,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Event>> {
        loop {
            let frame = match self.exchange.poll_frame(shared, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(frame)) => frame,
            };
            if let Some(event) = self.interpret(frame) {
                return Poll::Ready(event);
            }
        }
    }

    fn interpret(&self, frame: Frame) -> Option<Result<Event>> {
        match Kind::from_value(frame.kind)? {
            Kind::Stdout => Some(Ok(Event::Stdout(frame.payload))),
            Kind::Stderr => Some(Ok(Event::Stderr(frame.payload))),
            Kind::Exit => Some(match Exit::decode(&frame.payload) {
                Ok(exit) if self.was_killed_late(exit) => Ok(Event::Failed(failure::late())),
                Ok(exit) => Ok(Event::Exit(exit)),
                Err(error) => Err(error.into()),
            }),
            Kind::Error => Some(Ok(Event::Failed(failure::from_frame(&frame)))),
            _ => None,
        }
    }

    /// Whether the guest ended the command for its timeout: killed, and not before its time by
    /// the guest's own clock.
    fn was_killed_late(&self, exit: Exit) -> bool {
        const SIGKILL: i32 = 9;
        /// Timeouts are sent in whole milliseconds, and clocks round.
        const RESOLUTION: Duration = Duration::from_millis(1);
        self.timeout.is_some_and(|timeout| {
            let ran = Duration::from_nanos(exit.duration_ns);
            exit.signal == SIGKILL && ran + RESOLUTION >= timeout
        })
    }
}
