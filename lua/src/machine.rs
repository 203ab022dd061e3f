//! The machine as scripts hold it: its fields, and where its methods are.

use std::cell::Cell;
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;

use mlua::{AnyUserData, Lua, UserData, UserDataRegistry, Value};
use vmoon_core::Vm;

use crate::balloon::Balloon;
use crate::class::{self, Class, Handle};
use crate::console::Console;
use crate::context::Context;
use crate::convert::integer;
use crate::fault::Outcome;
use crate::faults::Faults;

mod disks;
mod exec;
mod files;
mod lifecycle;
mod shell;
pub(crate) mod snapshots;
mod vsock;
mod waits;

pub(crate) use disks::PATH as IMAGE_PATH;
pub(crate) use exec::result_table;
pub(crate) use waits::PATIENCE;

/// A handle of a machine. Scripts have one for each machine, however they found it.
#[derive(Clone, Debug)]
pub(crate) struct Machine(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    vm: Arc<Vm>,
    /// Where the next `console:wait` begins: after what the last one matched.
    console: Cell<u64>,
    /// Whether it was closed, and the count of handles that were closed and still exist.
    closed: Cell<bool>,
    remains: Rc<Cell<usize>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.closed.get() {
            self.remains.set(self.remains.get() - 1);
        }
    }
}

/// Below this much memory a full collection takes less than starting a machine.
const SMALL_HEAP: usize = 8 << 20;

/// So many closed machines are worth a collection of any heap.
const MOST_REMAINS: usize = 16;

impl Machine {
    pub(crate) fn vm(&self) -> &Arc<Vm> {
        &self.0.vm
    }

    /// Where the next wait for console output begins.
    pub(crate) fn console_position(&self) -> u64 {
        self.0.console.get()
    }

    /// Lets the next wait for console output begin at `position`, at the earliest.
    pub(crate) fn move_console(&self, position: u64) {
        self.0.console.set(self.0.console.get().max(position));
    }
}

/// The handle of a machine: the one that the script has, or a new one.
pub(crate) fn value_of(lua: &Lua, vm: Arc<Vm>) -> Outcome<AnyUserData> {
    let machines = Context::of(lua).machines.clone();
    let id = vm.id().to_string();
    if let Value::UserData(known) = machines.raw_get(id.as_str())? {
        return Ok(known);
    }
    let remains = Context::of(lua).remains.clone();
    collect(lua, remains.get())?;
    let (console, closed) = (Cell::new(0), Cell::new(false));
    let handle = lua.create_userdata(Machine(Rc::new(Inner { vm, console, closed, remains })))?;
    machines.raw_set(id, &handle)?;
    Ok(handle)
}

/// A closed machine keeps some files open until its handle is collected, of which Lua knows
/// nothing: it sees a few bytes and takes its time.
fn collect(lua: &Lua, remains: usize) -> mlua::Result<()> {
    if remains >= MOST_REMAINS || (remains > 0 && lua.used_memory() < SMALL_HEAP) {
        lua.gc_collect()?;
    }
    Ok(())
}

/// The machine in one line, for people who read an error.
pub(crate) fn describe(vm: &Arc<Vm>) -> String {
    let mut text = format!("{} ({}, {}", vm.name(), vm.backend().name(), vm.state());
    if !vm.uptime().is_zero() {
        let _ = write!(text, " {:.1} s", vm.uptime().as_secs_f64());
    }
    text.push(')');
    if let Some(line) = vm.console().last_line() {
        let _ = write!(text, "; last console line: {line:?}");
    }
    text
}

impl UserData for Machine {
    fn register(registry: &mut UserDataRegistry<Self>) {
        class::register(registry);
    }
}

impl Handle for Machine {
    const NAME: &'static str = "vm";

    fn machine(&self) -> Option<Arc<Vm>> {
        Some(self.vm().clone())
    }

    fn title(&self) -> String {
        format!("vm {} ({}, {})", self.vm().name(), self.vm().backend().name(), self.vm().state())
    }

    fn close(&self) {
        self.vm().close();
        if !self.0.closed.replace(true) {
            self.0.remains.set(self.0.remains.get() + 1);
        }
    }

    fn define(class: &mut Class<Self>) -> mlua::Result<()> {
        class.field("id", |_, this| Ok(this.vm().id().to_string()))?;
        class.field("name", |_, this| Ok(this.vm().name().to_owned()))?;
        class.field("state", |_, this| Ok(this.vm().state().as_str()))?;
        class.field("backend", |_, this| Ok(this.vm().backend().name()))?;
        class.field("cpus", |_, this| Ok(this.vm().spec().cpus))?;
        class.field("memory", |_, this| Ok(integer(this.vm().spec().memory.get())))?;
        class.field("cid", |_, this| Ok(integer(this.vm().cid().0)))?;
        class.field("mac", |_, this| {
            Ok(this.vm().mac().map(|byte| format!("{byte:02x}")).join(":"))
        })?;
        class.field("console", |lua, this| Ok(lua.create_userdata(Console(this))?))?;
        class.field("balloon", |lua, this| Ok(lua.create_userdata(Balloon(this))?))?;
        class.field("faults", |lua, this| Ok(lua.create_userdata(Faults(this))?))?;
        lifecycle::define(class)?;
        exec::define(class)?;
        shell::define(class)?;
        files::define(class)?;
        waits::define(class)?;
        snapshots::define(class)?;
        disks::define(class)?;
        vsock::define(class)
    }
}
