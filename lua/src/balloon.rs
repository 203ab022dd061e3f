//! A machine's balloon.

use std::sync::Arc;
use std::time::Duration;

use mlua::{Lua, UserData, UserDataRegistry};
use vmoon_core::Vm;

use crate::class::{self, Class, Handle, Results};
use crate::convert::integer;
use crate::machine::Machine;

/// How long `set` waits for the guest when it waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// The balloon of a machine.
#[derive(Clone, Debug)]
pub(crate) struct Balloon(pub(crate) Machine);

impl UserData for Balloon {
    fn register(registry: &mut UserDataRegistry<Self>) {
        class::register(registry);
    }
}

impl Handle for Balloon {
    const NAME: &'static str = "balloon";

    fn machine(&self) -> Option<Arc<Vm>> {
        Some(self.0.vm().clone())
    }

    fn title(&self) -> String {
        format!("balloon of {}", self.0.vm().name())
    }

    fn define(class: &mut Class<Self>) -> mlua::Result<()> {
        class.waiting_field("target", async |this: Self| {
            Ok(integer(this.0.vm().balloon().await?.target.get()))
        })?;
        class.waiting_field("actual", async |this: Self| {
            Ok(integer(this.0.vm().balloon().await?.actual.get()))
        })?;
        class.waiting("balloon:set", Results::None, async |_, this: Self, arguments| {
            let target = arguments.size(0)?;
            let options = arguments.options(1, &["wait", "timeout"])?;
            let timeout = options.duration("timeout")?.unwrap_or(PATIENCE);
            let wait = options.flag("wait")?.unwrap_or(false).then_some(timeout);
            Ok(this.0.vm().set_balloon(target, wait).await?)
        })?;
        class.waiting("balloon:stats", Results::One, async |lua: Lua, this: Self, _| {
            let statistics = this.0.vm().balloon_statistics().await?;
            let table = lua.create_table()?;
            for (name, value) in [
                ("swap_in", statistics.swap_in),
                ("swap_out", statistics.swap_out),
                ("major_faults", statistics.major_faults),
                ("minor_faults", statistics.minor_faults),
                ("free_memory", statistics.free_memory),
                ("total_memory", statistics.total_memory),
                ("available_memory", statistics.available_memory),
                ("disk_caches", statistics.disk_caches),
                ("hugetlb_allocations", statistics.hugetlb_allocations),
                ("hugetlb_failures", statistics.hugetlb_failures),
                ("host_rss", Some(statistics.host_rss)),
            ] {
                table.raw_set(name, value.map(integer))?;
            }
            Ok(table)
        })
    }
}
