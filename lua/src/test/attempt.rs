//! Calls a hook or a test, and keeps what failed.

use std::rc::Rc;
use std::time::Duration;

use mlua::{Function, Lua, MultiValue, Table, UserData, Value};
use vmoon_core::{Code, Error};

use super::describing::{FAILED, SKIPPED};
use super::event::{ConsoleTail, Failure};
use super::state::State;
use crate::context::Context;
use crate::fault::{Fault, Outcome};
use crate::report::Report;
use crate::trace;

/// How much of a console a failure shows, in lines and in bytes.
const TAIL: (usize, usize) = (12, 4096);

/// A failure as Lua holds it.
#[derive(Clone, Debug)]
pub(super) struct Kept(pub(super) Rc<Failure>);

impl UserData for Kept {}

/// How a call ended.
pub(super) enum Ending {
    Returned,
    Skipped(String),
    Failed(Kept),
}

/// Calls `body`, for at most `limit`.
pub(super) async fn attempt(
    lua: &Lua,
    state: &Rc<State>,
    body: Function,
    limit: Option<Duration>,
    phase: &str,
) -> Outcome<Ending> {
    let context = Context::of(lua);
    let handler = state.handler(lua)?;
    let arguments = MultiValue::from_vec(vec![Value::Function(body), Value::Function(handler)]);
    let call = context.xpcall.call_async::<MultiValue>(arguments);
    let results = match limit {
        None => Some(call.await?),
        Some(limit) => {
            tokio::pin!(call);
            tokio::select! {
                biased;
                results = &mut call => Some(results?),
                // The machines are at hand until the call is dropped.
                () = tokio::time::sleep(limit) => { state.look_around(lua); None }
            }
        }
    };
    let Some(mut results) = results else {
        let error = Error::new(
            Code::VmTimeout,
            format!("the test did not end within {limit:?}", limit = limit.unwrap_or_default()),
        )
        .with_hint("its option `timeout` says how long it may take");
        let value = Fault::from(error).into_value(lua, None);
        return Ok(Ending::Failed(keep(lua, state, &value, phase)));
    };
    if matches!(results.pop_front(), Some(Value::Boolean(true))) {
        return Ok(Ending::Returned);
    }
    if context.stop.cause().is_some() {
        // The run is being ended: this future is dropped next.
        std::future::pending::<()>().await;
    }
    let value = results.pop_front().unwrap_or(Value::Nil);
    if let Some(reason) = skipped(&value) {
        return Ok(Ending::Skipped(reason));
    }
    Ok(Ending::Failed(keep(lua, state, &value, phase)))
}

fn code(value: &Value) -> Option<(&Table, String)> {
    let Value::Table(table) = value else { return None };
    Some((table, table.raw_get("code").ok()?))
}

fn skipped(value: &Value) -> Option<String> {
    let (table, code) = code(value)?;
    (code == SKIPPED).then(|| table.raw_get("message").unwrap_or_default())
}

/// Makes a failure of an error.
fn keep(lua: &Lua, state: &State, value: &Value, phase: &str) -> Kept {
    let context = Context::of(lua);
    let note = match value {
        Value::Table(table) => trace::recall(lua, table),
        _ => context.origin(value),
    };
    let mut report =
        Report::new(lua, value, note.unwrap_or_default(), &mut context.sources.borrow_mut());
    report.notes.extend(state.note.borrow_mut().take());
    let failed = code(value).filter(|(_, code)| code == FAILED).map(|(table, _)| table.clone());
    let text = |name: &str| failed.as_ref().and_then(|table| table.raw_get::<String>(name).ok());
    if failed.is_some() {
        // The words are enough.
        report.code = None;
    }
    let consoles = state
        .at_hand
        .borrow()
        .iter()
        .map(|vm| ConsoleTail {
            machine: format!("{} ({}, {})", vm.name(), vm.backend().name(), vm.state()),
            text: tail(&vm.recent_console()),
        })
        .filter(|console| !console.text.is_empty())
        .collect();
    let failure = Failure {
        attempt: 0,
        phase: phase.to_owned(),
        subtest: Vec::new(),
        expectation: failed.is_some(),
        expected: text("expected"),
        observed: text("observed"),
        report,
        consoles,
    };
    Kept(Rc::new(failure))
}

/// The last lines.
fn tail(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(TAIL.1)..]).into_owned();
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(TAIL.0)..].join("\n")
}
