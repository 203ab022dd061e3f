//! Functions for the order of things: what is run, and what is told of it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mlua::{AnyUserData, Lua, Table, Value};

use super::attempt::{self, Ending};
use super::event::{Event, TestName};
use super::finish;
use super::state::State;
use crate::arguments::Arguments;
use crate::class::{Results, function, waiting};
use crate::context::Context;
use crate::fault::Outcome;
use vmoon_core::spec::MachineSpec;

pub(super) fn define(lua: &Lua, native: &Table, state: &Rc<State>) -> mlua::Result<()> {
    native.raw_set("retries", state.settings.retries)?;
    #[allow(clippy::cast_possible_wrap, reason = "a seed is any 64 bits")]
    native.raw_set("seed", state.settings.seed.map(|seed| seed as i64))?;
    let of = state.clone();
    function(lua, native, "vmoon.test.select", Results::One, move |_, arguments| {
        select(&of, &arguments)
    })?;
    let of = state.clone();
    function(lua, native, "vmoon.test.extra", Results::One, move |_, arguments| {
        Ok(add(&of, name(&of, &arguments)?))
    })?;
    function(lua, native, "vmoon.test.lacking", Results::One, |lua, arguments| {
        lacking(lua, &arguments)
    })?;
    let of = state.clone();
    function(lua, native, "vmoon.test.planned", Results::One, move |_, _| Ok(planned(&of)))?;
    let of = state.clone();
    function(lua, native, "vmoon.test.stopping", Results::One, move |_, _| {
        Ok(of.settings.is_stopping())
    })?;
    let of = state.clone();
    function(lua, native, "vmoon.test.begin_life", Results::None, move |_, _| {
        of.begin_life();
        Ok(())
    })?;
    let of = state.clone();
    function(lua, native, "vmoon.test.note", Results::None, move |_, arguments| {
        *of.note.borrow_mut() = match arguments.value(0) {
            Value::Nil => None,
            _ => Some(arguments.text(0, "a note")?),
        };
        Ok(())
    })?;
    let of = state.clone();
    waiting(lua, native, "vmoon.test.attempt", Results::Two, move |lua: Lua, arguments| {
        let state = of.clone();
        async move { attempt(&lua, &state, &arguments).await }
    })?;
    waiting(lua, native, "vmoon.test.sleep", Results::None, async |_, arguments: Arguments| {
        tokio::time::sleep(arguments.duration(0)?).await;
        Ok(())
    })?;
    finish::define(lua, native, state)
}

/// The test of `(path, line, tags)`.
fn name(state: &State, arguments: &Arguments) -> Outcome<TestName> {
    let path: Vec<String> = strings(&arguments.table(0, "a path")?)?;
    let mut tags = match arguments.value(2) {
        Value::Nil => Vec::new(),
        _ => strings(&arguments.table(2, "tags")?)?,
    };
    // As busted has it: a word of the name that begins with # is a tag.
    for part in &path {
        let marked = part.split_whitespace().filter_map(|word| word.strip_prefix('#'));
        tags.extend(marked.filter(|tag| !tag.is_empty()).map(str::to_owned));
    }
    Ok(TestName {
        file: state.settings.file.clone(),
        line: arguments.count(1, Some(0))?,
        path,
        tags,
    })
}

fn strings(table: &Table) -> Outcome<Vec<String>> {
    let strings = table.sequence_values::<mlua::LuaString>();
    Ok(strings.map(|text| Ok(text?.to_string_lossy())).collect::<mlua::Result<_>>()?)
}

fn add(state: &State, name: TestName) -> usize {
    let mut tests = state.tests.borrow_mut();
    tests.push(Arc::new(name));
    tests.len()
}

/// The number of a test that is selected.
fn select(state: &State, arguments: &Arguments) -> Outcome<Option<usize>> {
    let name = name(state, arguments)?;
    if state.settings.selection.has(&name) {
        return Ok(Some(add(state, name)));
    }
    state.deselected.set(state.deselected.get() + 1);
    Ok(None)
}

/// Why a test that needs these capabilities cannot run, if it cannot.
fn lacking(lua: &Lua, arguments: &Arguments) -> Outcome<Option<String>> {
    let wanted = strings(&arguments.table(0, "capabilities")?)?;
    if wanted.is_empty() {
        return Ok(None);
    }
    let context = Context::of(lua);
    let backend = match context.host.choose(context.backend.as_deref(), &MachineSpec::default()) {
        Ok(backend) => backend,
        Err(error) => return Ok(Some(error.message().to_owned())),
    };
    let capabilities = backend.capabilities();
    let features = capabilities.features();
    for word in wanted {
        let known = features.iter().find(|(name, _)| *name == word);
        let reason = known.and_then(|(_, capability)| capability.reason());
        if let Some(reason) = reason {
            return Ok(Some(format!("{} has no {word}: {reason}", backend.name())));
        }
    }
    Ok(None)
}

/// Tells what the file holds; whether it is to be run.
fn planned(state: &State) -> bool {
    let tests = state.tests.borrow();
    if state.settings.list {
        for test in tests.iter() {
            state.settings.tell(Event::Listed(test.clone()));
        }
    }
    state.settings.tell(Event::Planned {
        file: state.settings.file.clone(),
        tests: tests.len(),
        deselected: state.deselected.get(),
    });
    !state.settings.list
}

/// Calls `(body, timeout, phase)`; the failure, or the reason why it skipped.
async fn attempt(
    lua: &Lua,
    state: &Rc<State>,
    arguments: &Arguments,
) -> Outcome<(Option<AnyUserData>, Option<String>)> {
    let body = arguments.callback(0)?;
    let limit: Option<Duration> = match arguments.value(1) {
        Value::Nil => None,
        _ => Some(arguments.duration(1)?),
    };
    let phase = match arguments.value(2) {
        Value::Nil => "subtest".to_owned(),
        _ => arguments.text(2, "a phase")?,
    };
    Ok(match attempt::attempt(lua, state, body, limit, &phase).await? {
        Ending::Returned => (None, None),
        Ending::Skipped(reason) => (None, Some(reason)),
        Ending::Failed(kept) => (Some(lua.create_userdata(kept)?), None),
    })
}
