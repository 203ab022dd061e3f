//! What a machine was asked for, and what became of it: for people who look for why a test failed.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::agent::{ExecResult, Process};
use crate::backend::{RestoreReport, SnapshotImage};
use crate::error::Result;

/// How many entries are kept: the newest.
const CAPACITY: usize = 256;

/// How much of an output is kept, in bytes: its end.
const TAIL: usize = 512;

/// The newest commands, waits, copies, snapshots and restores of a machine, where its host keeps
/// them: see [`super::Host::keep_transcripts`].
#[derive(Debug)]
pub struct Transcript {
    kept: bool,
    began: Instant,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    kept: VecDeque<Entry>,
    dropped: u64,
}

#[derive(Debug)]
struct Entry {
    at: Duration,
    took: Duration,
    what: String,
    outcome: String,
    /// What was printed: which output, and its end.
    outputs: Vec<(&'static str, Vec<u8>)>,
}

impl Transcript {
    pub(super) fn new(kept: bool) -> Self {
        Self { kept, began: Instant::now(), entries: Mutex::default() }
    }

    /// What is about to be done, in words, where anybody wants to know.
    pub(super) fn describe(&self, what: impl FnOnce() -> String) -> Option<String> {
        self.kept.then(what)
    }

    /// Waits for `work`, and notes what it was and how it ended; also that nobody waited for its
    /// end.
    pub(super) async fn note<T: Noted>(
        &self,
        what: Option<String>,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let Some(what) = what else { return work.await };
        let open = Open { transcript: self, began: Instant::now(), what: Some(what) };
        let ended = work.await;
        open.end(&ended);
        ended
    }

    /// All of it in lines for people, oldest first.
    pub fn text(&self) -> String {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        if entries.dropped > 0 {
            let _ = writeln!(text, "({} earlier ones are not kept)", entries.dropped);
        }
        for entry in &entries.kept {
            let (at, took) = (entry.at.as_secs_f64(), entry.took.as_secs_f64() * 1e3);
            let _ =
                writeln!(text, "[{at:10.6} s] {}: {} ({took:.3} ms)", entry.what, entry.outcome);
            for (name, bytes) in &entry.outputs {
                for line in String::from_utf8_lossy(bytes).lines() {
                    let _ = writeln!(text, "    {name} | {line}");
                }
            }
        }
        text
    }

    fn push(&self, entry: Entry) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.kept.len() == CAPACITY {
            entries.kept.pop_front();
            entries.dropped += 1;
        }
        entries.kept.push_back(entry);
    }
}

/// Something that has begun; dropping it notes that it was given up.
struct Open<'a> {
    transcript: &'a Transcript,
    began: Instant,
    what: Option<String>,
}

impl Open<'_> {
    fn end<T: Noted>(mut self, ended: &Result<T>) {
        match ended {
            Ok(value) => self.push(value.outcome(), value.outputs()),
            Err(error) => self.push(error.to_string(), Vec::new()),
        }
    }

    fn push(&mut self, outcome: String, outputs: Vec<(&'static str, Vec<u8>)>) {
        let Some(what) = self.what.take() else { return };
        let at = self.began.duration_since(self.transcript.began);
        let took = self.began.elapsed();
        self.transcript.push(Entry { at, took, what, outcome, outputs });
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.push("given up".to_owned(), Vec::new());
    }
}

/// What a transcript tells of a success.
pub(super) trait Noted {
    fn outcome(&self) -> String {
        "done".to_owned()
    }

    fn outputs(&self) -> Vec<(&'static str, Vec<u8>)> {
        Vec::new()
    }
}

impl Noted for () {}

impl Noted for Arc<dyn SnapshotImage> {}

impl Noted for RestoreReport {
    fn outcome(&self) -> String {
        format!("{} pages", self.dirty_pages)
    }
}

impl Noted for Process {
    fn outcome(&self) -> String {
        "started".to_owned()
    }
}

impl Noted for Vec<u8> {
    fn outcome(&self) -> String {
        format!("{} bytes", self.len())
    }
}

impl Noted for ExecResult {
    fn outcome(&self) -> String {
        match self.signal {
            Some(signal) => format!("ended by signal {signal}"),
            None => format!("code {}", self.code),
        }
    }

    fn outputs(&self) -> Vec<(&'static str, Vec<u8>)> {
        [("stdout", &self.stdout), ("stderr", &self.stderr)]
            .into_iter()
            .filter(|(_, bytes)| !bytes.is_empty())
            .map(|(name, bytes)| (name, bytes[bytes.len().saturating_sub(TAIL)..].to_vec()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Code, Error};

    #[tokio::test]
    async fn tells_what_ended_how_and_what_was_given_up() {
        let transcript = Transcript::new(true);
        let result =
            ExecResult { code: 3, stdout: b"one\ntwo\n".to_vec(), ..ExecResult::default() };
        let work = std::future::ready(Ok(result));
        transcript.note(Some("exec \"a\"".to_owned()), work).await.unwrap();
        let work = std::future::ready(Err::<(), _>(Error::new(Code::VmState, "it is paused")));
        transcript.note(Some("exec \"b\"".to_owned()), work).await.unwrap_err();
        let abandoned =
            transcript.note(Some("wait".to_owned()), std::future::pending::<Result<()>>());
        tokio::time::timeout(Duration::from_millis(1), abandoned).await.unwrap_err();
        let text = transcript.text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains("] exec \"a\": code 3 ("), "{text}");
        assert_eq!(lines[1..3], ["    stdout | one", "    stdout | two"]);
        assert!(lines[3].contains("exec \"b\": vm.state: it is paused ("), "{text}");
        assert!(lines[4].contains("wait: given up ("), "{text}");
    }

    #[tokio::test]
    async fn is_empty_where_nobody_keeps_it() {
        let transcript = Transcript::new(false);
        let what = transcript.describe(|| unreachable!("nobody wants to know"));
        transcript.note(what, std::future::ready(Ok(()))).await.unwrap();
        assert_eq!(transcript.text(), "");
    }

    #[tokio::test]
    async fn keeps_the_newest() {
        let transcript = Transcript::new(true);
        for number in 0..CAPACITY + 2 {
            let work = std::future::ready(Ok(()));
            transcript.note(Some(format!("number {number}")), work).await.unwrap();
        }
        let text = transcript.text();
        assert!(text.starts_with("(2 earlier ones are not kept)\n"), "{text}");
        assert!(!text.contains("number 1:") && text.contains("number 2:"), "{text}");
    }
}
