//! `JUnit`'s XML: a suite for each file, as Jenkins and GitLab read it.

use std::io::{self, Write};

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestRerun, TestSuite};
use vmoon_lua::test::Event;
use vmoon_lua::test::event::{Failure, Outcome, TestResult};

use super::Reporter;
use super::failure;
use crate::test::Tally;

pub(super) struct Junit {
    out: Box<dyn Write + Send>,
    /// Whether the line for people goes to standard error.
    alone: bool,
    results: Vec<TestResult>,
}

impl Junit {
    pub(super) fn new(out: Box<dyn Write + Send>, alone: bool) -> Self {
        Self { out, alone, results: Vec::new() }
    }

    fn report(&self, tally: &Tally) -> Report {
        let mut report = Report::new("vmoon");
        report.set_time(tally.duration);
        let mut files: Vec<&str> = self.results.iter().map(|r| r.test.file.as_str()).collect();
        files.sort_unstable();
        files.dedup();
        for file in files {
            let results: Vec<&TestResult> =
                self.results.iter().filter(|result| result.test.file == file).collect();
            let mut suite = TestSuite::new(file);
            suite.extra.insert("file".into(), file.into());
            suite.set_time(results.iter().map(|result| result.duration).sum());
            suite.add_test_cases(results.into_iter().map(case));
            report.add_test_suite(suite);
        }
        report
    }
}

/// The text without `skipped` in the first element, where the schema of Jenkins' xunit plugin does
/// not know it. Suites keep theirs.
fn without_skipped(text: &str) -> String {
    let parts = text.split_once("<testsuites ").and_then(|(before, rest)| {
        let (first, after) = rest.split_once('>')?;
        let (head, tail) = first.split_once(" skipped=\"")?;
        let (_, tail) = tail.split_once('"')?;
        Some(format!("{before}<testsuites {head}{tail}>{after}"))
    });
    parts.unwrap_or_else(|| text.to_owned())
}

/// The names that CI servers show: the class is the file with the blocks.
fn case(result: &TestResult) -> TestCase {
    let (name, blocks) = match result.test.path.split_last() {
        Some((name, blocks)) => (name.as_str(), blocks),
        None => ("the file itself", &[][..]),
    };
    let mut class = vec![result.test.file.trim_end_matches(".lua").replace(['/', '.'], "_")];
    class.extend(blocks.iter().map(|block| block.replace('.', " ")));
    let mut case = TestCase::new(name, status(result));
    case.set_classname(class.join("."));
    case.set_time(result.duration);
    if !result.output.is_empty() {
        // Tabs would be lost.
        case.set_system_out(result.output.replace('\t', "    "));
    }
    let consoles: Vec<String> = result
        .failures
        .iter()
        .flat_map(|failure| &failure.consoles)
        .map(|console| format!("{}\n{}", console.machine, console.text))
        .collect();
    if !consoles.is_empty() {
        case.set_system_err(consoles.join("\n\n"));
    }
    case
}

fn status(result: &TestResult) -> TestCaseStatus {
    match &result.outcome {
        Outcome::Passed => TestCaseStatus::success(),
        Outcome::Skipped(reason) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(reason.as_str());
            status
        }
        Outcome::Flaky => {
            let mut status = TestCaseStatus::success();
            for failed in &result.failures {
                status.add_rerun(rerun(result, failed));
            }
            status
        }
        Outcome::Failed => {
            // What failed first explains the most.
            let last = result.attempts;
            let mut own = result.failures.iter().filter(|failure| failure.attempt == last);
            let Some(first) = own.next().or(result.failures.first()) else {
                return TestCaseStatus::non_success(NonSuccessKind::Failure);
            };
            let mut status = TestCaseStatus::non_success(kind(first));
            status.set_message(failure::headline(first));
            status.set_type(type_of(first));
            status.set_description(text(result, last));
            for failed in result.failures.iter().filter(|failure| failure.attempt != last) {
                status.add_rerun(rerun(result, failed));
            }
            status
        }
    }
}

fn type_of(failure: &Failure) -> &str {
    let plain = if failure.expectation { "expectation" } else { "error" };
    failure.report.code.as_deref().unwrap_or(plain)
}

fn kind(failure: &Failure) -> NonSuccessKind {
    if failure.expectation { NonSuccessKind::Failure } else { NonSuccessKind::Error }
}

fn rerun(result: &TestResult, failed: &Failure) -> TestRerun {
    let mut rerun = TestRerun::new(kind(failed));
    rerun.set_message(failure::headline(failed));
    rerun.set_type(type_of(failed));
    rerun.set_description(text(result, failed.attempt));
    rerun
}

/// All that failed in one attempt.
fn text(result: &TestResult, attempt: u32) -> String {
    let failures = result.failures.iter().filter(|failure| failure.attempt == attempt);
    let part = TestResult {
        failures: failures.cloned().collect(),
        output: String::new(),
        ..result.clone()
    };
    let mut text = Vec::new();
    match failure::write(&mut text, &part, &failure::PLAIN) {
        Ok(()) => String::from_utf8_lossy(&text).into_owned(),
        Err(error) => error.to_string(),
    }
}

impl Reporter for Junit {
    fn hear(&mut self, event: &Event, _: &Tally) -> io::Result<()> {
        if let Event::TestFinished(result) = event {
            self.results.push((**result).clone());
        }
        Ok(())
    }

    fn end(&mut self, tally: &Tally) -> io::Result<()> {
        let text = self.report(tally).to_string().map_err(io::Error::other)?;
        let text = without_skipped(&text);
        self.out.write_all(text.as_bytes())?;
        self.out.flush()?;
        if self.alone {
            writeln!(io::stderr(), "{}", tally.line())?;
        }
        Ok(())
    }
}
