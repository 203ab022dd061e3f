//! All that a guest printed, with waiters that are woken by output rather than by a clock.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// How much a console keeps: the newest 4 MiB. A guest that prints without end must not fill the
/// host's memory.
const CAPACITY: usize = 4 << 20;

/// The output of a machine's console since it was created. A restore does not take text back:
/// people look here for what happened.
#[derive(Debug, Default)]
pub struct Console {
    text: Mutex<Text>,
    grown: Notify,
}

#[derive(Debug, Default)]
struct Text {
    bytes: Vec<u8>,
    /// How many bytes were dropped from the front.
    dropped: u64,
    closed: bool,
}

impl Console {
    /// An empty console.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Text> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends output. Called by the machine.
    pub fn append(&self, bytes: &[u8]) {
        let mut text = self.lock();
        text.bytes.extend_from_slice(bytes);
        // Dropping from the front moves the rest: do it by halves, not by bytes.
        if text.bytes.len() > 2 * CAPACITY {
            let excess = text.bytes.len() - CAPACITY;
            text.bytes.drain(..excess);
            text.dropped += excess as u64;
        }
        drop(text);
        self.grown.notify_waiters();
    }

    /// Says that no more output will come. Called when the machine is closed.
    pub fn close(&self) {
        self.lock().closed = true;
        self.grown.notify_waiters();
    }

    /// The position after the last byte, counted from the first byte ever printed.
    pub fn end(&self) -> u64 {
        let text = self.lock();
        text.dropped + text.bytes.len() as u64
    }

    /// What was printed from `position` on, as far as it is kept, and the position after it.
    pub fn since(&self, position: u64) -> (Vec<u8>, u64) {
        let text = self.lock();
        let start = usize::try_from(position.saturating_sub(text.dropped)).unwrap_or(usize::MAX);
        let tail = text.bytes.get(start..).unwrap_or_default().to_vec();
        (tail, text.dropped + text.bytes.len() as u64)
    }

    /// All the text that is kept.
    pub fn text(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    /// The last line that is not blank, without its line end; for error messages.
    pub fn last_line(&self) -> Option<String> {
        let text = self.lock();
        String::from_utf8_lossy(&text.bytes[text.bytes.len().saturating_sub(4096)..])
            .lines()
            .map(str::trim_end)
            .rfind(|line| !line.trim().is_empty())
            .map(str::to_owned)
    }

    /// Waits until there is output after `position`; false when the console closed instead.
    pub async fn grown_past(&self, position: u64) -> bool {
        loop {
            let notified = self.grown.notified();
            tokio::pin!(notified);
            // Registers before the check, so that output between the two is not missed.
            notified.as_mut().enable();
            {
                let text = self.lock();
                if text.dropped + text.bytes.len() as u64 > position {
                    return true;
                }
                if text.closed {
                    return false;
                }
            }
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_output_and_counts_from_the_start() {
        let console = Console::new();
        let chunk = vec![b'x'; CAPACITY];
        for _ in 0..3 {
            console.append(&chunk);
        }
        console.append(b"\nend\n\n");
        assert!(console.text().len() <= 2 * CAPACITY + 6);
        assert_eq!(console.end(), 3 * CAPACITY as u64 + 6);
        assert_eq!(console.last_line().as_deref(), Some("end"));
        let (tail, end) = console.since(console.end() - 5);
        assert_eq!(tail, b"end\n\n");
        assert_eq!(end, console.end());
        assert_eq!(console.since(u64::MAX).0, b"");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn waiters_are_woken_by_output_and_by_the_end() {
        let console = std::sync::Arc::new(Console::new());
        let waiter = tokio::spawn({
            let console = console.clone();
            async move { (console.grown_past(0).await, console.grown_past(2).await) }
        });
        tokio::task::yield_now().await;
        console.append(b"hi");
        tokio::task::yield_now().await;
        console.close();
        assert_eq!(waiter.await.unwrap(), (true, false));
    }
}
