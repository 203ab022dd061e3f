//! The conversation with a pipe: no prompt, and an exit status.

use std::io::BufRead;

use tokio::sync::mpsc;
use vmoon_lua::session::syntax::Checker;
use vmoon_lua::{Evaluation, Session};

use super::command::print_reports;
use crate::status;

/// How many lines are read ahead.
const AHEAD: usize = 64;

/// Runs the chunks that come through standard input; the exit status, which is `before` when
/// nothing raises.
pub(super) async fn talk(session: Session, color: bool, before: i32) -> i32 {
    let mut status = before;
    let mut lines = lines();
    let checker = Checker::default();
    let mut text = String::new();
    loop {
        let line = lines.recv().await;
        let ended = line.is_none();
        text.push_str(&line.unwrap_or_default());
        if !ended && checker.is_incomplete(&text) {
            text.push('\n');
            continue;
        }
        let chunk = std::mem::take(&mut text);
        if !chunk.trim().is_empty() {
            match session.evaluate(&chunk).await {
                Evaluation::Values(values) if values.is_empty() => {}
                Evaluation::Values(values) => println!("{}", values.join("\t")),
                Evaluation::Interrupted => return status::INTERRUPTED,
                Evaluation::Raised(reports) => {
                    status = status::RAISED;
                    print_reports(&reports, color);
                }
            }
        }
        let unseen = session.unseen();
        if !unseen.is_empty() {
            status = status::RAISED;
            print_reports(&unseen, color);
        }
        if ended {
            return status;
        }
    }
}

/// The lines of standard input, read on a thread of their own: tasks go on in the meantime.
fn lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().split(b'\n') {
            let Ok(line) = line else { break };
            if sender.blocking_send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
    receiver
}
