//! Tables of options: every key is known, every value checked.

use std::path::PathBuf;
use std::time::Duration;

use mlua::{LuaString, Table, Value};
use vmoon_core::{Bytes, Code, Error};

use crate::arguments::{duration, size, whole, wrong};
use crate::convert::nearest;
use crate::fault::Outcome;

/// The options of one call.
#[derive(Debug)]
pub(crate) struct Options {
    function: &'static str,
    table: Option<Table>,
}

impl Options {
    /// No options: every value is absent.
    pub(crate) fn none(function: &'static str) -> Self {
        Self { function, table: None }
    }

    /// The options in `table`, which may have no other keys than `keys`.
    ///
    /// # Errors
    /// `vm.spec`, naming the unknown key and listing the valid ones.
    pub(crate) fn new(
        function: &'static str,
        table: Table,
        keys: &'static [&'static str],
    ) -> Outcome<Self> {
        for pair in table.pairs::<Value, Value>() {
            let (key, _) = pair?;
            let known = match &key {
                Value::String(name) => keys.iter().any(|key| name.as_bytes() == key.as_bytes()),
                _ => false,
            };
            if !known {
                return Err(unknown(function, &key, keys).into());
            }
        }
        Ok(Self { function, table: Some(table) })
    }

    /// The function that takes the options, for messages.
    pub(crate) fn function(&self) -> &'static str {
        self.function
    }

    /// The option's value; nil when it is absent.
    pub(crate) fn value(&self, key: &str) -> Outcome<Value> {
        match &self.table {
            None => Ok(Value::Nil),
            Some(table) => Ok(table.get(key)?),
        }
    }

    /// The error of a wrong value.
    pub(crate) fn wrong(&self, key: &str, wanted: &str, value: &Value) -> Error {
        wrong(&format!("option '{key}' of {}", self.function), wanted, value)
            .with_detail("key", key)
    }

    /// A string of any bytes.
    pub(crate) fn string(&self, key: &str) -> Outcome<Option<LuaString>> {
        match self.value(key)? {
            Value::Nil => Ok(None),
            Value::String(text) => Ok(Some(text)),
            other => Err(self.wrong(key, "a string", &other).into()),
        }
    }

    /// A string of UTF-8 text.
    pub(crate) fn text(&self, key: &str) -> Outcome<Option<String>> {
        let Some(text) = self.string(key)? else { return Ok(None) };
        let text = text
            .to_str()
            .map_err(|_| self.wrong(key, "UTF-8 text", &Value::String(text.clone())))?;
        Ok(Some(text.to_owned()))
    }

    /// A path of the host.
    pub(crate) fn path(&self, key: &str) -> Outcome<Option<PathBuf>> {
        use std::os::unix::ffi::OsStringExt;
        let path = self.string(key)?;
        Ok(path.map(|path| std::ffi::OsString::from_vec(path.as_bytes().to_vec()).into()))
    }

    /// True or false.
    pub(crate) fn flag(&self, key: &str) -> Outcome<Option<bool>> {
        match self.value(key)? {
            Value::Nil => Ok(None),
            Value::Boolean(value) => Ok(Some(value)),
            other => Err(self.wrong(key, "true or false", &other).into()),
        }
    }

    /// A whole number from 0.
    pub(crate) fn count(&self, key: &str) -> Outcome<Option<u64>> {
        match self.value(key)? {
            Value::Nil => Ok(None),
            other => match whole(&other).and_then(|value| u64::try_from(value).ok()) {
                Some(value) => Ok(Some(value)),
                None => Err(self.wrong(key, "a whole number from 0", &other).into()),
            },
        }
    }

    /// A duration.
    pub(crate) fn duration(&self, key: &str) -> Outcome<Option<Duration>> {
        match self.value(key)? {
            Value::Nil => Ok(None),
            other => {
                let place = || format!("option '{key}' of {}", self.function);
                Ok(Some(duration(&other, place).map_err(|error| error.with_detail("key", key))?))
            }
        }
    }

    /// A size.
    pub(crate) fn size(&self, key: &str) -> Outcome<Option<Bytes>> {
        match self.value(key)? {
            Value::Nil => Ok(None),
            other => {
                let place = || format!("option '{key}' of {}", self.function);
                Ok(Some(size(&other, place).map_err(|error| error.with_detail("key", key))?))
            }
        }
    }

    /// A table.
    pub(crate) fn table(&self, key: &str, wanted: &str) -> Outcome<Option<Table>> {
        match self.value(key)? {
            Value::Nil => Ok(None),
            Value::Table(table) => Ok(Some(table)),
            other => Err(self.wrong(key, wanted, &other).into()),
        }
    }
}

