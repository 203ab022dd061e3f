//! How long an empty script takes, the whole process.

use std::io;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::figure::{Figure, Samples};
use super::plan::Plan;

/// An empty script.
const EMPTY: &str = "/dev/null";

/// Starts this program and, where it is installed, Lua's own interpreter in turns.
pub(super) fn measure(plan: &Plan) -> anyhow::Result<Figure> {
    let vmoon = std::env::current_exe().context("this program's own file is not known")?;
    let (mut times, mut floor) = (Samples::default(), Samples::default());
    for round in 0..=plan.fewer(4) {
        let time = run(Command::new(&vmoon).args(["run", EMPTY]))
            .with_context(|| format!("{} cannot be run", vmoon.display()))?;
        let lua = run(Command::new("lua5.4").arg(EMPTY)).ok();
        // The first finds nothing in memory.
        if round > 0 {
            times.push(time);
            floor.extend(lua);
        }
    }
    let about = "the whole process of an empty script (floor: lua5.4)";
    Ok(Figure::new("start_script", about, times).with_floor(floor))
}

fn run(command: &mut Command) -> io::Result<Duration> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let begun = Instant::now();
    let status = command.status()?;
    let time = begun.elapsed();
    if status.success() { Ok(time) } else { Err(io::Error::other(status.to_string())) }
}
