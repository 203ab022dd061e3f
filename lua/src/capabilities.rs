//! What the backends of this host can do.

use mlua::{Lua, Table};
use vmoon_core::MachineSpec;

use crate::arguments::Arguments;
use crate::context::Context;
use crate::fault::Outcome;

/// `vmoon.capabilities([backend])`: each feature, true or false; why not in `reasons`.
pub(crate) fn capabilities(lua: &Lua, arguments: &Arguments) -> Outcome<Table> {
    let context = Context::of(lua);
    let named = match arguments.value(0) {
        mlua::Value::Nil => None,
        _ => Some(arguments.text(0, "the name of a backend")?).filter(|name| name != "auto"),
    };
    let wanted = named.as_deref().or(context.backend.as_deref());
    let backend = context.host.choose(wanted, &MachineSpec::default())?;
    let capabilities = backend.capabilities();
    let table = lua.create_table()?;
    let reasons = lua.create_table()?;
    for (name, capability) in capabilities.features() {
        table.raw_set(name, capability.is_yes())?;
        reasons.raw_set(name, capability.reason())?;
    }
    table.raw_set("reasons", reasons)?;
    table.raw_set("backend", backend.name())?;
    table.raw_set("max_cpus", capabilities.max_cpus)?;
    Ok(table)
}

/// `vmoon.backends()`: an array of `{ name, available, reason }`.
pub(crate) fn backends(lua: &Lua) -> Outcome<Table> {
    let list = lua.create_table()?;
    for backend in Context::of(lua).host.backends() {
        let entry = lua.create_table()?;
        entry.raw_set("name", backend.name())?;
        let probe = backend.probe();
        entry.raw_set("available", probe.is_ok())?;
        entry.raw_set("reason", probe.as_ref().err().map(vmoon_core::Error::full_message))?;
        entry.raw_set("hint", probe.as_ref().err().and_then(vmoon_core::Error::hint))?;
        list.raw_push(entry)?;
    }
    Ok(list)
}
