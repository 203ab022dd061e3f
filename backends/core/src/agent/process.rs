//! A running command whose output is streamed.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};

use tokio::time::Instant;
use vmoon_protocol::message::TerminalSize;
use vmoon_protocol::{Kind, MAX_PAYLOAD};

use super::command::{Command, Event};
use super::failure;
use super::memory::Mark;
use super::request::{ExecRequest, ExecResult};
use super::shared::Shared;
use crate::error::{Code, Error, Result};
use crate::race;

/// How much output is kept for the error of a command that runs too long.
const KEPT: usize = 2048;

/// A command under way in the guest. Dropping it kills the command.
///
/// Its output waits in the guest until [`Process::next`] pulls it: a command that nobody reads is
/// stopped by flow control, and nothing grows on the host.
#[derive(Debug)]
pub struct Process {
    channel: Arc<Channel>,
    request: ExecRequest,
    deadline: Option<Instant>,
    recent: Vec<u8>,
    end: Option<Result<ExecResult>>,
}

/// What a command said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Bytes from its standard output.
    Stdout(Vec<u8>),
    /// Bytes from its standard error.
    Stderr(Vec<u8>),
    /// It ended. Its output was given before.
    Exit(ExecResult),
}

/// The way to a running command: standard input and signals. Cloning shares it.
#[derive(Clone, Debug)]
pub struct ProcessInput(Arc<Channel>);

#[derive(Debug)]
struct Channel {
    shared: Arc<Shared>,
    id: u64,
    /// The life in which the command runs.
    life: AtomicU64,
    /// None once the command has ended.
    command: Mutex<Option<Command>>,
    writers: Arc<Wakers>,
}

impl Process {
    pub(super) fn new(
        shared: Arc<Shared>,
        command: Command,
        request: ExecRequest,
        life: u64,
        deadline: Option<Instant>,
    ) -> Self {
        let channel = Arc::new(Channel {
            shared,
            id: command.exchange.id,
            life: AtomicU64::new(life),
            command: Mutex::new(Some(command)),
            writers: Arc::default(),
        });
        channel.shared.running.add(&channel);
        Self { channel, request, deadline, recent: Vec::new(), end: None }
    }

    /// What the command says next; after its end, the same end again. Cancel-safe.
    ///
    /// # Errors
    /// `exec.timeout`, `exec.not_found`, `guest.panic`, `guest.stopped`, and `vsock.reset` after
    /// a restore.
    pub async fn next(&mut self) -> Result<Output> {
        if let Some(end) = &self.end {
            return end.clone().map(Output::Exit);
        }
        match self.event().await {
            Ok(Event::Stdout(bytes)) => {
                self.remember(&bytes);
                Ok(Output::Stdout(bytes))
            }
            Ok(Event::Stderr(bytes)) => {
                self.remember(&bytes);
                Ok(Output::Stderr(bytes))
            }
            Ok(Event::Exit(exit)) => {
                self.channel.end_idle();
                let result = ExecResult::from(exit);
                self.end = Some(Ok(result.clone()));
                Ok(Output::Exit(result))
            }
            Ok(Event::Failed(error)) => {
                self.channel.end_idle();
                self.fail(error)
            }
            Err(error) => {
                drop(self.channel.end());
                self.fail(error)
            }
        }
    }

    fn fail(&mut self, error: Error) -> Result<Output> {
        let error = failure::of_command(error, &self.request, &self.recent);
        self.end = Some(Err(error.clone()));
        Err(error)
    }

    /// The way to write to its standard input and to signal it.
    pub fn input(&self) -> ProcessInput {
        ProcessInput(self.channel.clone())
    }

    async fn event(&self) -> Result<Event> {
        let channel = &self.channel;
        let event = channel.while_alive(poll_fn(|cx| channel.poll_event(cx)));
        match self.deadline {
            None => event.await,
            Some(deadline) => match tokio::time::timeout_at(deadline, event).await {
                Ok(event) => event,
                Err(_) => Err(failure::late()),
            },
        }
    }

    fn remember(&mut self, bytes: &[u8]) {
        if self.deadline.is_some() {
            self.recent.extend_from_slice(&bytes[bytes.len().saturating_sub(KEPT)..]);
            self.recent.drain(..self.recent.len().saturating_sub(KEPT));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Inputs that outlive the process must not keep its connection open.
        drop(self.channel.end());
    }
}

impl ProcessInput {
    /// Writes to standard input; returns once the guest's device has taken it all.
    ///
    /// # Errors
    /// `vsock.reset` when the command has ended.
    pub async fn write(&self, bytes: &[u8]) -> Result<()> {
        for chunk in bytes.chunks(MAX_PAYLOAD) {
            self.0.send(Kind::Stdin, chunk).await?;
        }
        Ok(())
    }

