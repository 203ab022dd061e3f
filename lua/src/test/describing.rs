//! Functions for the words that describe tests, and for expectations.

use std::rc::Rc;
use std::time::Duration;

use mlua::{Lua, Table, Value};
use vmoon_core::{Code, Error};

use super::state::State;
use crate::arguments::{Arguments, wrong};
use crate::class::{Results, function};
use crate::context::Context;
use crate::fault::{Fault, Outcome, error_table};
use crate::options::Options;
use crate::trace::{self, Note};

/// The options of a test and of a block of tests.
const OPTIONS: &[&str] = &["timeout", "retries", "tags", "skip_unless"];

/// The code of an expectation that failed.
pub(super) const FAILED: &str = "test.failed";
/// The code of what ends a test as skipped.
pub(super) const SKIPPED: &str = "test.skipped";

/// How long `eventually` waits, and rests between two attempts.
const PATIENCE: Duration = Duration::from_secs(5);
const INTERVAL: Duration = Duration::from_millis(50);

pub(super) fn define(lua: &Lua, native: &Table, _: &Rc<State>) -> mlua::Result<()> {
    function(lua, native, "vmoon.test.options", Results::One, |lua, arguments| {
        options(lua, &arguments)
    })?;
    function(lua, native, "vmoon.test.text", Results::None, |_, arguments| {
        check(&arguments, "text", |value| matches!(value, Value::String(_)))
    })?;
    function(lua, native, "vmoon.test.callback", Results::None, |_, arguments| {
        check(&arguments, "a function", |value| matches!(value, Value::Function(_)))
    })?;
    function(lua, native, "vmoon.test.number", Results::None, |_, arguments| {
        check(&arguments, "a number", |value| matches!(value, Value::Integer(_) | Value::Number(_)))
    })?;
    function(lua, native, "vmoon.test.misuse", Results::None, |_, arguments| -> Outcome<()> {
        let message = arguments.text(0, "a message")?;
        let hint = arguments.text(1, "a hint")?;
        Err(Error::new(Code::VmSpec, message).with_hint(hint).into())
    })?;
    function(lua, native, "vmoon.test.line", Results::One, |lua, _| Ok(line(lua)))?;
    function(lua, native, "vmoon.test.skip", Results::None, |lua, arguments| -> Outcome<()> {
        let reason = arguments.text(0, "a reason")?;
        Err(Fault::Value(raised(lua, SKIPPED, &reason)?.into_value()))
    })?;
    function(lua, native, "vmoon.test.failed", Results::None, |lua, arguments| {
        failed(lua, &arguments)
    })?;
    function(lua, native, "vmoon.test.patience", Results::One, |lua, arguments| {
        let options = named(&arguments, 1, &["timeout", "interval"])?;
        let table = lua.create_table()?;
        for (key, default) in [("timeout", PATIENCE), ("interval", INTERVAL)] {
            table.raw_set(key, options.duration(key)?.unwrap_or(default).as_secs_f64())?;
        }
        Ok(table)
    })
}

/// The names under which users know the functions whose arguments are checked here.
const NAMES: &[&str] = &[
    "vmoon.test.describe",
    "vmoon.test.it",
    "vmoon.test.pending",
    "vmoon.test.before_all",
    "vmoon.test.before_each",
    "vmoon.test.after_each",
    "vmoon.test.after_all",
    "vmoon.test.invariant",
    "vmoon.test.subtest",
    "expect.matches",
    "expect.contains",
    "expect.error",
    "expect.near",
    "expect.eventually",
];

/// The user's name of the function that the first argument names.
fn user_name(arguments: &Arguments) -> Outcome<&'static str> {
    let word = arguments.text(0, "a word")?;
    let found = NAMES.iter().find(|name| {
        **name == word || name.strip_prefix("vmoon.test.").is_some_and(|name| name == word)
    });
    Ok(found.copied().unwrap_or("vmoon.test"))
}

/// Checks `(word, index, value)`.
fn check(arguments: &Arguments, wanted: &str, right: impl Fn(&Value) -> bool) -> Outcome<()> {
    let name = user_name(arguments)?;
    let index = arguments.count(1, Some(1))?;
    let value = arguments.value(2);
    if right(value) {
        return Ok(());
    }
    Err(wrong(&format!("argument {index} of {name}"), wanted, value).into())
}

