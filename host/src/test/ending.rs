//! What the end of a file says about its tests.

use std::sync::Arc;
use std::time::Duration;

use vmoon_lua::test::event::{Failure, Outcome, TestName, TestResult};
use vmoon_lua::{Ending, Report};

use super::tally::Cut;

/// What ended the whole run with this file, if anything did.
pub(super) fn cut(ending: &Ending) -> Option<Cut> {
    match ending {
        Ending::TimedOut(_) => Some(Cut::Deadline),
        Ending::Interrupted => Some(Cut::Interrupted),
        Ending::Terminated => Some(Cut::Terminated),
        Ending::Done | Ending::Exited(_) | Ending::Raised(_) => None,
    }
}

/// What went wrong beside the tests: while the file was read, or in tasks that nobody joined.
pub(super) fn reports(ending: Ending) -> Vec<Report> {
    match ending {
        Ending::Raised(reports) => reports,
        Ending::TimedOut(report) => vec![*report],
        Ending::Exited(status) => vec![Report {
            message: format!("the file ended its tests with os.exit({status})"),
            ..Report::default()
        }],
        Ending::Done | Ending::Interrupted | Ending::Terminated => Vec::new(),
    }
}

/// A file, or the test that it was running, that failed with these reports.
pub(super) fn failed(
    test: Option<Arc<TestName>>,
    file: &str,
    worker: usize,
    at: Duration,
    reports: Vec<Report>,
) -> TestResult {
    let whole = || TestName { file: file.to_owned(), line: 0, path: Vec::new(), tags: Vec::new() };
    let phase = if test.is_some() { "test" } else { "file" };
    let failures = reports.into_iter().map(|report| Failure {
        attempt: 1,
        phase: phase.to_owned(),
        subtest: Vec::new(),
        expectation: false,
        report,
        expected: None,
        observed: None,
        consoles: Vec::new(),
    });
    TestResult {
        test: test.unwrap_or_else(|| Arc::new(whole())),
        outcome: Outcome::Failed,
        worker,
        started: at,
        duration: Duration::ZERO,
        attempts: 1,
        failures: failures.collect(),
        subtests: Vec::new(),
        output: String::new(),
        artifacts: None,
    }
}
