//! A conversation about a test that failed, while its machines are as it left them.

use std::rc::Rc;

use mlua::{Function, Lua, Table, Value};

use super::event::Event;
use super::finish;
use super::state::State;
use crate::arguments::Arguments;
use crate::class::{Results, waiting};
use crate::fault::Outcome;
use crate::machine;

/// The function of the program around the runtime that holds conversations about tests that
/// failed; see [`crate::Runtime::define_conversation`]. Where there is none, none are held. Tests
/// do not see it.
pub const CONVERSATION: &str = "conversation about a test";

pub(super) fn define(lua: &Lua, native: &Table, state: &Rc<State>) -> mlua::Result<()> {
    let globals = lua.globals();
    let Value::Function(converse) = globals.raw_get(CONVERSATION)? else { return Ok(()) };
    globals.raw_set(CONVERSATION, Value::Nil)?;
    let of = state.clone();
    waiting(lua, native, "vmoon.test.talk", Results::None, move |lua, arguments| {
        let (state, converse) = (of.clone(), converse.clone());
        async move { talk(&lua, &state, &arguments, &converse).await }
    })
}

/// Tells of `(number, result)`, and lets somebody look around.
async fn talk(lua: &Lua, state: &State, arguments: &Arguments, converse: &Function) -> Outcome<()> {
    let mut result = finish::result(state, arguments)?;
    result.output = String::from_utf8_lossy(&state.output.borrow()).into_owned();
    result.artifacts.clone_from(&state.artifacts.borrow());
    state.settings.tell(Event::Failing(Box::new(result)));
    let values = values(lua, state)?;
    converse.call_async::<()>(values).await?;
    Ok(())
}

/// `vm`, the first machine that is at hand, and `machines`, all of them.
fn values(lua: &Lua, state: &State) -> Outcome<Table> {
    let machines = lua.create_table()?;
    let at_hand = state.at_hand.borrow().clone();
    for vm in at_hand.into_iter().filter(|vm| !vm.is_closed()) {
        machines.raw_push(machine::value_of(lua, vm)?)?;
    }
    let values = lua.create_table()?;
    values.raw_set("vm", machines.raw_get::<Value>(1)?)?;
    values.raw_set("machines", machines)?;
    Ok(values)
}
