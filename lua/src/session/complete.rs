//! What a name that somebody has begun to type may become.

use std::collections::BTreeSet;

use mlua::{AnyUserData, Lua, ObjectLike, Table, Value};

use super::Session;
use crate::context::Context;

/// The words of Lua that are no names.
pub const KEYWORDS: [&str; 22] = [
    "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in",
    "local", "nil", "not", "or", "repeat", "return", "then", "true", "until", "while",
];

/// How many tables behind a table are asked for what it does not have.
const PARENTS: usize = 8;

impl Session {
    /// The whole names that the last one of `text`, which ends where the cursor is, may become:
    /// globals and keywords, or after `.` and `:` what the object there has. Nothing is called.
    pub fn complete(&self, text: &str) -> Vec<String> {
        let lua = &self.0.lua;
        let (path, begun) = split(text);
        let globals = Value::Table(lua.globals());
        let mut names = BTreeSet::new();
        if path.is_empty() {
            names.extend(KEYWORDS.map(str::to_owned));
            names_of(lua, &globals, false, &mut names);
        } else if let Some(object) = resolve(&globals, &path) {
            let methods = text[..text.len() - begun.len()].ends_with(':');
            names_of(lua, &object, methods, &mut names);
        }
        names.into_iter().filter(|name| name.starts_with(begun)).collect()
    }
}

/// Splits the end of `text` into the names before the last `.` or `:`, and what follows it.
fn split(text: &str) -> (Vec<&str>, &str) {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.' || c == ':';
    let start = text.rfind(|c| !part(c)).map_or(0, |at| at + 1);
    // `..` joins strings; what stands behind it is a new expression.
    let start = text[start..].rfind("..").map_or(start, |at| start + at + 2);
    let mut names: Vec<&str> = text[start..].split(['.', ':']).collect();
    let begun = names.pop().unwrap_or_default();
    (names, begun)
}

/// The value of `a.b.c`, if it is found without calling anything of the user's.
fn resolve(globals: &Value, path: &[&str]) -> Option<Value> {
    let mut value = globals.clone();
    for name in path {
        value = match &value {
            Value::Table(table) => member(table, name)?,
            Value::UserData(object) => object.get::<Value>(*name).ok()?,
            _ => return None,
        };
    }
    Some(value)
}

/// A member of a table or of the tables behind it.
fn member(table: &Table, name: &str) -> Option<Value> {
    let mut table = table.clone();
    for _ in 0..PARENTS {
        match table.raw_get::<Value>(name).ok()? {
            Value::Nil => table = parent(&table)?,
            found => return Some(found),
        }
    }
    None
}

fn parent(table: &Table) -> Option<Table> {
    table.metatable()?.raw_get::<Option<Table>>("__index").ok()?
}

fn names_of(lua: &Lua, value: &Value, methods: bool, names: &mut BTreeSet<String>) {
    match value {
        Value::Table(table) => {
            let mut next = Some(table.clone());
            for _ in 0..PARENTS {
                let Some(table) = next else { break };
                keys(&table, methods, names);
                next = parent(&table);
            }
        }
        Value::String(_) => {
            if let Ok(library) = lua.globals().raw_get::<Table>("string") {
                keys(&library, true, names);
            }
        }
        Value::UserData(object) => {
            if let Some(name) = class_of(object)
                && let Some(members) = Context::of(lua).classes.borrow().get(name.as_str())
            {
                keys(&members.methods, false, names);
                if !methods {
                    keys(&members.getters, false, names);
                }
            }
        }
        _ => {}
    }
}

/// The keys of a table that can stand behind a dot; only those of functions with `functions`.
fn keys(table: &Table, functions: bool, names: &mut BTreeSet<String>) {
    for (key, value) in table.pairs::<Value, Value>().filter_map(Result::ok) {
        if let Value::String(key) = &key
            && (!functions || value.is_function())
            && key.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        {
            names.insert(key.to_string_lossy());
        }
    }
}

/// The name of an object's class.
pub(super) fn class_of(object: &AnyUserData) -> Option<String> {
    object.metatable().ok()?.get::<String>("__name").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_expression_is_split() {
        assert_eq!(split("vmoon.task.sp"), (vec!["vmoon", "task"], "sp"));
        assert_eq!(split("x = vm:ex"), (vec!["vm"], "ex"));
        assert_eq!(split("print(vm.co"), (vec!["vm"], "co"));
        assert_eq!(split("pr"), (vec![], "pr"));
        assert_eq!(split("a..b.c"), (vec!["b"], "c"));
        assert_eq!(split(""), (vec![], ""));
    }
}
