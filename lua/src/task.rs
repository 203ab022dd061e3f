//! Tasks: functions of the script that run side by side, on one thread.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mlua::{Function, IntoLuaMulti, Lua, MultiValue, Table, UserData, UserDataRegistry, Value};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use vmoon_core::{Code, Error};

use crate::arguments::Arguments;
use crate::class::{self, Class, Handle, Results, waiting};
use crate::context::Context;
use crate::fault::{Fault, Outcome};

/// Makes the submodule `vmoon.task`, and the functions that `vmoon` itself has of it.
pub(crate) fn make(lua: &Lua, vmoon: &Table) -> mlua::Result<Table> {
    let module = lua.create_table()?;
    class::function(lua, &module, "vmoon.task.spawn", Results::One, spawn)?;
    waiting(lua, &module, "vmoon.task.all", Results::One, async |lua: Lua, arguments| {
        all(&lua, &arguments).await
    })?;
    waiting(lua, &module, "vmoon.task.map", Results::One, async |lua: Lua, arguments| {
        map(&lua, &arguments).await
    })?;
    waiting(lua, vmoon, "vmoon.sleep", Results::None, async |_, arguments: Arguments| {
        tokio::time::sleep(arguments.duration(0)?).await;
        Ok(())
    })?;
    waiting(lua, vmoon, "vmoon.timeout", Results::All, async |lua: Lua, arguments: Arguments| {
        let limit = arguments.duration(0)?;
        let body = arguments.callback(1)?;
        within(&lua, limit, body, arguments.rest(2)).await
    })?;
    for name in ["sleep", "timeout"] {
        module.raw_set(name, vmoon.raw_get::<Function>(name)?)?;
    }
    Ok(module)
}

/// Calls a function of the script in a coroutine of its own. Dropping the future ends the
/// coroutine and closes what it holds.
async fn call(lua: &Lua, body: Function, arguments: MultiValue) -> Outcome<MultiValue> {
    let context = Context::of(lua);
    let mut values = arguments;
    values.push_front(Value::Function(context.handler.clone()));
    values.push_front(Value::Function(body));
    let mut results = context.xpcall.call_async::<MultiValue>(values).await?;
    match results.pop_front() {
        Some(Value::Boolean(true)) => Ok(results),
        _ => Err(Fault::Value(results.pop_front().unwrap_or(Value::Nil))),
    }
}

async fn within(
    lua: &Lua,
    limit: Duration,
    body: Function,
    arguments: MultiValue,
) -> Outcome<MultiValue> {
    tokio::time::timeout(limit, call(lua, body, arguments)).await.unwrap_or_else(|_| {
        Err(Error::new(Code::VmTimeout, format!("the function did not end within {limit:?}"))
            .with_hint("the first argument of vmoon.timeout is how long it may take")
            .with_detail("timeout", limit.as_secs_f64())
            .into())
    })
}

/// Runs functions side by side. The first error ends the others.
async fn all(lua: &Lua, arguments: &Arguments) -> Outcome<Table> {
    let list = arguments.table(0, "an array of functions")?;
    let mut bodies = Vec::new();
    for body in list.sequence_values::<Value>() {
        match body? {
            Value::Function(body) => bodies.push((body, MultiValue::new())),
            other => {
                return Err(crate::arguments::wrong(
                    "each item of vmoon.task.all",
                    "a function",
                    &other,
                )
                .into());
            }
        }
    }
    let limit = bodies.len();
    together(lua, bodies, limit).await
}

