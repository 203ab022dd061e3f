//! Restores, from Rust and from Lua in turns, and commands.
//!
//! One script drives it, and calls back before and after what is timed: Lua's own part counts.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use vmoon_core::vm::{Host, RestoreOptions, SnapshotSelector, Vm};
use vmoon_core::{Code, Error, Result};
use vmoon_lua::{Config, Ending, Runtime, Script};

use super::figure::{Figure, Samples, median};
use super::floor::Floor;
use super::guest;
use super::plan::Plan;

const NAME: &str = "bench";

const SCRIPT: &str = r#"
local guest, memory, rounds = ...
local vm <close> = vmoon.boot { name = "bench", guest = guest, memory = memory }
settle()
local clean <close> = vm:snapshot()
for _ = 1, tonumber(rounds) do
  prepare()
  begin()
  vm:restore(clean)
  finish()
  without_lua()
end
"#;

/// Rounds that are not counted.
const WARM_UP: usize = 3;

struct Rounds {
    host: Arc<Host>,
    plan: Plan,
    begun: Cell<Instant>,
    done: Cell<usize>,
    seen: RefCell<Seen>,
}

#[derive(Default)]
struct Seen {
    lua: Samples,
    rust: Samples,
    replied: Samples,
    exec: Samples,
    floors: Samples,
    dirty: Vec<u64>,
    floor: Option<Floor>,
}

/// The figures `restore`, `restore_lua`, `restore_exec` and `exec`.
pub(super) fn measure(host: &Arc<Host>, plan: &Plan) -> anyhow::Result<[Figure; 4]> {
    let rounds = Rc::new(Rounds {
        host: host.clone(),
        plan: *plan,
        begun: Cell::new(Instant::now()),
        done: Cell::new(0),
        seen: RefCell::default(),
    });
    let config =
        Config { host: host.clone(), backend: None, timeout: None, signals: None, tests: None };
    let mut runtime = Runtime::new(config).context("the runtime cannot be started")?;
    for (name, function) in [
        ("settle", Function::Settle),
        ("prepare", Function::Prepare),
        ("without_lua", Function::WithoutLua),
    ] {
        let rounds = rounds.clone();
        runtime.define(name, async move || rounds.call(function).await);
    }
    let (begin, finish) = (rounds.clone(), rounds.clone());
    runtime.define_immediate("begin", move || begin.begun.set(Instant::now()));
    runtime.define_immediate("finish", move || finish.finish());
    let count = plan.rounds + WARM_UP;
    let arguments = [plan.guest_name().to_owned(), plan.memory.to_string(), count.to_string()];
    let script = Script::code(SCRIPT, arguments.map(String::into_bytes).into());
    match runtime.run(&script).context("Lua cannot be started")? {
        Ending::Done => Ok(rounds.seen.take().figures()),
        Ending::Raised(reports) => anyhow::bail!("{}", reports[0]),
        other => anyhow::bail!("the script that restores ended early: {other:?}"),
    }
}

#[derive(Clone, Copy)]
enum Function {
    Settle,
    Prepare,
    WithoutLua,
}

impl Rounds {
    async fn call(&self, function: Function) -> Result<()> {
        match function {
            Function::Settle => {
                let vm = self.vm()?;
                guest::settle(&vm).await
            }
            Function::Prepare => {
                let vm = self.vm()?;
                guest::dirty(&vm, &self.plan).await
            }
            Function::WithoutLua => self.without_lua().await,
        }
    }

    /// The script's restore is done.
    fn finish(&self) {
        let elapsed = self.begun.get().elapsed();
        self.done.set(self.done.get() + 1);
        if self.counts() {
            self.seen.borrow_mut().lua.push(elapsed);
        }
    }

    fn counts(&self) -> bool {
        self.done.get() > WARM_UP
    }

    /// The same without Lua, then commands, then the floor.
    async fn without_lua(&self) -> Result<()> {
        let vm = self.vm()?;
        let clean = vm.snapshots().first().cloned().ok_or_else(gone)?;
        let clean = SnapshotSelector::Handle(clean);
        guest::dirty(&vm, &self.plan).await?;
        let begun = Instant::now();
        let report = vm.restore(&clean, RestoreOptions::default()).await?;
        let restored = begun.elapsed();
        guest::succeed(&vm, "true").await?;
        let replied = begun.elapsed();
        let begun = Instant::now();
        guest::succeed(&vm, "true").await?;
        let exec = begun.elapsed();

        // So that the script's restore finds what this one found.
        vm.restore(&clean, RestoreOptions::default()).await?;

        let mut seen = self.seen.borrow_mut();
        let mut floor = match seen.floor.take() {
            Some(floor) => floor,
            None => Floor::new(self.plan.memory, report.dirty_pages)?,
        };
        let least = floor.restore()?;
        seen.floor = Some(floor);
        if self.counts() {
            seen.rust.push(restored);
            seen.replied.push(replied);
            seen.exec.push(exec);
            seen.dirty.push(report.dirty_pages);
            seen.floors.extend(least);
        }
        Ok(())
    }

    fn vm(&self) -> Result<Arc<Vm>> {
        self.host.get(NAME).ok_or_else(gone)
    }
}

fn gone() -> Error {
    Error::new(Code::VmNotFound, "the machine that is measured is gone")
}

impl Seen {
    fn figures(self) -> [Figure; 4] {
        let dirty = median(self.dirty);
        let (restore, exec) = (self.rust.p50(), self.exec.p50());
        [
            Figure::new(
                "restore",
                "restore in place (floor: the same copies and state calls)",
                self.rust,
            )
            .with_floor(self.floors)
            .dirty(dirty),
            Figure::new("restore_lua", "vm:restore in Lua (ratio: to restore)", self.lua)
                .beside(restore)
                .dirty(dirty),
            Figure::new(
                "restore_exec",
                "restore to the reply of the first command (ratio: to restore + exec)",
                self.replied,
            )
            .beside(restore + exec)
            .dirty(dirty),
            Figure::new("exec", "a command that does nothing, to its end", self.exec),
        ]
    }
}