    /// Closes standard input.
    pub async fn close(&self) -> Result<()> {
        self.0.send(Kind::Stdin, &[]).await
    }

    /// Tells a command's terminal its size; a command without one ignores it.
    pub async fn resize(&self, size: TerminalSize) -> Result<()> {
        self.0.send(Kind::Resize, &size.encode()).await
    }

    /// Sends a signal to the command's process group.
    pub async fn signal(&self, signal: i32) -> Result<()> {
        self.0.send(Kind::Signal, &signal.to_le_bytes()).await
    }
}

impl Channel {
    fn lock(&self) -> MutexGuard<'_, Option<Command>> {
        self.command.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the command away; writers that wait learn of it.
    fn end(&self) -> Option<Command> {
        let command = self.lock().take();
        self.writers.wake_all();
        command
    }

    /// The command has ended in the guest: its connection is free for the next one.
    fn end_idle(&self) {
        if let Some(command) = self.end() {
            self.shared.pool.put(command.exchange.connection);
        }
    }

    fn mark(&self) -> Option<Mark> {
        self.lock().as_ref()?.exchange.connection.mark()
    }

    /// After a restore to a snapshot in which `kept` ran silently: the command goes on, in the
    /// new life.
    fn rewind(&self, kept: &[Mark], life: u64) {
        if let Some(command) = self.lock().as_mut()
            && kept.iter().any(|mark| mark.serial == command.exchange.connection.serial())
        {
            command.exchange.connection.rewind();
            self.life.store(life, Ordering::Relaxed);
        }
    }

    async fn while_alive<T>(&self, operation: impl Future<Output = Result<T>>) -> Result<T> {
        let in_this_life = async {
            tokio::select! {
                biased;
                () = self.shared.lives.over(|| self.life.load(Ordering::Relaxed)) => Err(failure::restored()),
                outcome = operation => outcome,
            }
        };
        race::against_end(self.shared.machine.as_ref(), in_this_life).await
    }

    fn poll_event(&self, cx: &mut Context<'_>) -> Poll<Result<Event>> {
        let mut slot = self.lock();
        let Some(command) = slot.as_mut() else {
            return Poll::Ready(Err(over()));
        };
        // Writing is shared with the inputs: whoever is woken drains for all.
        self.writers.add(cx.waker());
        let all = Waker::from(self.writers.clone());
        match command.poll_write(&mut Context::from_waker(&all)) {
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => self.writers.remove(cx.waker()),
            Poll::Pending => {}
        }
        command.poll_read(&self.shared, cx)
    }

    /// Sends one frame, after what is queued already, and waits until it is written.
    async fn send(&self, kind: Kind, payload: &[u8]) -> Result<()> {
        if self.lock().is_none() {
            return Err(over());
        }
        let mut queued = false;
        let written = poll_fn(|cx| {
            let mut slot = self.lock();
            let Some(command) = slot.as_mut() else {
                return Poll::Ready(Err(over()));
            };
            self.writers.add(cx.waker());
            let all = Waker::from(self.writers.clone());
            loop {
                match command.poll_write(&mut Context::from_waker(&all)) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Ready(Ok(())) if queued => break,
                    Poll::Ready(Ok(())) => {
                        command.exchange.connection.queue(kind, self.id, payload);
                        queued = true;
                    }
                }
            }
            self.writers.remove(cx.waker());
            Poll::Ready(Ok(()))
        });
        self.while_alive(written).await
    }
}

/// The commands of one machine whose processes somebody holds.
#[derive(Debug, Default)]
pub(super) struct Running(Mutex<Vec<Weak<Channel>>>);

impl Running {
    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Channel>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, channel: &Arc<Channel>) {
        let mut channels = self.lock();
        channels.retain(|known| known.strong_count() > 0);
        channels.push(Arc::downgrade(channel));
    }

    pub(super) fn marks(&self) -> Vec<Mark> {
        self.lock().iter().filter_map(|known| known.upgrade()?.mark()).collect()
    }

    pub(super) fn rewind(&self, kept: &[Mark], life: u64) {
        for channel in self.lock().iter().filter_map(Weak::upgrade) {
            channel.rewind(kept, life);
        }
    }
}

fn over() -> Error {
    Error::new(Code::VsockReset, "the command has ended")
}

/// Wakes all who wait to write on one stream, which itself remembers only one of them.
#[derive(Debug, Default)]
struct Wakers(Mutex<Vec<Waker>>);

impl Wakers {
    fn lock(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, waker: &Waker) {
        let mut wakers = self.lock();
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }

    fn remove(&self, waker: &Waker) {
        self.lock().retain(|known| !known.will_wake(waker));
    }

    fn wake_all(&self) {
        for waker in std::mem::take(&mut *self.lock()) {
            waker.wake();
        }
    }
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.wake_all();
    }
}
