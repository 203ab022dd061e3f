//! What goes wrong in a binding, and the table that a script sees of it.

use std::sync::Arc;

use mlua::{IntoLua, IntoLuaMulti, Lua, MultiValue, Table, Value};
use vmoon_core::{Code, Error, Vm};

use crate::trace::{self, Note};

/// The name under which the shared metatable of error tables is kept in Lua's registry.
const METATABLE: &str = "vmoon.error";

/// A failure on its way to the script.
#[derive(Debug)]
pub(crate) enum Fault {
    /// An error of vmoon's, to become a table.
    Error(Error),
    /// A value that Lua code raised, to be raised again as it is.
    Value(Value),
}

/// What a binding returns.
pub(crate) type Outcome<R> = Result<R, Fault>;

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<mlua::Error> for Fault {
    /// Failures of Lua itself: no memory, a value that cannot be converted.
    fn from(error: mlua::Error) -> Self {
        Self::Error(Error::new(Code::VmSpec, trace::first_line(&error)))
    }
}

impl Fault {
    /// The value to raise. An error becomes a table, which remembers where in the script it
    /// comes from and the machine that it is about.
    pub(crate) fn into_value(self, lua: &Lua, machine: Option<&Arc<Vm>>) -> Value {
        match self {
            Self::Value(value) => value,
            Self::Error(error) => match error_table(lua, &error) {
                Ok(table) => {
                    let note = Note::here(lua, machine);
                    if let Err(error) = trace::remember(lua, &table, note) {
                        tracing::debug!(%error, "an error's origin is lost");
                    }
                    Value::Table(table)
                }
                Err(_) => error.to_string().into_lua(lua).unwrap_or(Value::Nil),
            },
        }
    }
}

/// `{ code, message, hint, … }` with the shared metatable.
pub(crate) fn error_table(lua: &Lua, error: &Error) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    for (name, value) in error.details() {
        table.raw_set(*name, crate::convert::json_to_lua(lua, value)?)?;
    }
    table.raw_set("code", error.code().as_str())?;
    table.raw_set("message", error.full_message())?;
    if let Some(hint) = error.hint() {
        table.raw_set("hint", hint)?;
    }
    table.set_metatable(Some(metatable(lua)?))?;
    Ok(table)
}

fn metatable(lua: &Lua) -> mlua::Result<Table> {
    if let Value::Table(existing) = lua.named_registry_value(METATABLE)? {
        return Ok(existing);
    }
    let made = lua.create_table()?;
    made.raw_set("__name", METATABLE)?;
    made.raw_set("__tostring", lua.create_function(|_, table: Table| text(&table))?)?;
    made.raw_set(
        "__concat",
        lua.create_function(|lua, (left, right): (Value, Value)| {
            Ok(format!("{}{}", display(lua, &left)?, display(lua, &right)?))
        })?,
    )?;
    lua.set_named_registry_value(METATABLE, &made)?;
    Ok(made)
}

/// Whether `table` is one of vmoon's errors.
pub(crate) fn is_error_table(lua: &Lua, table: &Table) -> bool {
    table.metatable().is_some_and(|found| metatable(lua).is_ok_and(|ours| found == ours))
}

fn text(table: &Table) -> mlua::Result<String> {
    let code: Option<String> = table.raw_get("code")?;
    let message: Option<String> = table.raw_get("message")?;
    Ok(format!("{}: {}", code.unwrap_or_default(), message.unwrap_or_default()))
}

fn display(lua: &Lua, value: &Value) -> mlua::Result<String> {
    match value {
        Value::Table(table) if is_error_table(lua, table) => text(table),
        other => other.to_string(),
    }
}

/// The results of a binding in the form that the prelude's wrappers expect: the failure or nil,
/// then the results.
pub(crate) struct Reply<R>(Result<R, Value>);

impl<R> Reply<R> {
    pub(crate) fn new(lua: &Lua, outcome: Outcome<R>, machine: Option<&Arc<Vm>>) -> Self {
        Self(outcome.map_err(|fault| fault.into_value(lua, machine)))
    }
}

impl<R: IntoLuaMulti> IntoLuaMulti for Reply<R> {
    fn into_lua_multi(self, lua: &Lua) -> mlua::Result<MultiValue> {
        match self.0 {
            Ok(results) => {
                let mut values = results.into_lua_multi(lua)?;
                values.push_front(Value::Nil);
                Ok(values)
            }
            Err(failure) => Ok(MultiValue::from_vec(vec![failure])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_table_that_prints_itself() {
        let lua = Lua::new();
        let error = Error::new(Code::VsockRefused, "nobody listens on port 5")
            .with_hint("wait for it")
            .with_detail("port", 5);
        lua.globals().set("e", error_table(&lua, &error).unwrap()).unwrap();
        let check = r#"
            assert(e.code == "vsock.refused" and e.port == 5 and e.hint == "wait for it")
            assert(tostring(e) == "vsock.refused: nobody listens on port 5")
            assert("failed: " .. e == "failed: vsock.refused: nobody listens on port 5")
            assert(math.type(e.port) == "integer")
        "#;
        lua.load(check).exec().unwrap();
    }
}
