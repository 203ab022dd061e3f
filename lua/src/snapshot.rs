//! Snapshots as scripts hold them.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context as Poller, Waker};
use std::time::SystemTime;

use mlua::{Lua, MetaMethod, MultiValue, UserData, UserDataMethods, UserDataRegistry, Value};
use vmoon_core::vm;

use crate::class::{self, Class, Handle, Results};
use crate::context::Context;
use crate::convert::integer;
use crate::machine::{self, snapshots::restore_options};

/// A snapshot of a machine.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot(pub(crate) Arc<vm::Snapshot>);

impl Snapshot {
    /// Deletes the snapshot without waiting: the request is on its way when this returns, and
    /// whatever is asked of the machine next comes after it.
    fn close_in(&self, lua: &Lua) {
        if self.0.is_deleted() {
            return;
        }
        let context = Context::of(lua);
        if !context.live.get() || !context.closing.borrow_mut().insert(self.0.id()) {
            return;
        }
        let snapshot = self.0.clone();
        let mut deletion = Box::pin(async move {
            if let Err(error) = snapshot.delete().await {
                tracing::debug!(%error, "a closed snapshot was not deleted");
            }
            context.closing.borrow_mut().remove(&snapshot.id());
        });
        // Polled here once, so that the request is sent before the script goes on.
        let mut poller = Poller::from_waker(Waker::noop());
        if deletion.as_mut().poll(&mut poller).is_pending() {
            tokio::task::spawn_local(deletion);
        }
    }
}

impl UserData for Snapshot {
    fn register(registry: &mut UserDataRegistry<Self>) {
        class::register_except_close(registry);
        registry.add_meta_method(MetaMethod::Close, |lua, this, _: MultiValue| {
            this.close_in(lua);
            Ok(())
        });
    }
}

impl Handle for Snapshot {
    const NAME: &'static str = "snap";

    fn title(&self) -> String {
        format!("snap {:?}", self.0.name())
    }

    fn define(class: &mut Class<Self>) -> mlua::Result<()> {
        class.field("id", |_, this| Ok(this.0.id().to_string()))?;
        class.field("name", |_, this| Ok(this.0.name().to_owned()))?;
        class.field("vm_id", |_, this| Ok(this.0.vm_id().to_string()))?;
        class.field("parent", |_, this| Ok(this.0.parent().map(|id| id.to_string())))?;
        class.field("created", |_, this| {
            let since = this.0.created().duration_since(SystemTime::UNIX_EPOCH);
            Ok(since.unwrap_or_default().as_secs_f64())
        })?;
        class.field("memory", |_, this| Ok(integer(this.0.memory().get())))?;
        class.field("dirty_pages", |_, this| Ok(integer(this.0.figures().dirty_pages)))?;
        class.field("bytes", |_, this| Ok(integer(this.0.figures().bytes.get())))?;
        class.waiting("snap:fork", Results::One, async |lua: Lua, this: Self, arguments| {
            // `snap:fork { deterministic = true }` is one machine, as `snap:fork()` is.
            let alone = arguments.value(0).is_table();
            let one = alone || arguments.value(0).is_nil();
            let count = if one { 1 } else { arguments.count(0, None)? };
            let options = restore_options(&arguments, usize::from(!alone))?;
            let forks = this.0.fork(count, options).await?;
            let handles = forks
                .into_iter()
                .map(|vm| machine::value_of(&lua, vm).map(Value::UserData))
                .collect::<Result<Vec<_>, _>>()?;
            match handles.as_slice() {
                [handle] if one => Ok(handle.clone()),
                _ => Ok(Value::Table(lua.create_sequence_from(handles)?)),
            }
        })?;
        class.waiting("snap:save", Results::None, async |_, this: Self, arguments| {
            let directory = arguments.path(0, "the path of a directory")?;
            arguments.options(1, &[])?;
            Ok(this.0.save(&directory).await?)
        })?;
        class.waiting("snap:commit_disk", Results::None, async |_, this: Self, arguments| {
            let number = arguments.count(0, None)?;
            let path = arguments.path(1, machine::IMAGE_PATH)?;
            arguments.options(2, &[])?;
            Ok(this.0.commit_disk(number, &path).await?)
        })?;
        class.waiting("snap:delete", Results::None, async |_, this: Self, _| {
            Ok(this.0.delete().await?)
        })?;
        class.method("snap:close", Results::None, |lua, this, _| {
            this.close_in(lua);
            Ok(())
        })
    }
}
