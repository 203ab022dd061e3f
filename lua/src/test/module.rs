//! Loads the Lua sources of `vmoon.test`, when something is first asked of it.

use std::rc::Rc;

use mlua::chunk::ChunkMode;
use mlua::{Function, Lua, MultiValue, Table};

use super::state::State;
use super::{bundle, describing, machines, output, running, talking};
use crate::context::Context;

const SOURCES: &[(&str, &str)] = &[
    ("init", include_str!("../../../stdlib/test/init.lua")),
    ("words", include_str!("../../../stdlib/test/words.lua")),
    ("steps", include_str!("../../../stdlib/test/steps.lua")),
    ("show", include_str!("../../../stdlib/test/show.lua")),
    ("expect", include_str!("../../../stdlib/test/expect.lua")),
    ("fixture", include_str!("../../../stdlib/test/fixture.lua")),
    ("run", include_str!("../../../stdlib/test/run.lua")),
];

/// The module, which is filled when something is asked of it.
pub(crate) fn make(lua: &Lua) -> mlua::Result<Table> {
    let module = lua.create_table()?;
    let fill = lua.create_function(|lua, module: Table| fill(lua, &module))?;
    // The same way in which `vmoon` itself is filled, in `stdlib/prelude/init.lua`.
    let lazy = "local module, fill = ...
        local function whole() setmetatable(module, nil) fill(module) return module end
        return setmetatable(module, {
          __index = function(_, key) return rawget(whole(), key) end,
          __pairs = function() return pairs(whole()) end,
        })";
    chunk(lua, "lazy", lazy)?.call((module, fill))
}

fn fill(lua: &Lua, module: &Table) -> mlua::Result<()> {
    let state = Rc::new(State::new(lua));
    let native = lua.create_table()?;
    describing::define(lua, &native, &state)?;
    running::define(lua, &native, &state)?;
    machines::define(lua, &native, &state)?;
    bundle::define(lua, &native, &state)?;
    talking::define(lua, &native, &state)?;
    output::capture(lua, &state)?;
    let load = lua.create_function(|lua, (name, arguments): (String, MultiValue)| {
        let source = SOURCES.iter().find(|(known, _)| *known == name);
        let (_, source) = source.ok_or_else(|| mlua::Error::runtime(format!("no file {name}")))?;
        chunk(lua, &name, source)?.call::<MultiValue>(arguments)
    })?;
    let (filled, run): (Table, Function) = load.call(("init", native, &load))?;
    for pair in filled.pairs::<String, mlua::Value>() {
        let (name, value) = pair?;
        module.raw_set(name, value)?;
    }
    *Context::of(lua).test_runner.borrow_mut() = Some(run);
    Ok(())
}

fn chunk(lua: &Lua, name: &str, source: &str) -> mlua::Result<Function> {
    lua.load(source)
        .set_name(format!("=[vmoon test.{name}]"))
        .set_mode(ChunkMode::Text)
        .into_function()
}

/// What runs the tests that the script described; none when it described none.
pub(crate) fn runner(context: &Context) -> Option<Function> {
    context.tests.as_ref()?;
    context.test_runner.borrow_mut().take()
}
