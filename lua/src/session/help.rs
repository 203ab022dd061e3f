//! `help(…)`: what is documented of a value or a name.

use std::fmt::Write as _;

use mlua::{Lua, MultiValue, Table, Value};

use super::complete::class_of;
use crate::context::Context;
use crate::types::Documentation;

/// Prints what is documented of its argument, or where to begin.
pub(super) fn help(lua: &Lua, arguments: &MultiValue) -> mlua::Result<()> {
    let documentation = Documentation::shipped();
    let text = match arguments.front() {
        None => documentation.overview(),
        Some(Value::String(topic)) => about(&documentation, &topic.to_string_lossy()),
        Some(Value::UserData(object)) => class_of(object)
            .and_then(|class| documentation.about_object(&class))
            .unwrap_or_else(|| unknown("object")),
        Some(value) => match name_of(lua, value)? {
            Some(name) => about(&documentation, &name),
            None => unknown(value.type_name()),
        },
    };
    let print: mlua::Function = lua.globals().raw_get("print")?;
    print.call(text)
}

fn unknown(kind: &str) -> String {
    format!("nothing is documented of this {kind}; help() tells where to begin")
}

fn about(documentation: &Documentation, topic: &str) -> String {
    documentation.about(topic).unwrap_or_else(|nearest| {
        let mut text = format!("nothing is documented of {topic:?}");
        if let Some(nearest) = nearest {
            let _ = write!(text, "; did you mean {nearest:?}?");
        }
        text.push_str("\nhelp() tells where to begin");
        text
    })
}

/// The name under which a value is documented.
fn name_of(lua: &Lua, value: &Value) -> mlua::Result<Option<String>> {
    match value {
        Value::Table(_) => Ok(modules(lua)?
            .into_iter()
            .find_map(|(name, module)| (&Value::Table(module) == value).then_some(name))),
        Value::Function(_) => {
            for (name, module) in modules(lua)? {
                if let Some(key) = key_of(&module, value) {
                    return Ok(Some(format!("{name}.{key}")));
                }
            }
            let classes = Context::of(lua).classes.borrow().clone();
            Ok(classes.iter().find_map(|(name, members)| {
                key_of(&members.methods, value).map(|key| format!("{name}:{key}"))
            }))
        }
        _ => Ok(None),
    }
}

/// The modules that are vmoon's, by name.
fn modules(lua: &Lua) -> mlua::Result<Vec<(String, Table)>> {
    let mut found = Vec::new();
    let vmoon: Table =
        lua.globals().raw_get::<Table>("package")?.raw_get::<Table>("loaded")?.raw_get("vmoon")?;
    for pair in vmoon.pairs::<Value, Value>() {
        if let (Value::String(name), Value::Table(module)) = pair? {
            found.push((format!("vmoon.{}", name.to_string_lossy()), module));
        }
    }
    found.insert(0, ("vmoon".to_owned(), vmoon));
    Ok(found)
}

fn key_of(table: &Table, value: &Value) -> Option<String> {
    table.pairs::<Value, Value>().filter_map(Result::ok).find_map(|(key, found)| match key {
        Value::String(key) if found == *value => Some(key.to_string_lossy()),
        _ => None,
    })
}