/// The options at `index` of a function that the first argument names.
fn named(arguments: &Arguments, index: usize, keys: &'static [&'static str]) -> Outcome<Options> {
    let name = user_name(arguments)?;
    match arguments.value(index) {
        Value::Nil => Ok(Options::none(name)),
        Value::Table(table) => Options::new(name, table.clone(), keys),
        other => Err(wrong(&format!("the options of {name}"), "a table", other).into()),
    }
}

/// The options of a test or a block, checked; nil when there are none.
fn options(lua: &Lua, arguments: &Arguments) -> Outcome<Value> {
    if arguments.value(1).is_nil() {
        return Ok(Value::Nil);
    }
    let given = named(arguments, 1, OPTIONS)?;
    let table = lua.create_table()?;
    table.raw_set("timeout", given.duration("timeout")?.map(|limit| limit.as_secs_f64()))?;
    table.raw_set("retries", given.count("retries")?)?;
    for key in ["tags", "skip_unless"] {
        table.raw_set(key, words(&given, key)?)?;
    }
    for word in words(&given, "skip_unless")?.into_iter().flatten() {
        check_capability(lua, &word)?;
    }
    Ok(Value::Table(table))
}

/// A capability that does not exist is no reason to skip anything.
fn check_capability(lua: &Lua, word: &str) -> Outcome<()> {
    let context = Context::of(lua);
    // They have the same names everywhere.
    let Some(backend) = context.host.backends().first() else { return Ok(()) };
    let names = backend.capabilities().features().map(|(name, _)| name);
    if names.contains(&word) {
        return Ok(());
    }
    Err(Error::new(Code::VmSpec, format!("{word:?} in skip_unless is not a capability"))
        .with_hint(format!("the capabilities: {}", names.join(", ")))
        .into())
}

/// One word or a list of them.
fn words(options: &Options, key: &str) -> Outcome<Option<Vec<String>>> {
    const WANTED: &str = "a word, or a list of words";
    let refuse = |value: &Value| options.wrong(key, WANTED, value);
    match options.value(key)? {
        Value::Nil => Ok(None),
        Value::String(word) => Ok(Some(vec![word.to_string_lossy()])),
        Value::Table(list) => {
            let words = list.sequence_values::<Value>().map(|word| match word {
                Ok(Value::String(word)) => Ok(word.to_string_lossy()),
                other => Err(refuse(&other.unwrap_or(Value::Nil))),
            });
            Ok(Some(words.collect::<Result<_, _>>()?))
        }
        other => Err(refuse(&other).into()),
    }
}

/// The line of the script that is running: that of its innermost function, or where a module of
/// the user's runs for it, of that module.
fn line(lua: &Lua) -> usize {
    let frames = Note::here(lua, None).frames;
    let script = Context::of(lua).chunk.clone();
    let own = frames.iter().find(|frame| frame.chunk == script);
    own.or(frames.first()).map_or(0, |frame| frame.line)
}

/// An error table with a code that only tests have.
fn raised(lua: &Lua, code: &str, message: &str) -> mlua::Result<ErrorTable> {
    let table = error_table(lua, &Error::new(Code::VmSpec, message))?;
    table.raw_set("code", code)?;
    trace::remember(lua, &table, Note::here(lua, None))?;
    Ok(ErrorTable(table))
}

struct ErrorTable(Table);

impl ErrorTable {
    fn into_value(self) -> Value {
        Value::Table(self.0)
    }
}

/// Raises what an expectation found: `(note, message, expected, observed)`.
fn failed(lua: &Lua, arguments: &Arguments) -> Outcome<()> {
    let message = arguments.text(1, "a message")?;
    let message = match arguments.value(0) {
        Value::Nil => message,
        note => format!("{}: {message}", note.to_string().unwrap_or_default()),
    };
    let error = raised(lua, FAILED, &message)?;
    error.0.raw_set("expected", arguments.value(2).clone())?;
    error.0.raw_set("observed", arguments.value(3).clone())?;
    Err(Fault::Value(error.into_value()))
}
