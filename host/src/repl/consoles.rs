//! What guests print, above the prompt.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, spawn_local};
use vmoon_core::Console;
use vmoon_core::vm::Host;

use super::reader::Print;

/// How many lines wait to be shown; a guest that prints faster waits in its console's buffer.
const WAITING: usize = 256;

/// How long the rest of a line is awaited, as that of a question has none.
const PATIENCE: Duration = Duration::from_millis(300);

/// The longest line that is shown whole, in bytes.
const LONGEST: usize = 4096;

/// Shows the consoles until it is dropped.
#[derive(Debug)]
pub(super) struct Following(AbortHandle);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Shows what all machines print from now on, the ones to come included.
pub(super) fn follow(host: Arc<Host>, mut print: Print, color: bool) -> Following {
    let (lines, mut waiting) = mpsc::channel(WAITING);
    // The line editor may let a printer wait, and Lua must not.
    std::thread::spawn(move || {
        while let Some(line) = waiting.blocking_recv() {
            print(line);
        }
    });
    let task = spawn_local(async move {
        let mut births = host.births();
        let mut known = HashSet::new();
        let mut followers = Vec::new();
        let mut first = true;
        loop {
            for vm in host.list() {
                if known.insert(vm.id()) {
                    let console = vm.console().clone();
                    let from = if first { console.end() } else { 0 };
                    let label = label(vm.name(), color);
                    let task = spawn_local(show(console, from, label, lines.clone()));
                    followers.push(Following(task.abort_handle()));
                }
            }
            first = false;
            if births.changed().await.is_err() {
                break;
            }
        }
    });
    Following(task.abort_handle())
}

fn label(name: &str, color: bool) -> String {
    if color { format!("\x1b[34m{name} │\x1b[0m ") } else { format!("{name} │ ") }
}

/// Shows one console, line by line, until the machine is closed.
async fn show(console: Arc<Console>, mut from: u64, label: String, lines: mpsc::Sender<String>) {
    let mut partial = Vec::new();
    loop {
        let growth = console.grown_past(from);
        let more = if partial.is_empty() {
            growth.await
        } else {
            let Ok(more) = tokio::time::timeout(PATIENCE, growth).await else {
                if lines.send(line(&label, &std::mem::take(&mut partial))).await.is_err() {
                    return;
                }
                continue;
            };
            more
        };
        let (text, end) = console.since(from);
        from = end;
        partial.extend_from_slice(&text);
        while let Some(length) = whole(&partial) {
            let rest = partial.split_off(length);
            let bytes = std::mem::replace(&mut partial, rest);
            if lines.send(line(&label, &bytes)).await.is_err() {
                return;
            }
        }
        if !more {
            if !partial.is_empty() {
                let _ = lines.send(line(&label, &partial)).await;
            }
            return;
        }
    }
}

/// The length of the first line, if it is whole or too long.
fn whole(text: &[u8]) -> Option<usize> {
    match text.iter().take(LONGEST).position(|byte| *byte == b'\n') {
        Some(at) => Some(at + 1),
        None => (text.len() >= LONGEST).then_some(LONGEST),
    }
}

/// A line as it is shown. A guest may not move the cursor, nor anything else of the terminal.
fn line(label: &str, bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let plain = anstream::adapter::strip_str(text.trim_end()).to_string();
    let shown: String = plain.chars().filter(|c| *c == '\t' || !c.is_control()).collect();
    format!("{label}{shown}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_cannot_play_with_the_terminal() {
        assert_eq!(line("g │ ", b"\x1b[31mred\x1b[0m \x1b]0;title\x07x\r\n"), "g │ red x");
        assert_eq!(line("", b"a\x08b\x9b2Jc\n"), "ab\u{fffd}2Jc");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn lines_are_whole_and_a_question_is_shown_too() {
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let console = Arc::new(Console::new());
                let (sender, mut lines) = mpsc::channel(8);
                let task = spawn_local(show(console.clone(), 0, String::new(), sender));
                console.append(b"one\ntw");
                assert_eq!(lines.recv().await.unwrap(), "one");
                console.append(b"o\nlogin: ");
                assert_eq!(lines.recv().await.unwrap(), "two");
                assert_eq!(lines.recv().await.unwrap(), "login:");
                console.append(b"end");
                console.close();
                assert_eq!(lines.recv().await.unwrap(), "end");
                task.await.unwrap();
            })
            .await;
    }
}
