//! Folders of `vmoon.test` files, and what `vmoon test` says of them.

use std::path::Path;
use std::time::Duration;

use crate::process::{Ended, run, vmoon};
use crate::skip;

/// How long one run may take.
pub const DEADLINE: Duration = Duration::from_mins(2);

/// What most files here begin with.
pub const WORDS: &str = "local vmoon = require 'vmoon'
    local test = require 'vmoon.test'
    local describe, it, expect = test.describe, test.it, test.expect\n";

/// A folder of tests.
#[derive(Debug)]
pub struct Suite(tempfile::TempDir);

impl Suite {
    /// A folder with these files, each after [`WORDS`].
    ///
    /// # Panics
    /// When they cannot be written.
    pub fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, code) in files {
            let path = folder.path().join(name);
            let parent = path.parent().expect("it has a folder");
            std::fs::create_dir_all(parent).expect("a folder can be made");
            std::fs::write(path, format!("{WORDS}{code}")).expect("a file can be written");
        }
        Self(folder)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// `vmoon test` in the folder.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        let all = ["test"].iter().chain(arguments);
        run(vmoon(all).current_dir(self.path()), DEADLINE)
    }
}

/// Asserts that standard output contains each of `lines`.
#[track_caller]
pub fn expect_lines(ended: &Ended, lines: &[&str]) {
    for line in lines {
        assert!(ended.stdout.contains(line), "no {line:?} in standard output\n{ended}");
    }
}

/// Asserts the last line of standard output.
#[track_caller]
pub fn expect_figures(ended: &Ended, line: &str) {
    assert_eq!(ended.stdout.lines().next_back(), Some(line), "the last line\n{ended}");
}

/// Whether machines can run; says so if not.
pub fn machines(test: &str) -> bool {
    match skip::without_kvm() {
        None => true,
        Some(missing) => {
            skip::skip(test, &missing);
            false
        }
    }
}
