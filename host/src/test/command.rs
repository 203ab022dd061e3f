//! The command: from its flags to its exit status.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use vmoon_lua::test::event::Outcome;
use vmoon_lua::test::settings::{Selection, Settings};
use vmoon_lua::test::{Event, Sink};

use super::discover::discover;
use super::flags::Flags;
use super::tally::{Cut, Tally};
use super::workers::{Message, Plan, conclude};
use crate::color::Color;
use crate::report::{self, Reporters};
use crate::{signals, status, watchdog};

/// Runs the tests; the exit status.
pub(crate) fn run(arguments: &Flags, color: Color) -> anyhow::Result<i32> {
    let mut files = discover(&arguments.paths)?;
    let mut tally = Tally { seed: arguments.seed, ..Tally::default() };
    if files.is_empty() {
        return Ok(nothing(arguments, &tally));
    }
    if let Some(seed) = arguments.seed {
        shuffle(&mut files, seed);
    }
    let mut reporters =
        if arguments.list { report::listing() } else { report::of(arguments, color)? };
    let plan = Arc::new(plan(arguments, files, color)?);
    if let Some(timeout) = arguments.timeout {
        let closing = plan.clone();
        watchdog::start(timeout, move || closing.close_all(), color.on_stderr())
            .context("no thread can be started")?;
    }
    let epoch = plan.settings.epoch;
    let messages = plan.start().context("no thread can be started")?;
    for message in messages {
        let (events, cut) = match message {
            Message::Event(event) => (vec![event], None),
            Message::Hold(held) => {
                let _ = held.send(());
                continue;
            }
            Message::Ended { file, worker, ending } => {
                conclude(file, worker, ending, &tally, epoch)
            }
        };
        for event in events {
            tell(&event, &mut tally, &mut reporters)?;
            if arguments.fail_fast && is_failure(&event) {
                plan.settings.stopping.store(true, Ordering::Relaxed);
                tally.cut.get_or_insert(Cut::Failure);
            }
        }
        if let Some(cut) = cut {
            // The other workers hear of it by themselves.
            tally.cut = Some(cut);
        }
    }
    finish(arguments, tally, reporters, epoch.elapsed(), &plan)
}

fn finish(
    arguments: &Flags,
    mut tally: Tally,
    mut reporters: Reporters,
    duration: Duration,
    plan: &Plan,
) -> anyhow::Result<i32> {
    tally.duration = duration;
    if tally.cut.is_none_or(|cut| cut == Cut::Failure) {
        // A signal that arrived between two files.
        if plan.signals.interrupted.load(Ordering::Relaxed) {
            tally.cut = Some(Cut::Interrupted);
        } else if plan.signals.terminated.load(Ordering::Relaxed) {
            tally.cut = Some(Cut::Terminated);
        }
    }
    reporters.end(&tally).context("the report cannot be written")?;
    let found = tally.ended() + tally.listed + tally.unfinished;
    // A part of a suite may be empty, where there are more machines than tests.
    let empty_shard = arguments.shard.is_some() && tally.deselected > 0;
    if found == 0 && tally.cut.is_none() && !empty_shard {
        return Ok(nothing(arguments, &tally));
    }
    Ok(tally.status())
}

fn tell(event: &Event, tally: &mut Tally, reporters: &mut Reporters) -> anyhow::Result<()> {
    tally.hear(event);
    reporters.hear(event, tally).context("the report cannot be written")
}

pub(super) fn is_failure(event: &Event) -> bool {
    matches!(event, Event::TestFinished(result) if result.outcome == Outcome::Failed)
}

fn plan(arguments: &Flags, files: Vec<std::path::PathBuf>, color: Color) -> anyhow::Result<Plan> {
    let signals = signals::catch().context("signals cannot be caught")?;
    let nobody: Sink = Arc::new(|_| {});
    let settings = Settings {
        epoch: Instant::now(),
        selection: Selection {
            filters: arguments.filter.clone(),
            tags: arguments.tag.clone(),
            shard: arguments.shard,
        },
        list: arguments.list,
        retries: arguments.retries,
        seed: arguments.seed,
        artifacts: arguments.artifacts.clone(),
        // At a prompt people want to see what they print.
        capture: !arguments.no_capture && !arguments.repl_on_fail,
        ..Settings::new("", nobody)
    };
    let mut plan = Plan::new(files, arguments.jobs.get(), signals, settings);
    plan.backend = arguments.backend.clone().filter(|name| name != "auto");
    plan.timeout = arguments.timeout;
    plan.fail_fast = arguments.fail_fast;
    plan.prompt = arguments.repl_on_fail.then_some(color);
    Ok(plan)
}

/// Says that there is nothing to run. A run that tests nothing must not look like one that passed.
fn nothing(arguments: &Flags, tally: &Tally) -> i32 {
    let places: Vec<String> =
        arguments.paths.iter().map(|path| path.display().to_string()).collect();
    let places = places.join(", ");
    if tally.deselected > 0 {
        eprintln!("error: none of the {} tests in {places} is selected", tally.deselected);
        eprintln!("  = help: vmoon test --list {places} lists them all");
    } else {
        eprintln!("error: no tests found in {places}");
        eprintln!("  = help: tests are in files named *_test.lua and *_spec.lua");
    }
    status::USAGE
}

/// Fisher and Yates' shuffle, by numbers that are the same on every machine (`SplitMix64`).
fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    for last in (1..items.len()).rev() {
        let other = next() % (last as u64 + 1);
        items.swap(last, usize::try_from(other).unwrap_or(last));
    }
}
