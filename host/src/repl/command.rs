//! What the command line asks for.

use std::cell::Cell;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use anyhow::Context;
use vmoon_lua::{Config, Ending, Evaluation, Report, Runtime, Script, Session};

use super::{piped, talk};
use crate::color::Color;
use crate::{cli, machines, signals, status};

/// Makes `vm` and `snap` of a saved snapshot.
const OPEN_SNAPSHOT: &str = "snap = vmoon.load(...) vm = snap:fork()";

/// Holds a conversation; the exit status.
pub(crate) fn run(arguments: &cli::Repl, color: Color) -> anyhow::Result<i32> {
    let mut words = arguments.script.iter().cloned();
    let first = words.next();
    let rest: Vec<Vec<u8>> = words.map(OsString::into_vec).collect();
    let script = first.map(|path| Script::file(Path::new(&path), rest)).transpose()?;
    let config = Config {
        host: machines::host(),
        backend: arguments.backend.clone().filter(|name| name != "auto"),
        timeout: None,
        signals: Some(signals::catch_for_conversation().context("signals cannot be caught")?),
        tests: None,
    };
    let runtime = Runtime::new(config).context("the runtime cannot be started")?;
    let nothing = Script::code("", Vec::new());
    let status = Cell::new(status::DONE);
    let ending = runtime
        .converse(script.as_ref().unwrap_or(&nothing), async |session| {
            status.set(begin(session, arguments, script.as_ref(), color).await);
        })
        .context("Lua cannot be started")?;
    match &ending {
        Ending::Done => Ok(status.get()),
        Ending::Raised(reports) => {
            print_reports(reports, color.on_stderr());
            Ok(status::RAISED)
        }
        other => Ok(status::of(other)),
    }
}

async fn begin(
    session: Session,
    arguments: &cli::Repl,
    script: Option<&Script>,
    color: Color,
) -> i32 {
    let mut status = status::DONE;
    if let Some(directory) = &arguments.snapshot {
        let directory = directory.clone().into_os_string().into_vec();
        let opened = session.run(&Script::code(OPEN_SNAPSHOT, vec![directory])).await;
        let failed = told(&opened, color.on_stderr());
        // Without it there is nothing to talk about.
        if failed != status::DONE {
            return failed;
        }
    }
    if let Some(script) = script {
        status = told(&session.run(script).await, color.on_stderr());
    }
    if !std::io::stdin().is_terminal() {
        return piped::talk(session, color.on_stderr(), status).await;
    }
    let greeting = format!(
        "vmoon {}, {}. help() tells what there is, Ctrl-D leaves and closes all machines.",
        env!("CARGO_PKG_VERSION"),
        "Lua 5.4"
    );
    let talk = talk::Talk { color, console: !arguments.no_console, greeting };
    match talk::talk(session, talk).await {
        Ok(()) => status::DONE,
        Err(error) => {
            eprintln!("{}", crate::color::failure(&error, color.on_stderr()));
            status::RAISED
        }
    }
}

/// Tells how something ended that was run before the conversation; its exit status.
fn told(evaluation: &Evaluation, color: bool) -> i32 {
    match evaluation {
        Evaluation::Values(_) => status::DONE,
        Evaluation::Interrupted => status::INTERRUPTED,
        Evaluation::Raised(reports) => {
            print_reports(reports, color);
            if reports.iter().any(status::lacks_backend) {
                status::NO_BACKEND
            } else {
                status::RAISED
            }
        }
    }
}

/// Prints errors as `vmoon run` does.
pub(super) fn print_reports(reports: &[Report], color: bool) {
    for report in reports {
        eprintln!("{}", report.paint(color));
    }
}
