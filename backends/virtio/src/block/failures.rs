//! What the host's side of a disk failed at, for people.

use std::fmt;
use std::io;

/// Counts the requests that the image failed, and keeps the last reason.
#[derive(Debug, Default)]
pub struct Failures {
    count: u64,
    last: Option<String>,
}

impl Failures {
    /// One more request failed.
    pub fn note(&mut self, error: &io::Error) {
        self.count += 1;
        self.last = Some(error.to_string());
    }
}

/// The end of a line that describes the disk; empty while nothing failed.
impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(last) = &self.last else { return Ok(()) };
        let requests = if self.count == 1 { "request" } else { "requests" };
        write!(f, "; {} {requests} failed, the last one: {last}", self.count)
    }
}
