//! The Test Anything Protocol, version 14, with YAML diagnostics and subtests.

use std::io::{self, Write};

use serde_json::json;
use vmoon_lua::test::Event;
use vmoon_lua::test::event::{Outcome, Subtest, TestResult};

use super::Reporter;
use super::failure::{self, title};
use crate::test::{Cut, Tally};

pub(super) struct Tap {
    out: Box<dyn Write + Send>,
    begun: bool,
    count: usize,
}

impl Tap {
    pub(super) fn new(out: Box<dyn Write + Send>) -> Self {
        Self { out, begun: false, count: 0 }
    }

    fn begin(&mut self) -> io::Result<()> {
        if !self.begun {
            self.begun = true;
            writeln!(self.out, "TAP version 14")?;
        }
        Ok(())
    }

    fn test(&mut self, result: &TestResult) -> io::Result<()> {
        self.count += 1;
        let name = format!("{}: {}", result.test.file, title(&result.test));
        subtests(&mut self.out, &name, &result.subtests, 0)?;
        point(&mut self.out, 0, self.count, &name, &result.outcome)?;
        diagnostics(&mut self.out, result)?;
        self.out.flush()
    }
}

/// One line of results, indented by the depth of its subtest.
fn point(
    out: &mut impl Write,
    depth: usize,
    number: usize,
    name: &str,
    outcome: &Outcome,
) -> io::Result<()> {
    let verdict = if *outcome == Outcome::Failed { "not ok" } else { "ok" };
    write!(out, "{:1$}{verdict} {number} - {2}", "", 4 * depth, escape(name))?;
    match outcome {
        Outcome::Skipped(reason) => writeln!(out, " # SKIP {}", escape(reason)),
        _ => writeln!(out),
    }
}

fn subtests(out: &mut impl Write, name: &str, parts: &[Subtest], depth: usize) -> io::Result<()> {
    if parts.is_empty() {
        return Ok(());
    }
    writeln!(out, "{:1$}# Subtest: {2}", "", 4 * depth, one_line(name))?;
    for (index, part) in parts.iter().enumerate() {
        subtests(out, &part.name, &part.subtests, depth + 1)?;
        point(out, depth + 1, index + 1, &part.name, &part.outcome)?;
    }
    writeln!(out, "{:1$}1..{2}", "", 4 * (depth + 1), parts.len())
}

/// Writes what is known of a test, as YAML. Its values are JSON, which YAML includes.
fn diagnostics(out: &mut impl Write, result: &TestResult) -> io::Result<()> {
    writeln!(out, "  ---")?;
    let mut field = |name: &str, value: serde_json::Value| writeln!(out, "  {name}: {value}");
    field("duration_ms", json!(result.duration.as_secs_f64() * 1e3))?;
    if result.outcome == Outcome::Flaky {
        field("flaky", json!(true))?;
    }
    if result.attempts > 1 {
        field("attempts", json!(result.attempts))?;
    }
    if result.outcome == Outcome::Failed
        && let Some(first) = result.failures.last()
    {
        let (file, line) = failure::file_and_line(result, first);
        field("message", json!(failure::headline(first)))?;
        field("severity", json!(if first.expectation { "fail" } else { "error" }))?;
        field("at", json!({ "file": file, "line": line }))?;
        if let (Some(expected), Some(observed)) = (&first.expected, &first.observed) {
            field("expected", json!(expected))?;
            field("observed", json!(observed))?;
        }
        let mut text = Vec::new();
        failure::write(&mut text, result, &failure::PLAIN)?;
        field("details", json!(String::from_utf8_lossy(&text)))?;
    }
    if let Some(folder) = &result.artifacts {
        field("artifacts", json!(folder.display().to_string()))?;
    }
    writeln!(out, "  ...")
}

/// A description: `#` begins a directive, and `\` escapes it.
fn escape(text: &str) -> String {
    one_line(text).replace('\\', "\\\\").replace('#', "\\#")
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

impl Reporter for Tap {
    fn hear(&mut self, event: &Event, _: &Tally) -> io::Result<()> {
        self.begin()?;
        match event {
            Event::TestFinished(result) => self.test(result),
            _ => Ok(()),
        }
    }

    fn end(&mut self, tally: &Tally) -> io::Result<()> {
        self.begin()?;
        let bail = match tally.cut {
            Some(Cut::Deadline) => Some("the deadline was reached"),
            Some(Cut::Interrupted | Cut::Terminated) => Some("interrupted"),
            Some(Cut::Failure) | None => None,
        };
        if let Some(bail) = bail {
            writeln!(self.out, "Bail out! {bail}")?;
        }
        writeln!(self.out, "1..{}", self.count)?;
        if let Some(seed) = tally.seed {
            writeln!(self.out, "# shuffled with --seed {seed}")?;
        }
        writeln!(self.out, "# {}", tally.line())?;
        self.out.flush()
    }
}
