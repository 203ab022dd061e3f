//! What was meant by a name that is nil, which Lua does not ask itself.

use mlua::{Lua, Table, Value};

use crate::convert::nearest;

/// The hint for an error of Lua's about a nil value: a name near the one that was written.
/// `text` is the chunk in which it was, and `line` its line there.
pub(super) fn hint(lua: &Lua, message: &str, text: &str, line: &str) -> Option<String> {
    let (kind, name) = nil_name(message)?;
    let meant = match kind {
        "global" => global(lua, name, text)?,
        _ => member(lua, name, line)?,
    };
    Some(format!("did you mean '{meant}'?"))
}

/// The kind and the name in `attempt to index a nil value (global 'x')`.
fn nil_name(message: &str) -> Option<(&str, &str)> {
    let (_, what) = message.split_once("a nil value (")?;
    let (kind, rest) = what.split_once(" '")?;
    let (name, _) = rest.split_once('\'')?;
    matches!(kind, "global" | "field" | "method").then_some((kind, name))
}

/// A variable that the chunk has, or a global.
fn global(lua: &Lua, name: &str, text: &str) -> Option<String> {
    let names = keys(&lua.globals());
    let variables = text
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty() && *word != name);
    nearest(name, variables.chain(names.iter().map(String::as_str))).map(str::to_owned)
}

/// A function of the module that the line names.
fn member(lua: &Lua, name: &str, line: &str) -> Option<String> {
    let vmoon: Table = lua.globals().raw_get("vmoon").ok()?;
    for pair in vmoon.pairs::<Value, Value>().filter_map(Result::ok) {
        if let (Value::String(module), Value::Table(members)) = pair {
            let module = module.to_string_lossy();
            if line.contains(&format!("{module}.{name}")) {
                let names = keys(&members);
                let meant = nearest(name, names.iter().map(String::as_str))?;
                return Some(format!("vmoon.{module}.{meant}"));
            }
        }
    }
    let names = keys(&vmoon);
    let meant = nearest(name, names.iter().map(String::as_str))?;
    line.contains(&format!("vmoon.{name}")).then(|| format!("vmoon.{meant}"))
}

fn keys(table: &Table) -> Vec<String> {
    let names = table.pairs::<Value, Value>().filter_map(Result::ok).filter_map(|(key, _)| {
        if let Value::String(key) = key { Some(key.to_string_lossy()) } else { None }
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_found() {
        let lua = Lua::new();
        lua.load("vmoon = { boot = print, task = { spawn = print } }").exec().unwrap();
        let ask = |message: &str, text: &str| hint(&lua, message, text, text);
        let nil = |what: &str| format!("attempt to call a nil value ({what})");
        let meant = |name: &str| Some(format!("did you mean '{name}'?"));
        assert_eq!(ask(&nil("field 'bot'"), "vmoon.bot {}"), meant("vmoon.boot"));
        assert_eq!(ask(&nil("field 'spwan'"), "vmoon.task.spwan()"), meant("vmoon.task.spawn"));
        assert_eq!(ask(&nil("field 'bot'"), "own.bot {}"), None);
        assert_eq!(ask(&nil("global 'machne'"), "local machine machne()"), meant("machine"));
        assert_eq!(ask(&nil("global 'pirnt'"), "pirnt()"), meant("print"));
        assert_eq!(ask(&nil("global 'zebra'"), "zebra()"), None);
        assert_eq!(ask(&nil("local 'x'"), "x()"), None);
    }
}
