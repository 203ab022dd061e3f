//! A command while it runs: the loop between its pipes and the connection.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use vmoon_protocol::frame::{Frame, Kind};
use vmoon_protocol::message::{Exec, Exit, Failure, TerminalSize};

use crate::process::Process;
use crate::stream::{CHUNK, Stream};
use crate::{sys, terminal};

/// How long output is awaited after the program ended. What it wrote itself is in the pipes by
/// then; only a grandchild that kept them can add to it, and it may live for ever.
const GRACE: Duration = Duration::from_millis(100);

/// How much input is held for a program that does not read it; then the connection is not read
/// any more, and the host's writer stops.
const INPUT_LIMIT: usize = 256 * 1024;

/// Conditions under which a pipe is worth a read or a write.
const PIPE_EVENTS: i16 = libc::POLLIN | libc::POLLOUT | libc::POLLHUP | libc::POLLERR;

/// A command that runs.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    id: u64,
    process: Process,
    deadline: Option<Instant>,
    input: VecDeque<u8>,
    input_ends: bool,
    ended: Option<Ended>,
    /// For reading the pipes; at least [`CHUNK`] bytes.
    buffer: &'a mut [u8],
}

/// How the program ended, and until when its output is awaited.
#[derive(Clone, Copy, Debug)]
struct Ended {
    exit: Exit,
    until: Instant,
}

impl<'a> Running<'a> {
    /// A command that was just started. `buffer` is the connection's: a command must not dirty
    /// more memory than it needs, for a restore has to put it back.
    pub(crate) fn new(id: u64, exec: &Exec, process: Process, buffer: &'a mut [u8]) -> Self {
        let timeout = exec.timeout_ms.map(Duration::from_millis);
        Self {
            id,
            deadline: timeout.and_then(|timeout| process.started.checked_add(timeout)),
            process,
            input: VecDeque::new(),
            input_ends: false,
            ended: None,
            buffer,
        }
    }

    /// Streams until the program has ended and its end is reported. An error is the
    /// connection's; it kills the process group.
    pub(crate) fn run(mut self, stream: &mut Stream) -> io::Result<()> {
        loop {
            self.take_frames(stream)?;
            if let Some(ended) = self.ended
                && self.output_is_over(ended, stream)?
            {
                stream.queue(Kind::Exit, self.id, &ended.exit.encode());
                return stream.flush_all();
            }
            self.turn(stream)?;
        }
    }

    /// Waits for something to happen and reacts to it.
    fn turn(&mut self, stream: &mut Stream) -> io::Result<()> {
        // A host that does not read stops the reading of the pipes, and so the program.
        let room = !stream.is_congested();
        let listening = self.input.len() < INPUT_LIMIT;
        let mut host = libc::POLLRDHUP;
        host |= if listening { libc::POLLIN } else { 0 };
        host |= if room { 0 } else { libc::POLLOUT };
        let mut entries = [
            sys::entry(Some(stream), host),
            sys::entry(self.ended.is_none().then_some(&self.process.end), libc::POLLIN),
            sys::entry(self.process.stdout.as_ref().filter(|_| room), libc::POLLIN),
            sys::entry(self.process.stderr.as_ref().filter(|_| room), libc::POLLIN),
            sys::entry(
                self.process.stdin.as_ref().filter(|_| !self.input.is_empty()),
                libc::POLLOUT,
            ),
        ];
        sys::poll(&mut entries, self.patience())?;
        let [host, end, stdout, stderr, stdin] = entries.map(|entry| entry.revents);

        if stdout & PIPE_EVENTS != 0 {
            self.take_stdout(stream, CHUNK);
        }
        if stderr & PIPE_EVENTS != 0 {
            self.take_stderr(stream, CHUNK);
        }
        if stdin & PIPE_EVENTS != 0 {
            self.give_input();
        }
        if end != 0 {
            self.reap()?;
        }
        if host & libc::POLLIN != 0 {
            stream.fill()?;
        } else if host & (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) != 0 {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            self.deadline = None;
            self.process.signal(libc::SIGKILL);
        }
        stream.flush()
    }

