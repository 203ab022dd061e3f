//! Values between Rust and Lua.

use mlua::{IntoLua, Lua, Value};

/// A JSON value as Lua sees it. Null becomes nil; whole numbers become integers.
pub(crate) fn json_to_lua(lua: &Lua, value: &serde_json::Value) -> mlua::Result<Value> {
    use serde_json::Value as Json;
    match value {
        Json::Null => Ok(Value::Nil),
        Json::Bool(value) => Ok(Value::Boolean(*value)),
        Json::Number(number) => Ok(number
            .as_i64()
            .map(Value::Integer)
            .or_else(|| number.as_f64().map(Value::Number))
            .unwrap_or(Value::Nil)),
        Json::String(text) => text.as_str().into_lua(lua),
        Json::Array(items) => {
            let table = lua.create_table()?;
            for item in items {
                table.raw_push(json_to_lua(lua, item)?)?;
            }
            Ok(Value::Table(table))
        }
        Json::Object(fields) => {
            let table = lua.create_table()?;
            for (name, field) in fields {
                table.raw_set(name.as_str(), json_to_lua(lua, field)?)?;
            }
            Ok(Value::Table(table))
        }
    }
}

/// A count that Rust keeps unsigned. Lua's integers hold 63 bits, far more than any of these.
pub(crate) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// What a value is, for messages: its type, and the value itself where that is short.
pub(crate) fn kind(value: &Value) -> String {
    match value {
        Value::Nil => "nothing".to_owned(),
        Value::Boolean(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::String(text) if text.as_bytes().len() <= 40 => {
            format!("{:?}", text.to_string_lossy())
        }
        other => format!("a {}", other.type_name()),
    }
}

/// The words of `known` that `word` may have been meant to be: at most two edits away.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        // Of two that are as near, the one that goes on where the word ends.
        .map(|candidate| (edits(word, candidate), !candidate.starts_with(word), candidate))
        .filter(|(edits, _, candidate)| *edits <= 2 && *edits < candidate.len())
        .min()
        .map(|(.., candidate)| candidate)
}

/// The number of letters inserted, removed, changed or swapped with a neighbour (the optimal
/// string alignment distance) between two words.
fn edits(left: &str, right: &str) -> usize {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    let mut rows = vec![(0..=right.len()).collect::<Vec<_>>()];
    for i in 1..=left.len() {
        let mut row = vec![i];
        for j in 1..=right.len() {
            let changed = rows[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
            let mut best = changed.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typos_find_the_word_that_was_meant() {
        let known = ["exec", "spawn", "snapshot", "snapshots", "cpus"];
        assert_eq!(nearest("exce", known), Some("exec"));
        assert_eq!(nearest("cpuz", known), Some("cpus"));
        assert_eq!(nearest("snapshto", known), Some("snapshot"));
        assert_eq!(nearest("banana", known), None);
        assert_eq!(nearest("stat", ["start", "state"]), Some("state"));
    }
}
