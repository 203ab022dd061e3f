//! What tests print: kept with their results where tests run side by side.

use std::rc::Rc;

use mlua::{Function, Lua, MultiValue, Table, Value};

use super::state::State;

/// The most that is kept of what one test prints.
const MOST: usize = 1 << 20;

/// Lets `print` and `io.write` write to the result of the test that runs.
pub(super) fn capture(lua: &Lua, state: &Rc<State>) -> mlua::Result<()> {
    if !state.settings.capture {
        return Ok(());
    }
    let globals = lua.globals();
    let tostring: Function = globals.raw_get("tostring")?;
    let output = state.output.clone();
    let print = lua.create_function(move |_, values: MultiValue| {
        let mut line = Vec::new();
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                line.push(b'\t');
            }
            line.extend_from_slice(&tostring.call::<mlua::LuaString>(value)?.as_bytes());
        }
        line.push(b'\n');
        append(&mut output.borrow_mut(), &line);
        Ok(())
    })?;
    globals.raw_set("print", print)?;
    let io: Table = globals.raw_get("io")?;
    let (output, file) = (state.output.clone(), io.raw_get::<Value>("stdout")?);
    let write = lua.create_function(move |_, values: MultiValue| {
        for value in &values {
            match value {
                Value::String(text) => append(&mut output.borrow_mut(), &text.as_bytes()),
                Value::Integer(_) | Value::Number(_) => {
                    append(&mut output.borrow_mut(), value.to_string()?.as_bytes());
                }
                other => {
                    return Err(mlua::Error::runtime(format!(
                        "bad argument to 'write' (string expected, got {})",
                        other.type_name()
                    )));
                }
            }
        }
        Ok(file.clone())
    })?;
    io.raw_set("write", write)
}

fn append(output: &mut Vec<u8>, bytes: &[u8]) {
    let room = MOST.saturating_sub(output.len());
    output.extend_from_slice(&bytes[..bytes.len().min(room)]);
}
