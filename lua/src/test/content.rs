//! What a fixture is made of, as one hash: two with the same hash are the same machine.

use std::collections::HashMap;
use std::ffi::{CStr, c_void};
use std::path::Path;
use std::rc::Rc;

use mlua::function::FunctionInfo;
use mlua::{Function, Lua, MultiValue, Table, Value, ffi};
use vmoon_core::spec::{Guest, MachineSpec};

use crate::context::Context;

/// Hashes the spec, the files that the guest boots from, and the `setup` function with the values
/// that it closes over. None when that cannot be told apart by content: a function that closes
/// over a socket, say.
pub(super) fn hash(
    lua: &Lua,
    backend: Option<&str>,
    spec: &MachineSpec,
    setup: Option<&Function>,
) -> mlua::Result<Option<String>> {
    let mut content =
        Content { hasher: blake3::Hasher::new(), known: known(lua), seen: HashMap::new() };
    content.text(backend.unwrap_or("auto"));
    let Ok(json) = serde_json::to_string(spec) else { return Ok(None) };
    content.text(&json);
    let files = match &spec.guest {
        Guest::Micro => [None, None],
        Guest::Linux { kernel, initrd } => [kernel.as_deref(), initrd.as_deref()],
        Guest::Kernel { kernel, initrd } => [Some(kernel.as_path()), initrd.as_deref()],
    };
    for file in files.into_iter().flatten() {
        if !content.file(file) {
            return Ok(None);
        }
    }
    for disk in &spec.disks {
        let Ok(found) = std::fs::metadata(&disk.path) else { return Ok(None) };
        content.text(&format!("{} {:?}", found.len(), found.modified().ok()));
    }
    let whole = match setup {
        None => true,
        Some(setup) => content.value(lua, &Value::Function(setup.clone()))?,
    };
    Ok(whole.then(|| content.hasher.finalize().to_hex().to_string()))
}

struct Content {
    hasher: blake3::Hasher,
    /// What every Lua state has by the same name: the standard library and the module `vmoon`.
    known: HashMap<*const c_void, String>,
    /// The tables and functions that were hashed, in order: a loop is told by its number.
    seen: HashMap<*const c_void, usize>,
}