    /// How long to wait at most.
    fn patience(&self) -> Option<Duration> {
        let until = self.ended.map(|ended| ended.until);
        let next = [self.deadline, until].into_iter().flatten().min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Acts upon what the host sent.
    fn take_frames(&mut self, stream: &mut Stream) -> io::Result<()> {
        while self.input.len() < INPUT_LIMIT {
            let Some(frame) = stream.next_frame()? else { break };
            self.take_frame(&frame, stream);
        }
        Ok(())
    }

    fn take_frame(&mut self, frame: &Frame, stream: &mut Stream) {
        match Kind::from_value(frame.kind) {
            Some(Kind::Exec) => stream.queue_failure(
                frame.id,
                &Failure {
                    code: "agent.unavailable".to_owned(),
                    message: "the connection already runs a command".to_owned(),
                },
            ),
            Some(Kind::Stdin) if frame.id == self.id => {
                let ends = frame.payload.is_empty();
                // A terminal has no end; the character that means it is typed.
                let typed: &[u8] = if ends && self.process.terminal.is_some() {
                    &[terminal::END_OF_FILE]
                } else {
                    self.input_ends |= ends;
                    &frame.payload
                };
                if self.process.stdin.is_some() {
                    self.input.extend(typed);
                    self.give_input();
                }
            }
            Some(Kind::Resize) if frame.id == self.id => {
                if let (Some(terminal), Ok(size)) =
                    (&self.process.terminal, TerminalSize::decode(&frame.payload))
                {
                    terminal.resize(size);
                }
            }
            Some(Kind::Signal) if frame.id == self.id => {
                if let Ok(bytes) = frame.payload.as_slice().try_into() {
                    self.process.signal(i32::from_le_bytes(bytes));
                }
            }
            // A frame of a life that a restore undid, or of a newer host.
            _ => {}
        }
    }

    /// Writes input for as long as the program's pipe takes it.
    fn give_input(&mut self) {
        while let Some(stdin) = &mut self.process.stdin {
            if self.input.is_empty() {
                if self.input_ends {
                    self.process.stdin = None;
                }
                return;
            }
            match stdin.write(self.input.as_slices().0) {
                Ok(count) => drop(self.input.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    // The program closed its input: what follows has nowhere to go.
                    self.process.stdin = None;
                    self.input.clear();
                }
            }
        }
    }

    fn take_stdout(&mut self, stream: &mut Stream, limit: usize) {
        let (id, buffer) = (self.id, &mut self.buffer[..limit]);
        take(&mut self.process.stdout, buffer, |bytes| stream.queue(Kind::Stdout, id, bytes));
    }

    fn take_stderr(&mut self, stream: &mut Stream, limit: usize) {
        let (id, buffer) = (self.id, &mut self.buffer[..limit]);
        take(&mut self.process.stderr, buffer, |bytes| stream.queue(Kind::Stderr, id, bytes));
    }

    /// Collects the status of the program that ended.
    fn reap(&mut self) -> io::Result<()> {
        if let Some(status) = self.process.try_reap()? {
            let duration = self.process.started.elapsed();
            self.ended =
                Some(Ended { exit: exit(status, duration), until: Instant::now() + GRACE });
            // The timeout was the program's, and it is over.
            self.deadline = None;
        }
        Ok(())
    }

    /// Whether all output has been queued: the pipes ended, or the grace did.
    fn output_is_over(&mut self, ended: Ended, stream: &mut Stream) -> io::Result<bool> {
        if self.process.stdout.is_none() && self.process.stderr.is_none() {
            return Ok(true);
        }
        if Instant::now() < ended.until {
            return Ok(false);
        }
        // Somebody keeps the pipes. What is in them now includes all that the program wrote; what
        // comes later does not count, or a grandchild that prints for ever would never let go.
        if let Some(stdout) = &self.process.stdout {
            let mut left = sys::readable_bytes(stdout.as_fd())?;
            while left > 0 && self.process.stdout.is_some() {
                let piece = left.min(CHUNK);
                self.take_stdout(stream, piece);
                left -= piece;
            }
        }
        if let Some(stderr) = &self.process.stderr {
            let mut left = sys::readable_bytes(stderr.as_fd())?;
            while left > 0 && self.process.stderr.is_some() {
                let piece = left.min(CHUNK);
                self.take_stderr(stream, piece);
                left -= piece;
            }
        }
        Ok(true)
    }
}

/// Reads a pipe once; at its end, closes it.
fn take<R: Read>(pipe: &mut Option<R>, buffer: &mut [u8], mut queue: impl FnMut(&[u8])) {
    let Some(reader) = pipe else { return };
    match reader.read(buffer) {
        Ok(0) => *pipe = None,
        Ok(count) => queue(&buffer[..count]),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
        Err(_) => *pipe = None,
    }
}

fn exit(status: ExitStatus, duration: Duration) -> Exit {
    let signal = status.signal().unwrap_or(0);
    Exit {
        code: status.code().unwrap_or(128 + signal),
        signal,
        duration_ns: u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX),
    }
}
