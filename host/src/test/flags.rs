//! The flags of `vmoon test`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use vmoon_lua::test::settings::Shard;

use crate::cli::duration;

#[derive(Args, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct Flags {
    /// Files, and directories to look for files in; here, if nothing is given
    #[arg(value_name = "PATH", default_value = ".")]
    pub(crate) paths: Vec<PathBuf>,

    /// Run only tests whose full name contains this; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub(crate) filter: Vec<String>,

    /// Run only tests with this tag; may be given several times
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Vec<String>,

    /// How many files to run side by side, as far as their guests fit into memory; `auto` is one for
    /// each CPU
    #[arg(long, value_name = "N", default_value = "1", value_parser = jobs)]
    pub(crate) jobs: NonZeroUsize,

    /// Run one of N equal parts of all tests, counted from 1: 2/3
    #[arg(long, value_name = "I/N", value_parser = shard)]
    pub(crate) shard: Option<Shard>,

    /// Try a test that failed so many times more, each time from the snapshot
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) retries: u32,

    /// Shuffle files and tests by this number
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,

    /// How to tell of the tests
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: Format,

    /// Write the report of this format to a file, and show the pretty one
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Write a page for browsers: a timeline, and all that is known of each test
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,

    /// Write what took time as Chrome trace events, which Perfetto shows
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,

    /// Keep all that is known of failed tests in this directory, machines included
    #[arg(long, value_name = "DIR")]
    pub(crate) artifacts: Option<PathBuf>,

    /// Begin no more tests after the first failure
    #[arg(long)]
    pub(crate) fail_fast: bool,

    /// Open a prompt when a test has failed, with its machines as they are: one file at a time
    #[arg(long, conflicts_with_all = ["list", "jobs"])]
    pub(crate) repl_on_fail: bool,

    /// List the tests that would be run
    #[arg(long)]
    pub(crate) list: bool,

    /// Let tests print to standard output, rather than into their results
    #[arg(long)]
    pub(crate) no_capture: bool,

    /// The backend for machines whose description names none
    #[arg(long, value_name = "BACKEND")]
    pub(crate) backend: Option<String>,

    /// End the run after this long, with exit status 124: seconds, or 250ms, 20s, 2m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
}

/// How tests are told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Pretty,
    /// The Test Anything Protocol, version 14.
    Tap,
    /// `JUnit`, as CI servers read it.
    Junit,
    /// A JSON object a line.
    Json,
    /// For people, with annotations and a summary on GitHub.
    Github,
}

fn jobs(text: &str) -> Result<NonZeroUsize, String> {
    if text == "auto" {
        return Ok(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
    }
    text.parse().map_err(|_| "a number from 1, or `auto`".to_owned())
}

fn shard(text: &str) -> Result<Shard, String> {
    let parts = text.split_once('/');
    let numbers = parts.and_then(|(i, n)| Some((i.parse::<u64>().ok()?, n.parse::<u64>().ok()?)));
    match numbers {
        Some((index, count)) if index >= 1 && index <= count => {
            Ok(Shard { index: index - 1, count })
        }
        _ => Err("which part, from 1, and how many there are: 2/3".to_owned()),
    }
}
