//! The Lua sources that are part of vmoon, in `stdlib/prelude`.

use std::rc::Rc;

use mlua::chunk::ChunkMode;
use mlua::{Function, Lua, Table, Value};

use crate::module;
use crate::stop::Stop;

/// Runs before every script.
const INIT: &str = include_str!("../../stdlib/prelude/init.lua");
/// Turns Rust functions into functions that raise.
const CLASS: &str = include_str!("../../stdlib/prelude/class.lua");
/// Lets coroutines of the script wait.
const COROUTINE: &str = include_str!("../../stdlib/prelude/coroutine.lua");
/// Lets the bodies of modules wait.
const REQUIRE: &str = include_str!("../../stdlib/prelude/require.lua");

/// Prepares Lua for scripts; the module `vmoon`.
pub(crate) fn init(lua: &Lua, stop: Rc<Stop>) -> mlua::Result<Table> {
    let vmoon = lua.create_table()?;
    let load = lua.create_function(load)?;
    let exit = lua.create_function(move |_, status: Value| {
        stop.exit(match status {
            Value::Nil | Value::Boolean(true) => 0,
            Value::Integer(status) => i32::try_from(status & 0xff).unwrap_or(1),
            _ => 1,
        });
        Ok(())
    })?;
    let fill = lua.create_function(|lua, vmoon: Table| module::fill(lua, &vmoon))?;
    chunk(lua, "=[vmoon init]", INIT)?.call::<()>((
        Lua::poll_pending(),
        load,
        exit,
        fill,
        &vmoon,
    ))?;
    Ok(vmoon)
}

/// The function of this name that stands in for one of Lua's.
fn load(lua: &Lua, (name, pending, resume): (String, Value, Function)) -> mlua::Result<Function> {
    if name == "require" {
        return chunk(lua, "=[vmoon require]", REQUIRE)?.call(());
    }
    let passing: Table = chunk(lua, "=[vmoon coroutine]", COROUTINE)?.call((pending, resume))?;
    passing.get(name)
}

/// The functions that make classes.
pub(crate) fn class(lua: &Lua) -> mlua::Result<Table> {
    chunk(lua, "=[vmoon class]", CLASS)?.call(())
}

fn chunk(lua: &Lua, name: &str, source: &str) -> mlua::Result<Function> {
    lua.load(source).set_name(name).set_mode(ChunkMode::Text).into_function()
}
