//! The order of the measurements.

use std::io::{IsTerminal, Write};

use anyhow::Context;
use vmoon_core::Code;

use super::environment::Environment;
use super::plan::Plan;
use super::report::Report;
use super::{boot, fork, restore, scale, snapshot, start, vsock};
use crate::{cli, color, machines, status};

/// Measures and prints; the exit status.
pub(crate) fn run(arguments: &cli::Bench, color: bool) -> anyhow::Result<i32> {
    let report = match measure(arguments) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("{}", color::failure(&error, color));
            return Ok(
                match error.downcast_ref::<vmoon_core::Error>().map(vmoon_core::Error::code) {
                    Some(Code::BackendUnavailable | Code::BackendUnsupported) => status::NO_BACKEND,
                    Some(Code::VmSpec) => status::USAGE,
                    _ => status::RAISED,
                },
            );
        }
    };
    let text = if arguments.json { format!("{:#}\n", report.json()) } else { report.to_string() };
    std::io::stdout().write_all(text.as_bytes()).context("the figures cannot be written")?;
    Ok(status::DONE)
}

fn measure(arguments: &cli::Bench) -> anyhow::Result<Report> {
    let plan = Plan::new(arguments);
    let host = machines::host();
    // What is impossible here is refused before anything is measured.
    let backend = host.choose(None, &plan.spec(plan.memory))?;
    let environment = Environment::look(&*backend);
    let progress = Progress::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;

    progress.show("starting scripts");
    let mut figures = vec![start::measure(&plan)?];
    progress.show("booting");
    figures.push(runtime.block_on(boot::measure(&host, &plan))?);
    progress.show("taking snapshots");
    figures.push(runtime.block_on(snapshot::measure(&host, &plan))?);
    progress.show("restoring");
    let [restore, restore_lua, restore_exec, exec] = restore::measure(&host, &plan)?;
    figures.extend([restore, restore_lua, restore_exec]);
    progress.show("forking");
    figures.extend(runtime.block_on(fork::measure(&host, &plan))?);
    figures.push(exec);
    progress.show("talking over vsock");
    let traffic = runtime.block_on(vsock::measure(&host, &plan))?;
    let scale = if arguments.json {
        None
    } else {
        progress.show("forking a hundred machines");
        // These may need more than a host gives; the other figures hold without them.
        let forks = runtime.block_on(scale::forks(&host, &plan));
        progress.show("restoring large machines");
        Some((forks, runtime.block_on(scale::sizes(&host, &plan))))
    };
    Ok(Report { environment, plan, figures, traffic, scale })
}

/// Says on a terminal what takes so long.
struct Progress(bool);

impl Progress {
    fn new() -> Self {
        Self(std::io::stderr().is_terminal())
    }

    fn show(&self, what: &str) {
        if self.0 {
            eprint!("\r\x1b[K{what} …");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.0 {
            eprint!("\r\x1b[K");
        }
    }
}
