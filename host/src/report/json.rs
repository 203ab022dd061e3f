//! JSON lines: an object for each test, and one for the end.

use std::io::{self, Write};

use serde_json::{Value, json};
use vmoon_lua::test::Event;
use vmoon_lua::test::event::{Failure, Outcome, Subtest, TestName, TestResult};

use super::Reporter;
use super::failure;
use crate::test::{Cut, Tally};

pub(super) struct Json {
    out: Box<dyn Write + Send>,
    /// Whether the line for people goes to standard error.
    alone: bool,
}

impl Json {
    pub(super) fn new(out: Box<dyn Write + Send>, alone: bool) -> Self {
        Self { out, alone }
    }

    fn write(&mut self, value: &Value) -> io::Result<()> {
        writeln!(self.out, "{value}")?;
        self.out.flush()
    }
}

impl Reporter for Json {
    fn hear(&mut self, event: &Event, _: &Tally) -> io::Result<()> {
        match event {
            Event::FileStarted { file, worker, at } => self.write(&json!({
                "event": "file", "file": file, "worker": worker, "at_s": at.as_secs_f64(),
            })),
            Event::TestStarted { test, worker, at } => {
                let mut object = name(test);
                object["event"] = json!("start");
                object["worker"] = json!(worker);
                object["at_s"] = json!(at.as_secs_f64());
                self.write(&object)
            }
            Event::TestFinished(result) => {
                let mut object = test(result);
                object["event"] = json!("test");
                self.write(&object)
            }
            Event::Span(_)
            | Event::Failing(_)
            | Event::Planned { .. }
            | Event::Listed(_)
            | Event::FileFinished { .. } => Ok(()),
        }
    }

    fn end(&mut self, tally: &Tally) -> io::Result<()> {
        let mut object = summary(tally);
        object["event"] = json!("summary");
        self.write(&object)?;
        if self.alone {
            writeln!(io::stderr(), "{}", tally.line())?;
        }
        Ok(())
    }
}

/// The figures of a run.
pub(super) fn summary(tally: &Tally) -> Value {
    json!({
        "passed": tally.passed,
        "failed": tally.failed,
        "skipped": tally.skipped,
        "flaky": tally.flaky,
        "files": tally.files,
        "deselected": tally.deselected,
        "unfinished": tally.unfinished,
        "seed": tally.seed,
        "duration_s": tally.duration.as_secs_f64(),
        "ended_early": tally.cut.map(|cut| match cut {
            Cut::Failure => "failure",
            Cut::Deadline => "deadline",
            Cut::Interrupted => "interrupted",
            Cut::Terminated => "terminated",
        }),
    })
}

fn name(test: &TestName) -> Value {
    json!({
        "file": test.file, "line": test.line, "name": test.full(), "path": test.path,
        "tags": test.tags,
    })
}

/// All that is known of a test.
pub(super) fn test(result: &TestResult) -> Value {
    let mut object = name(&result.test);
    let (outcome, reason) = outcome(&result.outcome);
    object["outcome"] = json!(outcome);
    object["reason"] = json!(reason);
    object["worker"] = json!(result.worker);
    object["started_s"] = json!(result.started.as_secs_f64());
    object["duration_s"] = json!(result.duration.as_secs_f64());
    object["attempts"] = json!(result.attempts);
    object["failures"] = result.failures.iter().map(|failed| failure(result, failed)).collect();
    object["subtests"] = result.subtests.iter().map(subtest).collect();
    object["output"] = json!(result.output);
    object["artifacts"] = json!(result.artifacts);
    object
}

fn outcome(outcome: &Outcome) -> (&'static str, Option<&str>) {
    match outcome {
        Outcome::Passed => ("passed", None),
        Outcome::Flaky => ("flaky", None),
        Outcome::Failed => ("failed", None),
        Outcome::Skipped(reason) => ("skipped", Some(reason)),
    }
}

fn failure(result: &TestResult, failed: &Failure) -> Value {
    let (file, line) = failure::file_and_line(result, failed);
    let difference = match (&failed.expected, &failed.observed) {
        (Some(expected), Some(observed)) => json!(
            failure::lines(expected, observed).iter().map(difference_line).collect::<Vec<_>>()
        ),
        _ => Value::Null,
    };
    json!({
        "attempt": failed.attempt,
        "phase": failed.phase,
        "subtest": failed.subtest,
        "kind": if failed.expectation { "expectation" } else { "error" },
        "code": failed.report.code,
        "message": failed.report.message,
        "hint": failed.report.hint,
        "file": file,
        "line": line,
        "text": failed.report.to_string(),
        "expected": failed.expected,
        "observed": failed.observed,
        "difference": difference,
        "consoles": failed.consoles.iter().map(|console| {
            json!({ "machine": console.machine, "text": console.text })
        }).collect::<Vec<_>>(),
    })
}

/// `[" ", text]`, `["-", text]`, `["+", text]`, or the number of lines that were left out.
fn difference_line(line: &failure::Line) -> Value {
    match line {
        failure::Line::Same(text) => json!([" ", text]),
        failure::Line::Expected(text) => json!(["-", text]),
        failure::Line::Observed(text) => json!(["+", text]),
        failure::Line::Left(count) => json!(count),
    }
}

fn subtest(part: &Subtest) -> Value {
    let (outcome, reason) = outcome(&part.outcome);
    json!({
        "name": part.name,
        "outcome": outcome,
        "reason": reason,
        "duration_s": part.duration.as_secs_f64(),
        "subtests": part.subtests.iter().map(subtest).collect::<Vec<_>>(),
    })
}
