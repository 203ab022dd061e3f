//! A new Lua with everything that scripts expect in it.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashSet;
use std::path::Path;
use std::rc::Rc;

use mlua::{Function, Lua, MultiValue, Table, Value};

use super::raised;
use super::{Config, Script};
use crate::context::Context;
use crate::prelude;
use crate::report::Sources;
use crate::stop::Stop;

/// Makes `lua` ready for the script.
pub(super) fn prepare(
    lua: &Lua,
    config: &Config,
    stop: Rc<Stop>,
    script: &Script,
) -> mlua::Result<()> {
    let globals = lua.globals();
    let machines = lua.create_table()?;
    let weak = lua.create_table()?;
    weak.raw_set("__mode", "v")?;
    machines.set_metatable(Some(weak))?;
    let string: Table = globals.raw_get("string")?;
    lua.set_app_data(Rc::new(Context {
        host: config.host.clone(),
        backend: config.backend.clone(),
        classes: RefCell::default(),
        class: OnceCell::new(),
        xpcall: globals.raw_get("xpcall")?,
        find: string.raw_get("find")?,
        handler: raised::task_handler(lua)?,
        stop: stop.clone(),
        machines,
        remains: Rc::default(),
        origins: RefCell::default(),
        unseen: RefCell::default(),
        closing: RefCell::new(HashSet::new()),
        live: Cell::new(true),
        chunk: script.chunk().to_owned(),
        sources: RefCell::new(Sources::new(script)),
        tests: config.tests.clone(),
        test_runner: RefCell::default(),
    }));
    globals.raw_set("vmoon", prelude::init(lua, stop)?)?;
    let package: Table = globals.raw_get("package")?;
    globals.raw_set("arg", arguments(lua, script)?)?;
    if let Some(folder) = script.folder() {
        search_beside(&package, folder)?;
    }
    debug(lua, &globals, &package)
}

fn arguments(lua: &Lua, script: &Script) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set(0, script.name())?;
    for (index, argument) in script.arguments().iter().enumerate() {
        table.raw_set(index + 1, lua.create_string(argument)?)?;
    }
    Ok(table)
}

/// Lets `require` look beside the script before anywhere else.
fn search_beside(package: &Table, folder: &Path) -> mlua::Result<()> {
    let folder = folder.display().to_string();
    // These have a meaning in a search path.
    if folder.contains([';', '?']) {
        return Ok(());
    }
    let path: String = package.raw_get("path")?;
    package.raw_set("path", format!("{folder}/?.lua;{folder}/?/init.lua;{path}"))
}

/// Lua's `debug` is not safe to embed whole; error handlers want its `traceback`.
fn debug(lua: &Lua, globals: &Table, package: &Table) -> mlua::Result<()> {
    let debug = lua.create_table()?;
    let traceback = lua.create_function(|lua, values: MultiValue| {
        let message = values.front().cloned().unwrap_or(Value::Nil);
        let level = values.get(1).and_then(Value::as_usize).unwrap_or(1);
        match &message {
            Value::Nil => lua.traceback(None, level).map(Value::String),
            Value::String(text) => {
                lua.traceback(Some(&text.to_string_lossy()), level).map(Value::String)
            }
            _ => Ok(message),
        }
    })?;
    debug.raw_set("traceback", traceback)?;
    package.raw_get::<Table>("loaded")?.raw_set("debug", &debug)?;
    globals.raw_set("debug", debug)
}

/// Writes out what the script has written, so that it comes before what follows.
pub(crate) fn flush(lua: &Lua) {
    let flushed = lua.globals().raw_get::<Table>("io").and_then(|io| {
        let stdout: Value = io.raw_get("stdout")?;
        let Value::UserData(file) = &stdout else { return Ok(()) };
        mlua::ObjectLike::get::<Function>(file, "flush")?.call::<()>(stdout)
    });
    if let Err(error) = flushed {
        tracing::debug!(%error, "standard output could not be flushed");
    }
}