impl Content {
    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    }

    fn file(&mut self, path: &Path) -> bool {
        let Ok(file) = std::fs::File::open(path) else { return false };
        self.hasher.update_reader(file).is_ok()
    }

    /// False when the value cannot be told apart by content.
    fn value(&mut self, lua: &Lua, value: &Value) -> mlua::Result<bool> {
        if let Some(name) = self.known.get(&value.to_pointer()).cloned() {
            self.text(&name);
            return Ok(true);
        }
        self.text(value.type_name());
        match value {
            Value::Nil => {}
            Value::Boolean(value) => self.text(if *value { "true" } else { "false" }),
            Value::Integer(number) => self.bytes(&number.to_le_bytes()),
            Value::Number(number) => self.bytes(&number.to_bits().to_le_bytes()),
            Value::String(text) => self.bytes(&text.as_bytes()),
            Value::Table(table) => {
                return Ok(self.known_already(value) || self.table(lua, table)?);
            }
            Value::Function(function) => {
                return Ok(self.known_already(value) || self.function(lua, function)?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn known_already(&mut self, value: &Value) -> bool {
        let pointer = value.to_pointer();
        let count = self.seen.len();
        if let Some(number) = self.seen.get(&pointer).copied() {
            self.text(&number.to_string());
            return true;
        }
        self.seen.insert(pointer, count);
        false
    }

    /// Tables have no order: each entry is hashed by itself, and the hashes are sorted.
    fn table(&mut self, lua: &Lua, table: &Table) -> mlua::Result<bool> {
        if table.metatable().is_some() {
            return Ok(false);
        }
        let mut entries = Vec::new();
        for pair in table.clone().pairs::<Value, Value>() {
            let (key, value) = pair?;
            let outer = std::mem::replace(&mut self.hasher, blake3::Hasher::new());
            let whole = self.value(lua, &key)? && self.value(lua, &value)?;
            entries.push(std::mem::replace(&mut self.hasher, outer).finalize());
            if !whole {
                return Ok(false);
            }
        }
        entries.sort_unstable_by_key(|hash| *hash.as_bytes());
        self.bytes(&(entries.len() as u64).to_le_bytes());
        for entry in entries {
            self.bytes(entry.as_bytes());
        }
        Ok(true)
    }

    /// What a function does: its lines, wherever they are. Where several functions may share a
    /// line it is the compiled code, which holds the number of its line.
    fn code(&mut self, lua: &Lua, function: &Function, info: &FunctionInfo) {
        match lines(lua, info) {
            None => self.bytes(&function.dump(true)),
            Some(lines) => {
                // A function that begins and ends with another differs in its parameters.
                self.text(&format!("{} {}", lines.len(), info.num_params));
                for line in lines {
                    self.text(&line);
                }
            }
        }
    }

    fn function(&mut self, lua: &Lua, function: &Function) -> mlua::Result<bool> {
        let info = function.info();
        if info.what == "C" {
            return Ok(false);
        }
        // An expectation, say: what it closes over is vmoon's own.
        if let Some(source) =
            info.source.as_ref().filter(|source| source.starts_with("=[vmoon test"))
        {
            self.text(source);
            self.text(&format!("{:?}", info.line_defined));
            return Ok(true);
        }
        self.code(lua, function, &info);
        for (name, value) in upvalues(lua, function)? {
            self.text(&name);
            if !self.value(lua, &value)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The lines of a function that has lines of its own.
fn lines(lua: &Lua, info: &FunctionInfo) -> Option<Vec<String>> {
    let (first, last) = (info.line_defined?, info.last_line_defined?);
    if first == last {
        return None;
    }
    let context = lua.app_data_ref::<Rc<Context>>()?.clone();
    let mut sources = context.sources.borrow_mut();
    let text = sources.text(info.source.as_deref()?)?;
    let lines = text.lines().skip(first - 1).take(last + 1 - first);
    Some(lines.map(|line| line.trim().to_owned()).collect())
}

/// What the global table holds by name, down to the functions of its modules.
fn known(lua: &Lua) -> HashMap<*const c_void, String> {
    let mut known = HashMap::new();
    let globals = lua.globals();
    known.insert(Value::Table(globals.clone()).to_pointer(), "_G".to_owned());
    let test: Option<Table> =
        globals.raw_get::<Table>("vmoon").and_then(|vmoon| vmoon.raw_get("test")).ok();
    let modules = globals
        .pairs::<Value, Value>()
        .flatten()
        .chain(test.map(|test| (Value::Nil, Value::Table(test))));
    for (name, value) in modules.collect::<Vec<_>>() {
        let name = name.to_string().unwrap_or_default();
        // A table of the user's is hashed by what it holds, a function by what it does.
        match &value {
            Value::Table(module) => {
                let members: Vec<(Value, Value)> = module.pairs().flatten().collect();
                for (member, value) in members {
                    if let Value::Function(function) = &value
                        && is_foreign(function)
                    {
                        let member = member.to_string().unwrap_or_default();
                        known.insert(value.to_pointer(), format!("{name}.{member}"));
                    }
                }
                if matches!(
                    name.as_str(),
                    "vmoon"
                        | "string"
                        | "table"
                        | "math"
                        | "io"
                        | "os"
                        | "utf8"
                        | "coroutine"
                        | "package"
                ) {
                    known.insert(value.to_pointer(), name);
                }
            }
            Value::Function(function) if is_foreign(function) => {
                known.insert(value.to_pointer(), name);
            }
            _ => {}
        }
    }
    known
}

/// Whether a function is not the user's own.
fn is_foreign(function: &Function) -> bool {
    let info = function.info();
    info.what == "C" || info.source.as_deref().is_some_and(|source| source.starts_with("=[vmoon"))
}

/// The values that a function closes over, by name.
fn upvalues(lua: &Lua, function: &Function) -> mlua::Result<Vec<(String, Value)>> {
    let mut names = Vec::new();
    // SAFETY: the function is alone on the stack, at index 1, and is a function. Each call of
    // `lua_getupvalue` with a valid index pushes one value, for which `lua_checkstack` has made
    // room, and returns a name that lives as long as the function. Nothing in here raises an
    // error of Lua's, and what is left on the stack are the values, as `exec_raw` expects.
    let values: MultiValue = unsafe {
        lua.exec_raw(function.clone(), |state| {
            for index in 1.. {
                if ffi::lua_checkstack(state, 2) == 0 {
                    break;
                }
                let name = ffi::lua_getupvalue(state, 1, index);
                if name.is_null() {
                    break;
                }
                names.push(CStr::from_ptr(name).to_string_lossy().into_owned());
            }
            ffi::lua_remove(state, 1);
        })?
    };
    Ok(names.into_iter().zip(values).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_of(code: &str) -> Option<String> {
        let lua = Lua::new();
        let setup: Function = lua.load(code).eval().unwrap();
        hash(&lua, None, &MachineSpec::default(), Some(&setup)).unwrap()
    }

    #[test]
    fn the_same_source_and_the_same_values_are_the_same() {
        let code = "local list = { 1, 2, { x = 'y', z = true } } local format = string.format
            return function(vm) vm:succeed(format('put %s', list[3].x)) end";
        assert!(hash_of(code).is_some());
        assert_eq!(hash_of(code), hash_of(code));
    }

    #[test]
    fn another_command_or_another_value_is_another_fixture() {
        let of =
            |value: &str| hash_of(&format!("local x = {value} return function(vm) return x end"));
        let values = ["1", "2", "1.0", "'1'", "true", "{}", "{ 1 }", "{ a = 1 }", "print", "type"];
        let hashes: Vec<_> = values.iter().map(|value| of(value).unwrap()).collect();
        for (index, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..index].contains(hash), "{}", values[index]);
        }
        assert_ne!(
            hash_of("return function(vm) vm:exec 'a' end"),
            hash_of("return function(vm) vm:exec 'b' end")
        );
        let inner = |value: &str| {
            hash_of(&format!("local function f() return {value} end return function() f() end"))
        };
        assert_ne!(inner("1"), inner("2"));
    }

    #[test]
    fn loops_end_and_what_has_no_content_is_not_shared() {
        assert!(hash_of("local t = {} t.t = t return function() return t end").is_some());
        assert!(hash_of("local f function f() return f end return f").is_some());
        assert_eq!(hash_of("local f = io.stdout return function() return f end"), None);
        assert_eq!(hash_of("local t = setmetatable({}, {}) return function() return t end"), None);
        assert_eq!(
            hash_of("local c = coroutine.create(print) return function() return c end"),
            None
        );
    }
}
