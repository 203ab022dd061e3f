//! Where in the script an error comes from: the frames of the user's own functions.

use std::sync::Arc;

use mlua::{AnyUserData, Lua, Table, UserData, Value};
use vmoon_core::Vm;

use crate::machine::describe;

/// The name under which the notes of error tables are kept in Lua's registry: a table with weak
/// keys, from the error to its [`Note`].
const NOTES: &str = "vmoon.notes";

/// More frames than anybody reads; bounds the cost of an error deep in a recursion.
const MOST_FRAMES: usize = 64;

/// One frame of a user's function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The chunk's name as Lua keeps it: `@path`, or `=` and a title.
    pub chunk: String,
    /// The line that was running, from 1.
    pub line: usize,
    /// The function's name as its caller wrote it; none in the main part of a chunk.
    pub function: Option<String>,
    /// Whether this is the main part of a chunk.
    pub main: bool,
    /// The name of the function that this line was calling.
    pub callee: Option<String>,
}

/// What is known of an error beside its value.
#[derive(Clone, Debug, Default)]
pub(crate) struct Note {
    /// The user's frames, innermost first.
    pub(crate) frames: Vec<Frame>,
    /// The machine that the error is about, described as it was then.
    pub(crate) machine: Option<String>,
}

impl UserData for Note {}

impl Note {
    /// The frames of the coroutine that runs now, and the machine's state now.
    pub(crate) fn here(lua: &Lua, machine: Option<&Arc<Vm>>) -> Self {
        Self { frames: frames(lua), machine: machine.map(describe) }
    }
}

/// The user's frames of the coroutine that runs now, innermost first.
fn frames(lua: &Lua) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut callee = None;
    let mut user = false;
    for level in 0.. {
        let more = lua.inspect_stack(level, |debug| {
            let names = debug.names();
            let name = names.name.map(std::borrow::Cow::into_owned);
            // The name of a metamethod says nothing that the user wrote.
            let written = names.name_what != Some("metamethod") && names.name_what != Some("hook");
            let name = name.filter(|name| written && name != "?");
            let source = debug.source();
            let chunk = source.source.as_deref().unwrap_or_default();
            if source.what != "C"
                && !is_internal(chunk)
                && let Some(line) = debug.current_line()
            {
                frames.push(Frame {
                    chunk: chunk.to_owned(),
                    line,
                    function: name.clone(),
                    main: source.what == "main",
                    callee: callee.take(),
                });
            }
            // What vmoon's own code calls a function of the user's means nothing to the user.
            if is_internal(chunk)
                && let Some(called) = frames.last_mut().filter(|_| user)
            {
                called.function = None;
            }
            user = source.what != "C" && !is_internal(chunk);
            callee = name;
        });
        if more.is_none() || frames.len() >= MOST_FRAMES {
            break;
        }
    }
    frames
}

/// Whether the chunk is part of vmoon rather than of the script.
fn is_internal(chunk: &str) -> bool {
    chunk.starts_with("=[vmoon") || chunk.starts_with("=__mlua")
}

/// Keeps `note` for as long as the error lives, unless the error has one: the first is where it
/// was raised, later ones where it was raised again.
pub(crate) fn remember(lua: &Lua, error: &Table, note: Note) -> mlua::Result<()> {
    let notes = notes(lua)?;
    if notes.raw_get::<Value>(error)?.is_nil() {
        notes.raw_set(error, lua.create_userdata(note)?)?;
    }
    Ok(())
}

/// The note of an error table.
pub(crate) fn recall(lua: &Lua, error: &Table) -> Option<Note> {
    let note = notes(lua).ok()?.raw_get::<Option<AnyUserData>>(error).ok()??;
    note.borrow::<Note>().ok().map(|note| note.clone())
}

fn notes(lua: &Lua) -> mlua::Result<Table> {
    if let Value::Table(existing) = lua.named_registry_value(NOTES)? {
        return Ok(existing);
    }
    let made = lua.create_table()?;
    let weak = lua.create_table()?;
    weak.raw_set("__mode", "k")?;
    made.set_metatable(Some(weak))?;
    lua.set_named_registry_value(NOTES, &made)?;
    Ok(made)
}

/// The first line of an error of Lua's, without the frames that mlua adds.
pub(crate) fn first_line(error: &mlua::Error) -> String {
    let mut error = error;
    loop {
        match error {
            mlua::Error::CallbackError { cause, .. }
            | mlua::Error::WithContext { cause, .. }
            | mlua::Error::BadArgument { cause, .. } => error = cause,
            mlua::Error::RuntimeError(message)
            | mlua::Error::SyntaxError { message, .. }
            | mlua::Error::MemoryError(message) => {
                return message.lines().next().unwrap_or_default().to_owned();
            }
            other => return other.to_string().lines().next().unwrap_or_default().to_owned(),
        }
    }
}
