//! What happens in a run of tests, as reports hear of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::report::Report;

/// One thing that happened. Times are since the beginning of the run.
#[derive(Clone, Debug)]
pub enum Event {
    /// A file is about to be read.
    FileStarted {
        /// The file.
        file: String,
        /// Who runs it, from 0.
        worker: usize,
        /// When.
        at: Duration,
    },
    /// A file has been read.
    Planned {
        /// The file.
        file: String,
        /// How many of its tests are selected.
        tests: usize,
        /// How many are not.
        deselected: usize,
    },
    /// A test that would be run; only where tests are listed.
    Listed(Arc<TestName>),
    /// A test begins.
    TestStarted {
        /// The test.
        test: Arc<TestName>,
        /// Who runs it.
        worker: usize,
        /// When.
        at: Duration,
    },
    /// A test has failed, and a conversation about it begins; only where these are held. Its end is
    /// told of after that.
    Failing(Box<TestResult>),
    /// A test is over.
    TestFinished(Box<TestResult>),
    /// Something that takes time has ended.
    Span(Span),
    /// A file is done.
    FileFinished {
        /// The file.
        file: String,
        /// Who ran it.
        worker: usize,
        /// When.
        at: Duration,
    },
}

/// What tells a test from the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestName {
    /// The file, as it was given.
    pub file: String,
    /// The line of the `it`; 0 for what is no test of the user's.
    pub line: usize,
    /// The names of the blocks around it, and its own; empty for a file as a whole.
    pub path: Vec<String>,
    /// Its tags and those of its blocks.
    pub tags: Vec<String>,
}

impl TestName {
    /// The name in one line, as `--filter` sees it.
    pub fn full(&self) -> String {
        self.path.join(" ")
    }
}

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passed.
    Passed,
    /// It passed after it had failed.
    Flaky,
    /// It failed.
    Failed,
    /// It was not run, for this reason.
    Skipped(String),
}

/// All that is known of a test that is over.
#[derive(Clone, Debug)]
pub struct TestResult {
    /// The test.
    pub test: Arc<TestName>,
    /// How it ended.
    pub outcome: Outcome,
    /// Who ran it.
    pub worker: usize,
    /// When it began.
    pub started: Duration,
    /// How long it took.
    pub duration: Duration,
    /// How often it was tried; 0 when it was skipped.
    pub attempts: u32,
    /// What failed, of every attempt.
    pub failures: Vec<Failure>,
    /// Its parts, in order.
    pub subtests: Vec<Subtest>,
    /// What it printed.
    pub output: String,
    /// Where more about the failure is kept.
    pub artifacts: Option<PathBuf>,
}

/// A part of a test.
#[derive(Clone, Debug)]
pub struct Subtest {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub duration: Duration,
    /// Its parts.
    pub subtests: Vec<Subtest>,
}

/// One thing that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The attempt, from 1.
    pub attempt: u32,
    /// `before_each`, `test`, …
    pub phase: String,
    /// The subtests in which it happened, from the outermost.
    pub subtest: Vec<String>,
    /// Whether an expectation failed, rather than something else.
    pub expectation: bool,
    /// What happened.
    pub report: Report,
    /// What was expected, for people; none unless an expectation failed.
    pub expected: Option<String>,
    /// What was observed instead.
    pub observed: Option<String>,
    /// The machines at hand, and the end of what each printed.
    pub consoles: Vec<ConsoleTail>,
}

/// The end of what a machine printed.
#[derive(Clone, Debug)]
pub struct ConsoleTail {
    /// The machine in one line.
    pub machine: String,
    /// The last lines.
    pub text: String,
}

/// What takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// A machine boots.
    Boot,
    /// A fixture is set up.
    Setup,
    /// A snapshot is taken.
    Snapshot,
    /// A machine is made of a snapshot.
    Fork,
    /// A machine goes back to a snapshot.
    Restore,
    /// A test runs, with all of the above that happens in it.
    Test,
}

impl SpanKind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Boot, Self::Setup, Self::Snapshot, Self::Fork, Self::Restore, Self::Test];

    /// The kind's name, in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Setup => "setup",
            Self::Snapshot => "snapshot",
            Self::Fork => "fork",
            Self::Restore => "restore",
            Self::Test => "test",
        }
    }
}

/// A stretch of time.
#[derive(Clone, Debug)]
pub struct Span {
    /// What took the time.
    pub kind: SpanKind,
    /// The fixture or the test.
    pub name: String,
    /// The file.
    pub file: String,
    /// Who did it.
    pub worker: usize,
    /// When it began.
    pub started: Duration,
    /// How long it took.
    pub duration: Duration,
}
