//! The output of a running command, as it was received and not yet given to the script.

use std::collections::VecDeque;

use vmoon_core::vm::{self, ExecResult, Output};
use vmoon_core::{Code, Error};

use crate::fault::Outcome;

/// How much of a stream is kept while only the other one is read; of more, the oldest goes.
const KEPT: usize = 1024 * 1024;

/// The longest line. A command that prints no newline must not fill the host's memory.
const LONGEST_LINE: usize = 16 * 1024 * 1024;

/// Which of a command's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Stdout,
    Stderr,
}

impl Source {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Which of them a script reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Only(Source),
    /// In the order in which their output came.
    Both,
}

impl Wanted {
    fn includes(self, source: Source) -> bool {
        self == Self::Both || self == Self::Only(source)
    }
}

/// The output with what was received and not yet given.
#[derive(Debug)]
pub(super) struct Reader {
    process: vm::Process,
    streams: [Stream; 2],
    /// How many pieces have come, of both streams.
    received: u64,
    exit: Option<ExecResult>,
}

/// What has come of one stream.
#[derive(Debug, Default)]
struct Stream {
    /// Pieces, each with its place among those of both streams.
    pieces: VecDeque<(u64, Vec<u8>)>,
    /// Bytes of the first piece that were given.
    given: usize,
    /// Bytes that were not given.
    pending: usize,
    /// The beginning of a line.
    line: Vec<u8>,
}

impl Stream {
    fn push(&mut self, place: u64, bytes: Vec<u8>) {
        self.pending += bytes.len();
        self.pieces.push_back((place, bytes));
    }

    fn forget_beyond(&mut self, most: usize) {
        while self.pending > most {
            drop(self.take_piece());
        }
    }

    fn take_piece(&mut self) -> Option<Vec<u8>> {
        let (_, mut piece) = self.pieces.pop_front()?;
        piece.drain(..std::mem::take(&mut self.given));
        self.pending -= piece.len();
        Some(piece)
    }

    /// The next whole line, without its newline.
    fn take_line(&mut self) -> Option<Vec<u8>> {
        while let Some((_, piece)) = self.pieces.front() {
            let rest = &piece[self.given..];
            let end = rest.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(rest.len(), |end| end + 1);
            self.line.extend_from_slice(&rest[..taken]);
            self.given += taken;
            self.pending -= taken;
            if self.given == piece.len() {
                self.pieces.pop_front();
                self.given = 0;
            }
            if end.is_some() {
                self.line.pop();
                return Some(std::mem::take(&mut self.line));
            }
        }
        None
    }

    /// The beginning of a line as it came.
    fn take_beginning(&mut self) -> Option<Vec<u8>> {
        (!self.line.is_empty()).then(|| std::mem::take(&mut self.line))
    }
}

impl Reader {
    pub(super) fn new(process: vm::Process) -> Self {
        Self { process, streams: Default::default(), received: 0, exit: None }
    }

    /// Receives the next output; false when the command has ended. Cancel-safe.
    async fn receive(&mut self, wanted: Wanted) -> Outcome<bool> {
        if self.exit.is_some() {
            return Ok(false);
        }
        let (bytes, source) = match self.process.next().await? {
            Output::Stdout(bytes) => (bytes, Source::Stdout),
            Output::Stderr(bytes) => (bytes, Source::Stderr),
            Output::Exit(result) => {
                self.exit = Some(result);
                return Ok(false);
            }
        };
        let stream = &mut self.streams[source as usize];
        stream.push(self.received, bytes);
        self.received += 1;
        if !wanted.includes(source) {
            stream.forget_beyond(KEPT);
        }
        Ok(true)
    }

    /// The wanted streams, that of the oldest output first.
    fn order(&self, wanted: Wanted) -> impl Iterator<Item = Source> + use<> {
        let place = |source: Source| {
            let first = self.streams[source as usize].pieces.front();
            first.map_or(u64::MAX, |(place, _)| *place)
        };
        let mut sources = [Source::Stdout, Source::Stderr];
        sources.sort_by_key(|source| place(*source));
        sources.into_iter().filter(move |source| wanted.includes(*source))
    }

    /// The next output as it came.
    pub(super) async fn chunk(&mut self, wanted: Wanted) -> Outcome<Option<(Vec<u8>, Source)>> {
        loop {
            for source in self.order(wanted) {
                let stream = &mut self.streams[source as usize];
                let taken = stream.take_beginning().or_else(|| stream.take_piece());
                if let Some(bytes) = taken {
                    return Ok(Some((bytes, source)));
                }
            }
            if !self.receive(wanted).await? {
                return Ok(None);
            }
        }
    }

    /// The next line; at the end, what there is of one.
    pub(super) async fn line(&mut self, wanted: Wanted) -> Outcome<Option<(Vec<u8>, Source)>> {
        loop {
            for source in self.order(wanted) {
                let stream = &mut self.streams[source as usize];
                if let Some(line) = stream.take_line() {
                    return Ok(Some((line, source)));
                }
                if stream.line.len() > LONGEST_LINE {
                    return Err(Error::new(Code::VmSpec, "the line is longer than 16 MiB")
                        .with_hint("proc:read() reads output that has no lines")
                        .into());
                }
            }
            if !self.receive(wanted).await? {
                let last = self.order(wanted).find_map(|source| {
                    let beginning = self.streams[source as usize].take_beginning();
                    beginning.map(|line| (line, source))
                });
                return Ok(last);
            }
        }
    }

    /// How the command ended, with the output that nobody read.
    pub(super) async fn wait(&mut self) -> Outcome<ExecResult> {
        let mut result = ExecResult::default();
        while let Some((bytes, source)) = self.chunk(Wanted::Both).await? {
            match source {
                Source::Stdout => result.stdout.extend_from_slice(&bytes),
                Source::Stderr => result.stderr.extend_from_slice(&bytes),
            }
        }
        let exit = self.exit.clone().unwrap_or_default();
        Ok(ExecResult { stdout: result.stdout, stderr: result.stderr, ..exit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_and_what_is_left_is_as_it_came() {
        let mut stream = Stream::default();
        for (place, piece) in ["one\ntw", "o\nth", "ree"].into_iter().enumerate() {
            stream.push(place as u64, piece.as_bytes().to_vec());
        }
        assert_eq!(stream.take_line().as_deref(), Some(&b"one"[..]));
        assert_eq!(stream.pending, "two\nthree".len());
        assert_eq!(stream.take_line().as_deref(), Some(&b"two"[..]));
        assert_eq!(stream.take_line(), None);
        assert_eq!(stream.take_beginning().as_deref(), Some(&b"three"[..]));
        assert_eq!((stream.pending, stream.take_piece()), (0, None));
    }

    #[test]
    fn what_nobody_reads_does_not_grow() {
        let mut stream = Stream::default();
        for place in 0..100 {
            stream.push(place, vec![7; 100]);
            stream.forget_beyond(350);
        }
        assert_eq!(stream.pending, 300);
        assert_eq!(stream.pieces.front().map(|(place, _)| *place), Some(97));
    }
}
