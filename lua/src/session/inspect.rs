//! Values as people read them: sorted tables, on one line where that is short.

use std::cmp::Ordering;
use std::fmt::Write as _;

use mlua::{Lua, Table, Value};

/// The longest table that stays on one line, in characters.
const WIDTH: usize = 80;

/// How deep tables are shown.
const DEPTH: usize = 6;

/// How many entries of a table are shown.
const ENTRIES: usize = 100;

/// How much of a string is shown, in bytes.
const STRING: usize = 16 << 10;

/// The value, as a chunk would write it where that is possible.
pub(super) fn inspect(lua: &Lua, value: &Value) -> String {
    if let Value::String(text) = value
        && let Ok(text) = text.to_str()
        && let Some(block) = block(&text)
    {
        return block;
    }
    Inspector { lua, open: Vec::new() }.value(value)
}

/// A text of several lines is easier to read between long brackets.
fn block(text: &str) -> Option<String> {
    let lines = text.trim_end_matches('\n').contains('\n');
    let plain = text.chars().all(|c| c == '\n' || c == '\t' || !c.is_control());
    (lines && plain && text.len() <= STRING && !text.contains("]]"))
        .then(|| format!("[[\n{text}]]"))
}

struct Inspector<'a> {
    lua: &'a Lua,
    /// The tables around the one that is shown.
    open: Vec<Table>,
}

impl Inspector<'_> {
    fn value(&mut self, value: &Value) -> String {
        match value {
            Value::String(text) => quote(&text.as_bytes()),
            Value::Table(table) => self.table(table),
            other => self.named(other),
        }
    }

    /// What `tostring` says.
    fn named(&self, value: &Value) -> String {
        let tostring = self.lua.globals().raw_get::<mlua::Function>("tostring");
        match tostring.and_then(|tostring| tostring.call::<mlua::LuaString>(value)) {
            Ok(text) => text.to_string_lossy(),
            Err(_) => format!("a {}", value.type_name()),
        }
    }

    fn table(&mut self, table: &Table) -> String {
        if self.open.contains(table) {
            return "<cycle>".to_owned();
        }
        if prints_itself(table) {
            return self.named(&Value::Table(table.clone()));
        }
        if self.open.len() == DEPTH {
            return if table.is_empty() { "{}" } else { "{ … }" }.to_owned();
        }
        self.open.push(table.clone());
        let entries = self.entries(table);
        self.open.pop();
        layout(&entries, self.open.len())
    }

    /// The entries of a table: its sequence, then all other keys, sorted.
    fn entries(&mut self, table: &Table) -> Vec<String> {
        let length = table.raw_len();
        let mut entries = Vec::new();
        for index in 1..=length.min(ENTRIES) {
            entries.push(self.value(&table.raw_get(index).unwrap_or(Value::Nil)));
        }
        let in_sequence = |key: &Value| {
            matches!(key, Value::Integer(key)
                if usize::try_from(*key).is_ok_and(|key| (1..=length).contains(&key)))
        };
        let mut others: Vec<(Value, Value)> = table
            .pairs::<Value, Value>()
            .filter_map(Result::ok)
            .filter(|(key, _)| !in_sequence(key))
            .collect();
        others.sort_by(|(left, _), (right, _)| self.order(left, right));
        let total = length + others.len();
        for (key, value) in others.into_iter().take(ENTRIES.saturating_sub(entries.len())) {
            let key = match &key {
                Value::String(name) if is_name(&name.as_bytes()) => name.to_string_lossy(),
                other => format!("[{}]", self.value(other)),
            };
            entries.push(format!("{key} = {}", self.value(&value)));
        }
        if total > entries.len() {
            entries.push(format!("… {} more", total - entries.len()));
        }
        entries
    }

    /// Numbers, then names, then anything else by what it is called.
    fn order(&self, left: &Value, right: &Value) -> Ordering {
        let rank = |value: &Value| match value {
            Value::Integer(_) | Value::Number(_) => 0,
            Value::String(_) => 1,
            _ => 2,
        };
        let number = |value: &Value| value.as_f64().unwrap_or_default();
        match (left, right) {
            (Value::String(left), Value::String(right)) => left.as_bytes().cmp(&right.as_bytes()),
            _ if rank(left) != rank(right) => rank(left).cmp(&rank(right)),
            _ if rank(left) == 0 => number(left).total_cmp(&number(right)),
            _ => self.named(left).cmp(&self.named(right)),
        }
    }
}