fn unknown(function: &str, key: &Value, keys: &[&str]) -> Error {
    let name = match key {
        Value::String(name) => name.to_string_lossy(),
        other => format!("[{}]", crate::convert::kind(other)),
    };
    let mut message = format!("unknown option '{name}' for {function}");
    if let Some(meant) = nearest(&name, keys.iter().copied()) {
        message.push_str("; did you mean '");
        message.push_str(meant);
        message.push_str("'?");
    }
    Error::new(Code::VmSpec, message)
        .with_hint(format!("valid options: {}", keys.join(", ")))
        .with_detail("key", name)
        .with_detail("valid", keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Fault;
    use mlua::Lua;

    const KEYS: &[&str] = &["timeout", "memory", "name"];

    fn options(lua: &Lua, code: &str) -> Outcome<Options> {
        Options::new("vm:test", lua.load(code).eval().unwrap(), KEYS)
    }

    fn error<T: std::fmt::Debug>(outcome: Outcome<T>) -> Error {
        match outcome.unwrap_err() {
            Fault::Error(error) => error,
            Fault::Value(value) => panic!("{value:?}"),
        }
    }

    #[test]
    fn an_unknown_key_is_named_and_the_valid_ones_are_listed() {
        let lua = Lua::new();
        let error = error(options(&lua, "{ timeuot = 1 }"));
        assert_eq!(
            error.message(),
            "unknown option 'timeuot' for vm:test; did you mean 'timeout'?"
        );
        assert_eq!(error.hint(), Some("valid options: timeout, memory, name"));
        assert_eq!(error.details()["key"], "timeuot");
    }

    #[test]
    fn positions_are_not_options() {
        let lua = Lua::new();
        assert_eq!(error(options(&lua, "{ 'x' }")).message(), "unknown option '[1]' for vm:test");
    }

    #[test]
    fn values_are_read_as_people_write_them() {
        let lua = Lua::new();
        let given = options(&lua, "{ timeout = '20s', memory = '1GiB', name = 'a' }").unwrap();
        assert_eq!(given.duration("timeout").unwrap(), Some(Duration::from_secs(20)));
        assert_eq!(given.size("memory").unwrap(), Some(Bytes::gib(1)));
        assert_eq!(given.text("name").unwrap().as_deref(), Some("a"));
        let given = options(&lua, "{ timeout = 0.5, memory = 4096.0 }").unwrap();
        assert_eq!(given.duration("timeout").unwrap(), Some(Duration::from_millis(500)));
        assert_eq!(given.size("memory").unwrap(), Some(Bytes::PAGE));
        assert_eq!(given.text("name").unwrap(), None);
    }

    #[test]
    fn wrong_values_are_refused_with_their_key() {
        let lua = Lua::new();
        for code in ["{ timeout = {} }", "{ timeout = -1 }", "{ timeout = 'soon' }"] {
            let error = error(options(&lua, code).unwrap().duration("timeout"));
            assert_eq!((error.code(), &error.details()["key"]), (Code::VmSpec, &"timeout".into()));
        }
        for code in ["{ memory = -1 }", "{ memory = 1.5 }", "{ memory = 'banana' }"] {
            let error = error(options(&lua, code).unwrap().size("memory"));
            assert_eq!(error.details()["key"], "memory");
        }
        assert_eq!(
            error(options(&lua, "{ name = true }").unwrap().text("name")).message(),
            "option 'name' of vm:test must be a string, not true"
        );
    }
}
