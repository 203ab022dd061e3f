//! What went wrong in a script, for people.

use std::time::Duration;

use mlua::{Lua, Table, Value};

use crate::runtime::Script;
use crate::trace::{Frame, Note, first_line};

mod meant;
mod place;
mod render;
mod sources;

pub use place::Place;
pub use sources::Sources;

/// One error with everything that is known about it. `Display` paints it without colours;
/// [`Report::paint`] with.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The code of a structured error.
    pub code: Option<String>,
    /// What happened.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The end of what a failed command printed.
    pub output: Option<String>,
    /// The line of the script that it is about.
    pub place: Option<Place>,
    /// The user's frames, innermost first.
    pub frames: Vec<Frame>,
    /// The machine that it is about, in one line.
    pub machine: Option<String>,
    /// More to say, each in one line.
    pub notes: Vec<String>,
}

impl Report {
    /// The report of a value that a script raised.
    pub(crate) fn new(lua: &Lua, value: &Value, note: Note, sources: &mut Sources) -> Self {
        let mut report = Self { frames: note.frames, machine: note.machine, ..Self::default() };
        let mut key = None;
        let mut position = None;
        match value {
            Value::Table(table) if report.read(table) => key = field(table, "key"),
            Value::String(text) => {
                let text = text.to_string_lossy();
                let (found, message) = place::split_position(&text, &report.frames, sources);
                position = found;
                message.clone_into(&mut report.message);
            }
            Value::Error(error) => report.message = first_line(error),
            other => report.message = shown(lua, other),
        }
        report.place =
            place::find(position, &report.frames, key.as_deref(), &report.message, sources);
        if let (Value::String(_), Some(place)) = (value, &report.place)
            && let Some(chunk) = sources.chunk_shown_as(&place.name)
        {
            let text = sources.text(&chunk).unwrap_or_default();
            let line = place.text.as_deref().unwrap_or_default();
            report.hint = meant::hint(lua, &report.message, text, line);
        }
        report
    }

    /// Reads the fields of a structured error, vmoon's or the user's own.
    fn read(&mut self, table: &Table) -> bool {
        let Some(message) = field(table, "message") else { return false };
        self.message = message;
        self.code = field(table, "code");
        self.hint = field(table, "hint");
        self.output = field(table, "output").filter(|output| !output.is_empty());
        true
    }

    /// The report of a script that is not Lua.
    pub(crate) fn syntax(error: &mlua::Error, script: &Script, sources: &mut Sources) -> Self {
        Self::syntax_of(error, script.chunk(), sources)
    }

    /// The report of a chunk that is not Lua.
    pub(crate) fn syntax_of(error: &mlua::Error, chunk: &str, sources: &mut Sources) -> Self {
        let text = first_line(error);
        let frame =
            Frame { chunk: chunk.to_owned(), line: 1, function: None, main: true, callee: None };
        let (position, message) =
            place::split_position(&text, std::slice::from_ref(&frame), sources);
        let place = place::find(position, &[], None, message, sources);
        Self { message: message.to_owned(), place, ..Self::default() }
    }

    /// The report of a script that ran too long.
    pub(crate) fn timeout(limit: Duration, note: Option<Note>, sources: &mut Sources) -> Self {
        let frames = note.map(|note| note.frames).unwrap_or_default();
        let message = format!("the script did not end within {limit:?}");
        let place = place::find(None, &frames, None, &message, sources);
        Self {
            code: Some("vm.timeout".to_owned()),
            message,
            hint: Some("--timeout is the limit for the whole script".to_owned()),
            place,
            frames,
            ..Self::default()
        }
    }

    /// The report of an error that did not come from a script.
    pub fn of_error(error: &vmoon_core::Error) -> Self {
        Self {
            code: Some(error.code().to_string()),
            message: error.full_message(),
            hint: error.hint().map(str::to_owned),
            ..Self::default()
        }
    }
}

/// A text or a number in a table, as text.
fn field(table: &Table, name: &str) -> Option<String> {
    match table.raw_get(name).ok()? {
        Value::String(text) => Some(text.to_string_lossy()),
        Value::Integer(number) => Some(number.to_string()),
        _ => None,
    }
}

/// What `tostring` says.
fn shown(lua: &Lua, value: &Value) -> String {
    let text = lua
        .globals()
        .raw_get::<mlua::Function>("tostring")
        .and_then(|tostring| tostring.call::<mlua::LuaString>(value));
    match text {
        Ok(text) => text.to_string_lossy(),
        Err(_) => format!("a {}", value.type_name()),
    }
}
