//! How tests are run, as the program around the runtime wants it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::event::{Event, TestName};
use super::fixtures::Fixtures;

/// Hears what happens.
pub type Sink = Arc<dyn Fn(Event) + Send + Sync>;

/// How the tests of one file are run.
#[derive(Clone)]
pub struct Settings {
    /// The file, as people know it.
    pub file: String,
    /// Who runs it, from 0.
    pub worker: usize,
    /// When the run began.
    pub epoch: Instant,
    /// Which tests are run.
    pub selection: Selection,
    /// Whether tests are listed rather than run.
    pub list: bool,
    /// How often a failed test is tried again, unless it says so itself.
    pub retries: u32,
    /// What shuffles the tests; none for the order in which they are written.
    pub seed: Option<u64>,
    /// Whether what tests print is kept for their results.
    pub capture: bool,
    /// Where what is known of failed tests is kept.
    pub artifacts: Option<PathBuf>,
    /// Set when no more tests are to be begun.
    pub stopping: Arc<AtomicBool>,
    /// Fixtures that other files can use.
    pub fixtures: Arc<Fixtures>,
    /// Hears what happens.
    pub sink: Sink,
}

impl Settings {
    /// Runs all tests of a file, one after the other, and tells `sink`.
    pub fn new(file: impl Into<String>, sink: Sink) -> Self {
        Self {
            file: file.into(),
            worker: 0,
            epoch: Instant::now(),
            selection: Selection::default(),
            list: false,
            retries: 0,
            seed: None,
            capture: false,
            artifacts: None,
            stopping: Arc::default(),
            fixtures: Arc::default(),
            sink,
        }
    }

    pub(super) fn tell(&self, event: Event) {
        (self.sink)(event);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("file", &self.file).finish_non_exhaustive()
    }
}

/// Which tests are run.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Text of which a test's full name must contain one; any test, if there is none.
    pub filters: Vec<String>,
    /// Tags of which a test must have one; any test, if there is none.
    pub tags: Vec<String>,
    /// The part of all tests that is run here.
    pub shard: Option<Shard>,
}

/// One of several equal parts of all tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which part, from 0.
    pub index: u64,
    /// How many parts there are.
    pub count: u64,
}

impl Selection {
    /// Whether the test is run.
    pub fn has(&self, test: &TestName) -> bool {
        self.named(test) && self.tagged(test) && self.shard.is_none_or(|shard| shard.has(test))
    }

    fn named(&self, test: &TestName) -> bool {
        let (spoken, shown) = (test.full(), test.path.join(" > "));
        let holds = |filter: &String| spoken.contains(filter) || shown.contains(filter);
        self.filters.is_empty() || self.filters.iter().any(holds)
    }

    fn tagged(&self, test: &TestName) -> bool {
        let has = |tag: &String| test.tags.contains(&tag.trim_start_matches('#').to_owned());
        self.tags.is_empty() || self.tags.iter().any(has)
    }
}

impl Shard {
    /// Whether the test is in this part. It depends on nothing but the test's own name and file,
    /// so that a new test moves no other.
    fn has(self, test: &TestName) -> bool {
        let mut hasher = blake3::Hasher::new();
        for part in std::iter::once(&test.file).chain(&test.path) {
            hasher.update(part.as_bytes()).update(b"\0");
        }
        let hash = hasher.finalize();
        let (number, _) = hash.as_bytes().split_at(8);
        let number = number.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte));
        number % self.count == self.index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(name: &str, tags: &[&str]) -> TestName {
        TestName {
            file: "a_test.lua".to_owned(),
            line: 1,
            path: vec!["the store".to_owned(), name.to_owned()],
            tags: tags.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn filters_and_tags_select_any_that_match_one() {
        let selection = |filters: &[&str], tags: &[&str]| Selection {
            filters: filters.iter().map(ToString::to_string).collect(),
            tags: tags.iter().map(ToString::to_string).collect(),
            shard: None,
        };
        let slow = test("keeps", &["slow"]);
        for (filters, tags, expected) in [
            (&[][..], &[][..], true),
            (&["store keeps"], &[], true),
            (&["store > keeps"], &[], true),
            (&["nothing", "keep"], &[], true),
            (&["nothing"], &[], false),
            (&[], &["slow"], true),
            (&[], &["#slow", "net"], true),
            (&[], &["net"], false),
            (&["nothing"], &["slow"], false),
        ] {
            assert_eq!(selection(filters, tags).has(&slow), expected, "{filters:?} {tags:?}");
        }
    }

    #[test]
    fn shards_share_out_all_tests_and_each_once() {
        let names: Vec<_> = (0..200).map(|n| test(&format!("case {n}"), &[])).collect();
        let mut sizes = vec![0; 4];
        for name in &names {
            let parts: Vec<u64> =
                (0..4).filter(|index| Shard { index: *index, count: 4 }.has(name)).collect();
            assert_eq!(parts.len(), 1, "{name:?}");
            sizes[usize::try_from(parts[0]).unwrap()] += 1;
        }
        assert!(sizes.iter().all(|size| (25..=75).contains(size)), "{sizes:?}");
    }
}
