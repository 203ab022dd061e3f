//! The Lua sources that are part of vmoon, in `stdlib/prelude`.

use mlua::chunk::ChunkMode;
use mlua::{Function, Lua, Table};

/// Turns Rust functions into functions that raise.
const CLASS: &str = include_str!("../../stdlib/prelude/class.lua");
/// Lets coroutines of the script wait.
const COROUTINE: &str = include_str!("../../stdlib/prelude/coroutine.lua");
/// Lets the bodies of modules wait.
const REQUIRE: &str = include_str!("../../stdlib/prelude/require.lua");

/// Runs the prelude; the table of functions that the bindings use.
pub(crate) fn load(lua: &Lua) -> mlua::Result<Table> {
    chunk(lua, "=[vmoon coroutine]", COROUTINE)?.call::<()>(Lua::poll_pending())?;
    chunk(lua, "=[vmoon require]", REQUIRE)?.call::<()>(())?;
    chunk(lua, "=[vmoon class]", CLASS)?.call(())
}

fn chunk(lua: &Lua, name: &str, source: &str) -> mlua::Result<Function> {
    lua.load(source).set_name(name).set_mode(ChunkMode::Text).into_function()
}
