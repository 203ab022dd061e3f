//! The methods that begin, hold and end a machine.

use std::time::Duration;

use mlua::Table;
use vmoon_core::vm::MachineInfo;

use super::Machine;
use crate::class::{Class, Handle, Results};
use crate::convert::integer;
use crate::fault::Outcome;

/// How long `vm:stop()` waits for the guest.
const STOP: Duration = Duration::from_secs(10);

pub(super) fn define(class: &mut Class<Machine>) -> mlua::Result<()> {
    class.waiting("vm:start", Results::None, async |_, this: Machine, _| {
        Ok(this.vm().start().await?)
    })?;
    class.waiting("vm:pause", Results::None, async |_, this: Machine, _| {
        Ok(this.vm().pause().await?)
    })?;
    class.waiting("vm:resume", Results::None, async |_, this: Machine, _| {
        Ok(this.vm().resume().await?)
    })?;
    class.waiting("vm:stop", Results::One, async |_, this: Machine, arguments| {
        let options = arguments.options(0, &["timeout"])?;
        let timeout = options.duration("timeout")?.unwrap_or(STOP);
        Ok(this.vm().stop(timeout).await?.as_str())
    })?;
    class.waiting("vm:kill", Results::None, async |_, this: Machine, _| {
        Ok(this.vm().kill().await?)
    })?;
    class.waiting("vm:crash", Results::None, async |_, this: Machine, _| {
        Ok(this.vm().crash().await?)
    })?;
    class.waiting("vm:nmi", Results::None, async |_, this: Machine, _| {
        Ok(this.vm().nmi().await?)
    })?;
    class.method("vm:remove", Results::None, |_, this, _| Ok(this.vm().remove()?))?;
    class.method("vm:close", Results::None, |_, this, _| {
        this.close();
        Ok(())
    })?;
    class.waiting("vm:info", Results::One, async |lua: mlua::Lua, this: Machine, _| {
        let info = this.vm().info().await?;
        table(&lua, &this, &info)
    })
}

fn table(lua: &mlua::Lua, this: &Machine, info: &MachineInfo) -> Outcome<Table> {
    let vm = this.vm();
    let table = lua.create_table()?;
    table.raw_set("id", vm.id().to_string())?;
    table.raw_set("name", vm.name())?;
    table.raw_set("backend", vm.backend().name())?;
    let status = vm.status();
    table.raw_set("state", status.state.as_str())?;
    table.raw_set("reason", status.reason)?;
    table.raw_set("cpus", vm.spec().cpus)?;
    table.raw_set("memory", integer(vm.spec().memory.get()))?;
    table.raw_set("uptime", info.uptime.as_secs_f64())?;
    table.raw_set("host_rss", integer(info.host_rss.get()))?;
    table.raw_set("dirty_pages", integer(info.dirty_pages))?;
    let devices = lua.create_table()?;
    for (name, status) in &info.devices {
        let device = lua.create_table()?;
        device.raw_set("name", name.as_str())?;
        device.raw_set("status", status.as_str())?;
        devices.raw_push(device)?;
    }
    table.raw_set("devices", devices)?;
    Ok(table)
}
