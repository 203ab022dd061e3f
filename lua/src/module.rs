//! The module `vmoon`.

use std::sync::Arc;

use mlua::{AnyUserData, Lua, Table};
use vmoon_core::Vm;
use vmoon_core::spec::Ready;

use crate::arguments::Arguments;
use crate::class::{Results, function, waiting};
use crate::context::Context;
use crate::fault::Outcome;
use crate::machine::{self, Machine};
use crate::snapshot::Snapshot;
use crate::{capabilities, console, spec, task, test};

/// Fills the module, with its submodules.
pub(crate) fn fill(lua: &Lua, module: &Table) -> mlua::Result<()> {
    waiting(lua, module, "vmoon.create", Results::One, async |lua: Lua, arguments| {
        let (backend, spec) = spec::parse(&arguments)?;
        let context = Context::of(&lua);
        let backend = backend.or_else(|| context.backend.clone());
        machine::value_of(&lua, context.host.create(backend.as_deref(), spec).await?)
    })?;
    waiting(lua, module, "vmoon.boot", Results::One, async |lua: Lua, arguments| {
        boot(&lua, &arguments).await
    })?;
    waiting(lua, module, "vmoon.load", Results::One, async |lua: Lua, arguments| {
        let directory = arguments.path(0, "the path of a directory")?;
        let options = arguments.options(1, &["deterministic"])?;
        let deterministic = options.flag("deterministic")?.unwrap_or(false);
        Ok(Snapshot(Context::of(&lua).host.load(&directory, deterministic).await?))
    })?;
    function(lua, module, "vmoon.list", Results::One, |lua, _| {
        let list = lua.create_table()?;
        for vm in Context::of(lua).host.list() {
            list.raw_push(machine::value_of(lua, vm)?)?;
        }
        Ok(list)
    })?;
    function(lua, module, "vmoon.get", Results::One, |lua, arguments| {
        let name = arguments.text(0, "the id or the name of a machine")?;
        let found = Context::of(lua).host.get(&name);
        found.map(|vm| machine::value_of(lua, vm)).transpose()
    })?;
    function(lua, module, "vmoon.capabilities", Results::One, |lua, arguments| {
        capabilities::capabilities(lua, &arguments)
    })?;
    function(lua, module, "vmoon.backends", Results::One, |lua, _| capabilities::backends(lua))?;
    module.raw_set("task", task::make(lua, module)?)?;
    module.raw_set("test", test::make(lua)?)
}

/// Creates and starts a machine and waits until it is ready. One that does not get there is
/// closed.
async fn boot(lua: &Lua, arguments: &Arguments) -> Outcome<AnyUserData> {
    let (backend, spec) = spec::parse(arguments)?;
    let context = Context::of(lua);
    let backend = backend.or_else(|| context.backend.clone());
    let Ready::Console(pattern) = &spec.ready else {
        return machine::value_of(lua, context.host.boot(backend.as_deref(), spec).await?);
    };
    let pattern = lua.create_string(pattern)?;
    let timeout = spec.timeout;
    let vm = context.host.create(backend.as_deref(), spec).await?;
    let mut rollback = Rollback(Some(vm.clone()));
    vm.start().await?;
    let handle = machine::value_of(lua, vm)?;
    let machine = handle.borrow::<Machine>()?.clone();
    console::wait(lua, &machine, &pattern, timeout).await?;
    rollback.0 = None;
    Ok(handle)
}

/// Closes a machine whose boot failed or was cancelled.
struct Rollback(Option<Arc<Vm>>);

impl Drop for Rollback {
    fn drop(&mut self) {
        if let Some(vm) = &self.0 {
            vm.close();
        }
    }
}