/// Calls a function with each item of a list, at most `limit` at a time.
async fn map(lua: &Lua, arguments: &Arguments) -> Outcome<Table> {
    let list = arguments.table(0, "an array")?;
    let body = arguments.callback(1)?;
    let options = arguments.options(2, &["limit"])?;
    let limit = match options.count("limit")? {
        None => usize::MAX,
        Some(0) => {
            return Err(options.wrong("limit", "a number from 1", &Value::Integer(0)).into());
        }
        Some(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    let mut calls = Vec::new();
    for (index, item) in list.sequence_values::<Value>().enumerate() {
        calls.push((body.clone(), (item?, index + 1).into_lua_multi(lua)?));
    }
    together(lua, calls, limit).await
}

/// The first result of each call, in their order.
async fn together(lua: &Lua, calls: Vec<(Function, MultiValue)>, limit: usize) -> Outcome<Table> {
    let results = lua.create_table_with_capacity(calls.len(), 0)?;
    let mut waiting = calls.into_iter().enumerate();
    let mut running = FuturesUnordered::new();
    loop {
        while running.len() < limit
            && let Some((index, (body, arguments))) = waiting.next()
        {
            running.push(async move { (index, call(lua, body, arguments).await) });
        }
        match running.next().await {
            Some((index, outcome)) => {
                results.raw_set(index + 1, outcome?.pop_front().unwrap_or(Value::Nil))?;
            }
            None => return Ok(results),
        }
    }
}

/// A task that was spawned.
#[derive(Clone, Debug)]
pub(crate) struct Task(Rc<State>);

#[derive(Debug, Default)]
pub(crate) struct State {
    ending: RefCell<Option<Ending>>,
    ended: Notify,
    /// Whether somebody has been told how it ended.
    seen: Cell<bool>,
    abort: RefCell<Option<AbortHandle>>,
}

/// How a task ended.
#[derive(Clone, Debug)]
enum Ending {
    Done(Vec<Value>),
    Raised(Value),
    Cancelled,
}

impl State {
    fn end(&self, ending: Ending) {
        self.ending.borrow_mut().get_or_insert(ending);
        self.ended.notify_waiters();
    }

    /// The error of a task that failed, if nobody was told.
    pub(crate) fn unseen_error(&self) -> Option<Value> {
        match &*self.ending.borrow() {
            Some(Ending::Raised(value)) if !self.seen.get() => Some(value.clone()),
            _ => None,
        }
    }

    /// Somebody has been told of the task's error.
    pub(crate) fn tell(&self) {
        self.seen.set(true);
    }

    async fn ending(&self) -> Ending {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if let Some(ending) = &*self.ending.borrow() {
                return ending.clone();
            }
            ended.await;
        }
    }

    fn cancel(&self) {
        if let Some(abort) = &*self.abort.borrow() {
            abort.abort();
        }
    }
}

/// Marks a task whose future is dropped as cancelled; dropped after all that the task holds.
struct EndOnDrop(Rc<State>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end(Ending::Cancelled);
    }
}

fn spawn(lua: &Lua, arguments: Arguments) -> Outcome<Task> {
    let body = arguments.callback(0)?;
    let values = arguments.rest(1);
    let state = Rc::new(State::default());
    let context = Context::of(lua);
    if !context.live.get() {
        return Err(Error::new(Code::TaskCancelled, "the script has ended")
            .with_hint("a task cannot be started in a `<close>` that runs at the very end")
            .into());
    }
    let running = tokio::task::spawn_local({
        let (lua, state) = (lua.clone(), state.clone());
        async move {
            let end = EndOnDrop(state);
            let outcome = call(&lua, body, values).await;
            end.0.end(match outcome {
                Ok(results) => Ending::Done(results.into_iter().collect()),
                Err(fault) => {
                    let context = Context::of(&lua);
                    let mut unseen = context.unseen.borrow_mut();
                    unseen.retain(|task| task.unseen_error().is_some());
                    unseen.push(end.0.clone());
                    Ending::Raised(fault.into_value(&lua, None))
                }
            });
        }
    });
    *state.abort.borrow_mut() = Some(running.abort_handle());
    Ok(Task(state))
}

impl UserData for Task {
    fn register(registry: &mut UserDataRegistry<Self>) {
        class::register(registry);
    }
}

impl Handle for Task {
    const NAME: &'static str = "task";

    fn close(&self) {
        self.0.seen.set(true);
        self.0.cancel();
    }

    fn define(class: &mut Class<Self>) -> mlua::Result<()> {
        class.waiting("task:join", Results::All, async |_, this: Self, _| {
            let ending = this.0.ending().await;
            this.0.seen.set(true);
            match ending {
                Ending::Done(results) => Ok(MultiValue::from_vec(results)),
                Ending::Raised(value) => Err(Fault::Value(value)),
                Ending::Cancelled => {
                    Err(Error::new(Code::TaskCancelled, "the task was cancelled").into())
                }
            }
        })?;
        class.waiting("task:cancel", Results::None, async |_, this: Self, _| {
            this.0.seen.set(true);
            this.0.cancel();
            // Until its `<close>`s have run. A task that cancels itself ends right here.
            this.0.ending().await;
            Ok(())
        })
    }
}
