//! Counts what became of the tests.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use vmoon_core::Code;
use vmoon_lua::test::Event;
use vmoon_lua::test::event::{Outcome, TestName, TestResult};

use crate::status;

/// The figures of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Tests that passed, the flaky ones among them.
    pub(crate) passed: usize,
    /// Tests that failed.
    pub(crate) failed: usize,
    /// Tests that were not run.
    pub(crate) skipped: usize,
    /// Tests that passed after they had failed.
    pub(crate) flaky: usize,
    /// Files that were read.
    pub(crate) files: usize,
    /// Tests that the flags did not select.
    pub(crate) deselected: usize,
    /// Tests that were listed.
    pub(crate) listed: usize,
    /// Tests that were selected, and have not ended.
    pub(crate) unfinished: usize,
    /// How many of the failures were for want of a backend.
    pub(crate) without_backend: usize,
    /// What ended the run early.
    pub(crate) cut: Option<Cut>,
    /// What shuffled the tests.
    pub(crate) seed: Option<u64>,
    /// How long the run took.
    pub(crate) duration: Duration,
    /// The test that each worker runs.
    pub(super) running: HashMap<usize, Arc<TestName>>,
}

/// What ends a run early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The first failure, where that was asked for.
    Failure,
    /// `--timeout`.
    Deadline,
    /// SIGINT.
    Interrupted,
    /// SIGTERM.
    Terminated,
}

impl Tally {
    /// Counts an event.
    pub(crate) fn hear(&mut self, event: &Event) {
        match event {
            Event::FileStarted { .. } => self.files += 1,
            Event::Planned { tests, deselected, .. } => {
                self.unfinished += tests;
                self.deselected += deselected;
            }
            Event::Listed(_) => self.listed += 1,
            Event::TestStarted { test, worker, .. } => {
                self.running.insert(*worker, test.clone());
            }
            Event::TestFinished(result) => self.count(result),
            Event::Span(_) | Event::Failing(_) | Event::FileFinished { .. } => {}
        }
    }

    fn count(&mut self, result: &TestResult) {
        self.running.remove(&result.worker);
        self.unfinished = self.unfinished.saturating_sub(1);
        match result.outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Flaky => {
                self.passed += 1;
                self.flaky += 1;
            }
            Outcome::Skipped(_) => self.skipped += 1,
            Outcome::Failed => {
                self.failed += 1;
                let code = Some(Code::BackendUnavailable.as_str());
                let lacking = |failure: &vmoon_lua::test::event::Failure| {
                    failure.report.code.as_deref() == code
                };
                if !result.failures.is_empty() && result.failures.iter().all(lacking) {
                    self.without_backend += 1;
                }
            }
        }
    }

    /// The test that a worker was running when it was stopped.
    pub(crate) fn running(&self, worker: usize) -> Option<Arc<TestName>> {
        self.running.get(&worker).cloned()
    }

    /// How many tests have ended.
    pub(crate) fn ended(&self) -> usize {
        self.passed + self.failed + self.skipped
    }

    /// The exit status.
    pub(crate) fn status(&self) -> i32 {
        match self.cut {
            Some(Cut::Interrupted) => status::INTERRUPTED,
            Some(Cut::Terminated) => status::TERMINATED,
            Some(Cut::Deadline) => status::TIMEOUT,
            _ if self.failed == 0 => status::DONE,
            _ if self.failed == self.without_backend => status::NO_BACKEND,
            _ => status::RAISED,
        }
    }

    /// The line that ends every run.
    pub(crate) fn line(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}