/// Whether `tostring` tells more than the keys would.
fn prints_itself(table: &Table) -> bool {
    table
        .metatable()
        .and_then(|meta| meta.raw_get::<Value>("__tostring").ok())
        .is_some_and(|method| !method.is_nil())
}

/// The entries in braces, on one line or on one each. `depth` is how many tables are around.
fn layout(entries: &[String], depth: usize) -> String {
    if entries.is_empty() {
        return "{}".to_owned();
    }
    let length: usize = entries.iter().map(|entry| entry.chars().count() + 2).sum();
    if length + 2 * depth + 2 <= WIDTH && !entries.iter().any(|entry| entry.contains('\n')) {
        return format!("{{ {} }}", entries.join(", "));
    }
    let mut text = "{\n".to_owned();
    for entry in entries {
        for line in entry.lines() {
            let _ = writeln!(text, "  {line}");
        }
        text.insert(text.len() - 1, ',');
    }
    text.push('}');
    text
}

/// A string as Lua reads it.
fn quote(bytes: &[u8]) -> String {
    let mut text = "\"".to_owned();
    for chunk in bytes[..bytes.len().min(STRING)].utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => text.extend(['\\', c]),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                c if c.is_control() => {
                    let _ = write!(text, "\\u{{{:x}}}", u32::from(c));
                }
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text.push('"');
    if bytes.len() > STRING {
        let _ = write!(text, " … {} more bytes", bytes.len() - STRING);
    }
    text
}

fn is_name(bytes: &[u8]) -> bool {
    let letter = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    bytes.first().is_some_and(letter)
        && bytes.iter().all(|byte| letter(byte) || byte.is_ascii_digit())
        && std::str::from_utf8(bytes).is_ok_and(|name| !super::complete::KEYWORDS.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn shows(code: &str, expected: &str) {
        let lua = Lua::new();
        let value = lua.load(code).eval::<Value>().unwrap();
        assert_eq!(inspect(&lua, &value), expected, "{code}");
    }

    #[test]
    fn tables_are_sorted_and_short_ones_stay_on_a_line() {
        shows("{ b = 2, a = 1, 'x', [10] = true }", r#"{ "x", [10] = true, a = 1, b = 2 }"#);
        shows("{}", "{}");
        shows("{ ['end'] = 1, ['a b'] = 2 }", r#"{ ["a b"] = 2, ["end"] = 1 }"#);
        shows("{ a = { b = {} } }", "{ a = { b = {} } }");
    }

    #[test]
    fn long_ones_have_a_line_for_each_entry() {
        shows(
            "{ a = ('x'):rep(50), b = { c = ('y'):rep(30) } }",
            &format!(
                "{{\n  a = \"{}\",\n  b = {{ c = \"{}\" }},\n}}",
                "x".repeat(50),
                "y".repeat(30)
            ),
        );
    }

    #[test]
    fn cycles_and_depths_end() {
        shows("(function() local t = {} t.t = t return t end)()", "{ t = <cycle> }");
        shows(
            "(function() local t = {} for _ = 1, 50 do t = { t } end return t end)()",
            "{ { { { { { { … } } } } } } }",
        );
        shows("(function() local x = { 1 } return { x, x } end)()", "{ { 1 }, { 1 } }");
    }

    #[test]
    fn strings_are_quoted_and_texts_of_lines_are_blocks() {
        shows(r#""a\"b\\c\n\0\xff""#, r#""a\"b\\c\n\u{0}\xff""#);
        shows(r#""one\ntwo\n""#, "[[\none\ntwo\n]]");
        shows("'grün'", "\"grün\"");
        shows("nil", "nil");
        shows("1.5", "1.5");
    }

    #[test]
    fn a_long_table_is_cut() {
        let lua = Lua::new();
        let value = lua
            .load("local t = {} for i = 1, 250 do t[i] = i end return t")
            .eval::<Value>()
            .unwrap();
        assert!(inspect(&lua, &value).ends_with("  100,\n  … 150 more,\n}"));
    }

    #[test]
    fn what_prints_itself_does() {
        shows("setmetatable({ x = 1 }, { __tostring = function() return 'me' end })", "me");
    }
}
