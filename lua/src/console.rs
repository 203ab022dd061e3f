//! A machine's console: what the guest printed, and the way to type.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mlua::{Lua, LuaString, MultiValue, UserData, UserDataRegistry, Value};
use vmoon_core::{Code, Error, State, Vm};

use crate::class::{self, Class, Handle, Results, iterator};
use crate::context::Context;
use crate::fault::{Fault, Outcome};
use crate::machine::{Machine, PATIENCE};

/// How far back a search begins when text has come: a match may have begun before. Longer
/// matches than this would make each wait read the whole console again for each new line.
const OVERLAP: u64 = 64 * 1024;

/// How long the last words of a guest that has ended may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// The console of a machine.
#[derive(Clone, Debug)]
pub(crate) struct Console(pub(crate) Machine);

impl UserData for Console {
    fn register(registry: &mut UserDataRegistry<Self>) {
        class::register(registry);
    }
}

impl Handle for Console {
    const NAME: &'static str = "console";

    fn machine(&self) -> Option<Arc<Vm>> {
        Some(self.0.vm().clone())
    }

    fn title(&self) -> String {
        format!("console of {}", self.0.vm().name())
    }

    fn define(class: &mut Class<Self>) -> mlua::Result<()> {
        class.method("console:text", Results::One, |lua, this, _| {
            Ok(lua.create_string(this.0.vm().console().text())?)
        })?;
        class.method("console:tail", Results::One, |lua, this, arguments| {
            let count = arguments.count(0, Some(10))?;
            Ok(lua.create_string(tail(&this.0.vm().console().text(), count))?)
        })?;
        class.method("console:lines", Results::All, |lua, this, _| {
            let lines = Lines(Rc::new(Following {
                machine: this.0,
                position: Cell::new(0),
                partial: RefCell::new(Vec::new()),
            }));
            iterator(lua, lines, "next", false)
        })?;
        class.waiting("console:wait", Results::All, async |lua: Lua, this: Self, arguments| {
            let pattern = arguments.string(0, "a Lua pattern")?;
            let timeout = arguments.options(1, &["timeout"])?.duration("timeout")?;
            wait(&lua, &this.0, &pattern, timeout.unwrap_or(PATIENCE)).await
        })?;
        class.waiting("console:write", Results::None, async |_, this: Self, arguments| {
            let text = arguments.string(0, "a string")?.as_bytes().to_vec();
            Ok(this.0.vm().type_console(text).await?)
        })
    }
}

/// The last `count` lines.
fn tail(text: &[u8], count: usize) -> &[u8] {
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let newlines = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    match (count, newlines.map(|(at, _)| at).nth(count.saturating_sub(1))) {
        (0, _) => &[],
        (_, None) => text,
        (_, Some(at)) => &text[at + 1..],
    }
}

/// Waits until the console shows `pattern`, after what the previous wait found. Returns the
/// pattern's captures, or the whole match where it has none.
pub(crate) async fn wait(
    lua: &Lua,
    machine: &Machine,
    pattern: &LuaString,
    timeout: Duration,
) -> Outcome<MultiValue> {
    let console = machine.vm().console();
    let search = async {
        let anchored = pattern.as_bytes().first() == Some(&b'^');
        let mut from = machine.console_position();
        loop {
            let (text, end) = console.since(from);
            let start = end - text.len() as u64;
            if let Some((found, after)) = find(lua, &text, pattern)? {
                machine.move_console(start + after as u64);
                return Ok(Some(found));
            }
            if !anchored {
                from = from.max(end.saturating_sub(OVERLAP));
            }
            if !grown_or_ended(machine, end).await {
                return Ok(None);
            }
        }
    };
    match tokio::time::timeout(timeout, search).await {
        Ok(Ok(Some(found))) => Ok(found),
        Ok(Ok(None)) => Err(ended(machine, pattern).into()),
        Ok(Err(fault)) => Err(fault),
        Err(_) => Err(late(machine, pattern, timeout).into()),
    }
}

fn late(machine: &Machine, pattern: &LuaString, timeout: Duration) -> Error {
    let last = match machine.vm().console().last_line() {
        Some(line) => format!("its last line is {line:?}"),
        None => "it shows nothing".to_owned(),
    };
    Error::new(
        Code::VmTimeout,
        format!(
            "the console did not show {:?} within {timeout:?}: {last}",
            pattern.display().to_string()
        ),
    )
    .with_hint("console:text() is all that was printed; the pattern is a Lua pattern")
    .with_detail("timeout", timeout.as_secs_f64())
    .with_detail("observed", last)
}

