//! The methods that take snapshots of a machine and go back to them.

use mlua::{Lua, Table, Value};
use vmoon_core::vm::{RestoreOptions, SnapshotSelector};

use super::Machine;
use crate::arguments::Arguments;
use crate::class::{Class, Results};
use crate::context::Context;
use crate::fault::Outcome;
use crate::snapshot::Snapshot;

pub(super) fn define(class: &mut Class<Machine>) -> mlua::Result<()> {
    class.waiting("vm:snapshot", Results::One, async |_, this: Machine, arguments| {
        let name = match arguments.value(0) {
            Value::Nil => None,
            _ => Some(arguments.text(0, "a name for the snapshot")?),
        };
        arguments.options(1, &[])?;
        Ok(Snapshot(this.vm().snapshot(name).await?))
    })?;
    class.waiting("vm:restore", Results::None, async |_, this: Machine, arguments| {
        let selector = selector(&arguments)?;
        let options = restore_options(&arguments, 1)?;
        this.vm().restore(&selector, options).await?;
        // What was printed before belongs to another life.
        this.move_console(this.vm().console().end());
        Ok(())
    })?;
    class.method("vm:snapshots", Results::One, |lua, this, _| list(lua, &this))?;
    class.waiting("vm:prune", Results::One, async |lua: Lua, this: Machine, arguments| {
        let keep = arguments.count(0, None)?;
        let deleted = this.vm().prune(keep).await?;
        Ok(lua.create_sequence_from(deleted.iter().map(ToString::to_string))?)
    })
}

/// How to go on from a snapshot, by the options at `index`.
pub(crate) fn restore_options(arguments: &Arguments, index: usize) -> Outcome<RestoreOptions> {
    // Most restores have none, and are done by the thousand.
    if arguments.value(index).is_nil() {
        return Ok(RestoreOptions::default());
    }
    let options = arguments.options(index, &["paused", "deterministic"])?;
    Ok(RestoreOptions {
        paused: options.flag("paused")?.unwrap_or(false),
        deterministic: options.flag("deterministic")?.unwrap_or(false),
    })
}

fn selector(arguments: &Arguments) -> Outcome<SnapshotSelector> {
    const WANTED: &str = "a snapshot, or the name of one";
    match arguments.value(0) {
        Value::UserData(data) => match data.borrow::<Snapshot>() {
            Ok(snapshot) => Ok(SnapshotSelector::Handle(snapshot.0.clone())),
            Err(_) => Err(arguments.wrong(0, WANTED).into()),
        },
        Value::String(_) => Ok(SnapshotSelector::Name(arguments.text(0, WANTED)?)),
        _ => Err(arguments.wrong(0, WANTED).into()),
    }
}

fn list(lua: &Lua, this: &Machine) -> Outcome<Table> {
    let context = Context::of(lua);
    let snapshots = this.vm().snapshots();
    let live = snapshots.into_iter().filter(|snapshot| !context.is_closing(snapshot.id()));
    Ok(lua.create_sequence_from(live.map(Snapshot))?)
}
