//! How a test ended: from Lua's tables to an event.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mlua::{AnyUserData, Lua, Table, Value};

use super::attempt::Kept;
use super::event::{
    Event, Failure, Outcome as TestOutcome, Span, SpanKind, Subtest, TestName, TestResult,
};
use super::state::State;
use crate::arguments::Arguments;
use crate::class::{Results, function};
use crate::fault::Outcome;

pub(super) fn define(lua: &Lua, native: &Table, state: &Rc<State>) -> mlua::Result<()> {
    let of = state.clone();
    function(lua, native, "vmoon.test.started", Results::None, move |_, arguments| {
        let (worker, at) = (of.settings.worker, of.now());
        // What was printed between two tests belongs to none.
        of.output.borrow_mut().clear();
        of.settings.tell(Event::TestStarted { test: test(&of, &arguments)?, worker, at });
        Ok(())
    })?;
    let of = state.clone();
    function(lua, native, "vmoon.test.finished", Results::None, move |_, arguments| {
        finished(&of, &arguments)
    })?;
    function(lua, native, "vmoon.test.any_failed", Results::One, |_, arguments| {
        Ok(subtests(&arguments.table(0, "subtests")?, 1, &[], &mut Vec::new())?
            .iter()
            .any(|subtest| subtest.outcome == TestOutcome::Failed))
    })
}

/// The test with the number at index 0.
pub(super) fn test(state: &State, arguments: &Arguments) -> Outcome<Arc<TestName>> {
    let tests = state.tests.borrow();
    let number = arguments.count(0, None)?;
    let found = number.checked_sub(1).and_then(|index| tests.get(index)).cloned();
    Ok(found.ok_or_else(|| arguments.wrong(0, "the number of a test"))?)
}

/// Tells of `(number, result)`.
fn finished(state: &State, arguments: &Arguments) -> Outcome<()> {
    let mut result = result(state, arguments)?;
    state.settings.tell(Event::Span(Span {
        kind: SpanKind::Test,
        name: result.test.path.join(" > "),
        file: result.test.file.clone(),
        worker: result.worker,
        started: result.started,
        duration: result.duration,
    }));
    let output = std::mem::take(&mut *state.output.borrow_mut());
    result.output = String::from_utf8_lossy(&output).into_owned();
    result.artifacts = state.artifacts.borrow_mut().take();
    state.settings.tell(Event::TestFinished(Box::new(result)));
    Ok(())
}

/// What became of `(number, result)`, but for what it printed and left.
pub(super) fn result(state: &State, arguments: &Arguments) -> Outcome<TestResult> {
    let test = test(state, arguments)?;
    let table = arguments.table(1, "a result")?;
    let started = seconds(&table, "started")?;
    let attempts: u32 = table.raw_get("attempts")?;
    let mut failures = Vec::new();
    let mut parts = Vec::new();
    // Each attempt: `{ failures = { … }, subtests = { … } }`.
    for (index, tried) in table.raw_get::<Table>("tries")?.sequence_values::<Table>().enumerate() {
        let tried = tried?;
        let attempt = u32::try_from(index + 1).unwrap_or(u32::MAX);
        let mut found = Vec::new();
        parts = match tried.raw_get("subtests")? {
            Value::Table(list) => subtests(&list, attempt, &[], &mut found)?,
            _ => Vec::new(),
        };
        for kept in tried.raw_get::<Table>("failures")?.sequence_values::<AnyUserData>() {
            found.push(failure(&kept?, attempt, &[])?);
        }
        failures.append(&mut found);
    }
    let held = match table.raw_get("held")? {
        Value::Nil => Duration::ZERO,
        _ => seconds(&table, "held")?,
    };
    let passed = table.raw_get::<Option<bool>>("passed")?.unwrap_or(false);
    let skipped: Option<String> = table.raw_get("skipped")?;
    let outcome = match skipped {
        _ if passed && attempts > 1 => TestOutcome::Flaky,
        None if passed => TestOutcome::Passed,
        Some(reason) if failures.is_empty() => TestOutcome::Skipped(reason),
        _ => TestOutcome::Failed,
    };
    Ok(TestResult {
        test,
        outcome,
        worker: state.settings.worker,
        started,
        duration: state.now().saturating_sub(started + held),
        attempts,
        failures,
        subtests: parts,
        output: String::new(),
        artifacts: None,
    })
}

fn seconds(table: &Table, name: &str) -> mlua::Result<Duration> {
    let seconds: f64 = table.raw_get(name)?;
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

fn failure(kept: &AnyUserData, attempt: u32, path: &[String]) -> Outcome<Failure> {
    let kept = kept.borrow::<Kept>()?.0.clone();
    Ok(Failure { attempt, subtest: path.to_vec(), ..(*kept).clone() })
}

/// The subtests in a list, whose failures are added to `failures`.
pub(super) fn subtests(
    list: &Table,
    attempt: u32,
    path: &[String],
    failures: &mut Vec<Failure>,
) -> Outcome<Vec<Subtest>> {
    let mut subtests = Vec::new();
    for table in list.sequence_values::<Table>() {
        let table = table?;
        let name: String = table.raw_get::<mlua::LuaString>("name")?.to_string_lossy();
        let mut inner = path.to_vec();
        inner.push(name.clone());
        let own: Option<AnyUserData> = table.raw_get("failure")?;
        let parts = self::subtests(&table.raw_get("subtests")?, attempt, &inner, failures)?;
        let skipped: Option<String> = table.raw_get("skipped")?;
        let ended: Option<f64> = table.raw_get("ended")?;
        let below = parts.iter().any(|part| part.outcome == TestOutcome::Failed);
        let outcome = match skipped {
            // One that did not end was still running when its test was ended.
            _ if own.is_some() || below || ended.is_none() => TestOutcome::Failed,
            Some(reason) => TestOutcome::Skipped(reason),
            None => TestOutcome::Passed,
        };
        if let Some(own) = own {
            failures.push(failure(&own, attempt, &inner)?);
        }
        let started = seconds(&table, "started")?;
        let ended = ended.and_then(|ended| Duration::try_from_secs_f64(ended).ok());
        let duration = ended.unwrap_or(started).saturating_sub(started);
        subtests.push(Subtest { name, outcome, duration, subtests: parts });
    }
    Ok(subtests)
}