/// Waits for output after `position`; false when none will come.
async fn grown_or_ended(machine: &Machine, position: u64) -> bool {
    let console = machine.vm().console();
    let mut status = machine.vm().watch();
    let over = status.wait_for(|now| matches!(now.state, State::Stopped | State::Crashed));
    tokio::select! {
        biased;
        grown = console.grown_past(position) => grown,
        _ = over => {
            tokio::time::timeout(LAST_WORDS, console.grown_past(position)).await.unwrap_or(false)
        }
    }
}

fn ended(machine: &Machine, pattern: &LuaString) -> Error {
    let status = machine.vm().status();
    let code = if status.state == State::Crashed { Code::GuestPanic } else { Code::GuestStopped };
    let mut message = format!(
        "the machine is {} and its console has not shown {:?}",
        status.state,
        pattern.display().to_string()
    );
    if let Some(reason) = status.reason {
        message.push_str(": ");
        message.push_str(&reason);
    }
    Error::new(code, message)
}

/// Searches with Lua's own `string.find`; the captures or the whole match, and where it ends.
fn find(lua: &Lua, text: &[u8], pattern: &LuaString) -> Outcome<Option<(MultiValue, usize)>> {
    let subject = lua.create_string(text)?;
    let mut found: MultiValue =
        Context::of(lua).find.call((subject, pattern)).map_err(|error| bad(pattern, &error))?;
    let (Some(Value::Integer(first)), Some(Value::Integer(last))) =
        (found.pop_front(), found.pop_front())
    else {
        return Ok(None);
    };
    let first = usize::try_from(first).unwrap_or(1);
    let last = usize::try_from(last).unwrap_or(0);
    if found.is_empty() {
        let whole = text.get(first - 1..last).unwrap_or_default();
        found.push_back(Value::String(lua.create_string(whole)?));
    }
    Ok(Some((found, last)))
}

fn bad(pattern: &LuaString, error: &mlua::Error) -> Fault {
    Error::new(
        Code::VmSpec,
        format!(
            "{:?} is not a Lua pattern: {}",
            pattern.display().to_string(),
            crate::trace::first_line(error)
        ),
    )
    .with_hint("the characters ^$()%.[]*+-? are special; % before one takes it literally")
    .into()
}

/// What `console:lines()` iterates over.
#[derive(Clone, Debug)]
struct Lines(Rc<Following>);

#[derive(Debug)]
struct Following {
    machine: Machine,
    position: Cell<u64>,
    /// What came after the last newline, and lines that wait to be given.
    partial: RefCell<Vec<u8>>,
}

impl Lines {
    async fn next(&self) -> Option<Vec<u8>> {
        loop {
            {
                let mut partial = self.0.partial.borrow_mut();
                if let Some(at) = partial.iter().position(|byte| *byte == b'\n') {
                    let mut line: Vec<u8> = partial.drain(..=at).collect();
                    line.truncate(at - usize::from(line[..at].ends_with(b"\r")));
                    return Some(line);
                }
            }
            let console = self.0.machine.vm().console();
            let more = console.grown_past(self.0.position.get()).await;
            let mut partial = self.0.partial.borrow_mut();
            if !more {
                return (!partial.is_empty()).then(|| std::mem::take(&mut *partial));
            }
            let (text, end) = console.since(self.0.position.get());
            partial.extend_from_slice(&text);
            self.0.position.set(end);
        }
    }
}

impl UserData for Lines {
    fn register(registry: &mut UserDataRegistry<Self>) {
        class::register(registry);
    }
}

impl Handle for Lines {
    const NAME: &'static str = "lines";

    fn define(class: &mut Class<Self>) -> mlua::Result<()> {
        class.waiting("lines:next", Results::One, async |lua: Lua, this: Self, _| {
            Ok(match this.next().await {
                Some(line) => Value::String(lua.create_string(line)?),
                None => Value::Nil,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_last_lines() {
        assert_eq!(tail(b"one\ntwo\nthree\n", 1), b"three\n");
        assert_eq!(tail(b"one\ntwo\nthree", 2), b"two\nthree");
        assert_eq!(tail(b"one\ntwo\n", 9), b"one\ntwo\n");
        assert_eq!(tail(b"one\n", 0), b"");
        assert_eq!(tail(b"", 3), b"");
    }
}
