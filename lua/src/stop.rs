//! What ends a script before its end: a deadline, a signal, `os.exit`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mlua::{HookTriggers, Lua, VmState};
use tokio::sync::Notify;

use crate::trace::Note;

/// How often a running script is interrupted to look at the clock and the flags: every this many
/// instructions of Lua's, which is a fraction of a millisecond.
const INSTRUCTIONS: u32 = 20_000;

/// How many times a script may catch the interruption, with `pcall` or in a `<close>`, before it
/// is interrupted at every instruction.
const PATIENCE: u32 = 3;

/// Set by signal handlers.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    /// SIGINT arrived.
    pub interrupted: Arc<AtomicBool>,
    /// SIGTERM or SIGHUP arrived.
    pub terminated: Arc<AtomicBool>,
}

/// Why a script is ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Interrupted,
    Terminated,
    Deadline,
    Exit(i32),
}

/// Asks a script to end.
#[derive(Debug)]
pub(crate) struct Stop {
    signals: Signals,
    deadline: Option<Instant>,
    exit: Cell<Option<i32>>,
    exiting: Notify,
    /// Whether a session deals with interruptions itself: they end a call of its, not the script.
    held: Cell<bool>,
    hits: Cell<u32>,
    note: RefCell<Option<Note>>,
}

impl Stop {
    /// Ends the script at a signal, or after `timeout` from now.
    pub(crate) fn new(signals: Signals, timeout: Option<Duration>) -> Self {
        Self {
            signals,
            deadline: timeout.map(|timeout| Instant::now() + timeout),
            exit: Cell::new(None),
            exiting: Notify::new(),
            held: Cell::new(false),
            hits: Cell::new(0),
            note: RefCell::new(None),
        }
    }

    /// Why the script must end now, if it must.
    pub(crate) fn cause(&self) -> Option<Cause> {
        if let Some(code) = self.exit.get() {
            return Some(Cause::Exit(code));
        }
        if self.signals.interrupted.load(Ordering::Relaxed) {
            return Some(Cause::Interrupted);
        }
        if self.signals.terminated.load(Ordering::Relaxed) {
            return Some(Cause::Terminated);
        }
        let late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        late.then_some(Cause::Deadline)
    }

    /// Ends the script with this status.
    pub(crate) fn exit(&self, code: i32) {
        self.exit.set(Some(code));
        self.exiting.notify_one();
    }

    /// Where a script that did not wait was interrupted.
    pub(crate) fn note(&self) -> Option<Note> {
        self.note.borrow().clone()
    }

    /// Lets interruptions be another's from now on, or again the script's. Returns how it was.
    pub(crate) fn hold_interruptions(&self, hold: bool) -> bool {
        self.held.replace(hold)
    }

    /// Whether an interruption has arrived that [`Stop::rearm`] has not forgotten.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.signals.interrupted.load(Ordering::Relaxed)
    }

    /// What signal handlers set.
    pub(crate) fn signals(&self) -> &Signals {
        &self.signals
    }

    /// Forgets an interruption that has done its work.
    pub(crate) fn rearm(self: &Rc<Self>, lua: &Lua) -> mlua::Result<()> {
        self.signals.interrupted.store(false, Ordering::Relaxed);
        self.note.take();
        if self.hits.replace(0) > 0 { self.hook(lua) } else { Ok(()) }
    }

    /// Waits until the script must end while it waits itself. Signals must wake the runtime:
    /// `signal` completes when one has arrived.
    pub(crate) async fn wait(&self, mut signal: impl AsyncFnMut()) -> Cause {
        let deadline = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(deadline);
        loop {
            match self.cause() {
                Some(Cause::Interrupted) if self.held.get() => {}
                Some(cause) => return cause,
                None => {}
            }
            tokio::select! {
                // A timer may fire a little before the clock reads the deadline.
                () = &mut deadline => return self.cause().unwrap_or(Cause::Deadline),
                () = signal() => {}
                () = self.exiting.notified() => {}
            }
        }
    }

    /// Interrupts code that runs without waiting, such as `while true do end`.
    pub(crate) fn hook(self: &Rc<Self>, lua: &Lua) -> mlua::Result<()> {
        self.hook_every(lua, INSTRUCTIONS)
    }

    fn hook_every(self: &Rc<Self>, lua: &Lua, instructions: u32) -> mlua::Result<()> {
        let stop = self.clone();
        let triggers = HookTriggers::new().every_nth_instruction(instructions);
        lua.set_global_hook(triggers, move |lua, _| {
            if stop.cause().is_none() {
                return Ok(VmState::Continue);
            }
            let hits = stop.hits.get() + 1;
            stop.hits.set(hits);
            stop.note.borrow_mut().get_or_insert_with(|| Note::here(lua, None));
            if hits == PATIENCE {
                stop.hook_every(lua, 1)?;
            }
            Err(mlua::Error::runtime("the script was ended"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped(code: &str) {
        let lua = Lua::new();
        let stop = Rc::new(Stop::new(Signals::default(), Some(Duration::from_millis(50))));
        stop.hook(&lua).unwrap();
        let start = Instant::now();
        assert!(lua.load(code).exec().is_err());
        assert!(start.elapsed() < Duration::from_secs(5), "{code}");
        assert_eq!(stop.cause(), Some(Cause::Deadline));
        assert!(!stop.note().unwrap().frames.is_empty());
    }

    #[test]
    fn a_busy_loop_ends_at_the_deadline() {
        stopped("while true do end");
    }

    #[test]
    fn a_busy_loop_cannot_catch_its_end() {
        stopped("while true do pcall(function() while true do end end) end");
    }

    #[test]
    fn a_busy_coroutine_ends_too() {
        stopped("local f = coroutine.wrap(function() while true do end end) while true do f() end");
    }
}
