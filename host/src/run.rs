//! `vmoon run`.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use anyhow::Context;
use vmoon_lua::{Config, Ending, Runtime, Script};

use crate::cli;
use crate::color::Color;
use crate::test::Alone;
use crate::{machines, signals, status, watchdog};

/// Runs a script; the exit status.
pub(crate) fn run(arguments: &cli::Run, color: Color) -> anyhow::Result<i32> {
    let script = script(arguments)?;
    let (tests, told) = Alone::new(script.name(), color.on_stdout());
    let epoch = tests.epoch;
    let color = color.on_stderr();
    let config = Config {
        host: machines::host(),
        backend: arguments.backend.clone().filter(|name| name != "auto"),
        timeout: arguments.timeout,
        signals: Some(signals::catch().context("signals cannot be caught")?),
        tests: Some(tests),
    };
    if let Some(timeout) = config.timeout {
        let host = config.host.clone();
        watchdog::start(timeout, move || host.close_all(), color)
            .context("no thread can be started")?;
    }
    let runtime = Runtime::new(config).context("the runtime cannot be started")?;
    let ending = runtime.run(&script).context("Lua cannot be started")?;
    match &ending {
        Ending::Raised(reports) => {
            for report in reports {
                eprintln!("{}", report.paint(color));
            }
        }
        Ending::TimedOut(report) => eprintln!("{}", report.paint(color)),
        Ending::Done | Ending::Exited(_) | Ending::Interrupted | Ending::Terminated => {}
    }
    let tested = told.end(epoch);
    Ok(match (status::of(&ending), tested) {
        (status::DONE, Some(tested)) => tested,
        (status, _) => status,
    })
}

fn script(given: &cli::Run) -> anyhow::Result<Script> {
    let mut words = given.script.iter().cloned();
    if let Some(code) = &given.code {
        return Ok(Script::code(code.clone().into_vec(), words.map(OsString::into_vec).collect()));
    }
    let path = words.next().context("no script was given")?;
    let arguments = words.map(OsString::into_vec).collect();
    if path == "-" {
        let mut text = Vec::new();
        std::io::stdin().read_to_end(&mut text).context("standard input cannot be read")?;
        return Ok(Script::stdin(text, arguments));
    }
    Ok(Script::file(Path::new(&path), arguments)?)
}
