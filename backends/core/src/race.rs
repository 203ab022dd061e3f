//! Waiting for something that can no longer come once the machine has ended.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;

use crate::backend::{Machine, Status};
use crate::console::Console;
use crate::error::{Code, Error, Result};
use crate::lifecycle::State;

/// How long after a reset the machine has to show whether it crashed or stopped: the reset and
/// the change of state come from different places.
const GRACE: Duration = Duration::from_millis(250);

/// The detail of a reset that a restore caused, and not the machine's end.
pub(crate) const RESTORED: &str = "restored";

/// How many lines of the console an error carries.
const TAIL_LINES: usize = 10;

/// Awaits `operation`, or fails as soon as the machine has crashed (`guest.panic`) or stopped
/// (`guest.stopped`). A reset is explained by the machine's end, where that is what it was.
pub(crate) async fn against_end<T>(
    machine: &dyn Machine,
    operation: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut status = machine.watch();
    let outcome = tokio::select! {
        biased;
        outcome = operation => outcome,
        end = end_of(&mut status) => return Err(ended(&end, machine.console())),
    };
    match outcome {
        Err(error) if needs_explaining(&error) => {
            match tokio::time::timeout(GRACE, end_of(&mut status)).await {
                Ok(end) => Err(ended(&end, machine.console()).with_source(error)),
                Err(_) => Err(error),
            }
        }
        outcome => outcome,
    }
}

fn needs_explaining(error: &Error) -> bool {
    error.code() == Code::VsockReset && !error.details().contains_key(RESTORED)
}

/// Whether a machine in this state does nothing more by itself.
pub(crate) fn is_end(state: State) -> bool {
    matches!(state, State::Stopped | State::Crashed)
}

/// The status with which the machine ended. A machine whose handle is gone has stopped.
async fn end_of(status: &mut watch::Receiver<Status>) -> Status {
    match status.wait_for(|status| is_end(status.state)).await {
        Ok(status) => status.clone(),
        Err(_) => Status { state: State::Stopped, reason: Some("the machine was closed".into()) },
    }
}

/// The error that says how the machine ended.
pub(crate) fn ended(status: &Status, console: &Console) -> Error {
    let (code, what) = match status.state {
        State::Crashed => (Code::GuestPanic, "the guest crashed"),
        _ => (Code::GuestStopped, "the guest stopped"),
    };
    let message = match &status.reason {
        Some(reason) => format!("{what}: {reason}"),
        None => what.to_owned(),
    };
    with_console(
        Error::new(code, message)
            .with_hint("vm:restore(snapshot) brings the machine back")
            .with_detail("state", status.state.as_str()),
        console,
    )
}

/// Adds the end of the console's text as the detail `console_tail`.
pub(crate) fn with_console(error: Error, console: &Console) -> Error {
    let (recent, _) = console.since(console.end().saturating_sub(4096));
    let text = String::from_utf8_lossy(&recent);
    let lines: Vec<&str> =
        text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        return error;
    }
    let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
    error.with_detail("console_tail", tail)
}
