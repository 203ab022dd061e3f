//! Looks at the host and at every backend.

use std::io::Write;
use std::sync::Arc;

use anyhow::Context;
use vmoon_core::guest::{LinuxKernel, linux_kernel};
use vmoon_core::vm::Host;
use vmoon_core::{Backend, Capabilities, Error, Fact, Result};

use super::{surroundings, trial};
use crate::{machines, status};

/// What was found.
#[derive(Debug)]
pub(super) struct Findings {
    /// What of the host matters to every backend.
    pub(super) surroundings: Vec<Fact>,
    /// Each backend of this build.
    pub(super) backends: Vec<Finding>,
    /// The kernel for `guest = "linux"`.
    pub(super) linux: Result<LinuxKernel>,
}

/// What was found about a backend.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) name: &'static str,
    pub(super) facts: Vec<Fact>,
    /// What it can do and what the built-in guest did on it, or why there are no machines.
    pub(super) works: Result<(Capabilities, Result<trial::Figures>)>,
}

impl Finding {
    /// Whether machines run.
    pub(super) fn is_well(&self) -> bool {
        matches!(self.works, Ok((_, Ok(_))))
    }

    /// The error that keeps machines from running.
    pub(super) fn error(&self) -> Option<&Error> {
        match &self.works {
            Ok((_, figures)) => figures.as_ref().err(),
            Err(error) => Some(error),
        }
    }
}

/// Examines and prints; the exit status.
pub(crate) fn run(json: bool, color: bool) -> anyhow::Result<i32> {
    let host = machines::host();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    let findings = runtime.block_on(examine(&host));
    let text = if json { format!("{:#}\n", findings.json()) } else { findings.text(color) };
    std::io::stdout().write_all(text.as_bytes()).context("the findings cannot be written")?;
    let well = findings.backends.iter().any(Finding::is_well);
    Ok(if well { status::DONE } else { status::NO_BACKEND })
}

async fn examine(host: &Arc<Host>) -> Findings {
    let mut backends = Vec::new();
    for backend in host.backends() {
        backends.push(finding(host, &**backend).await);
    }
    Findings { surroundings: surroundings::facts(), backends, linux: linux_kernel() }
}

async fn finding(host: &Arc<Host>, backend: &dyn Backend) -> Finding {
    let works = match backend.probe() {
        Ok(()) => Ok((backend.capabilities(), trial::run(host, backend.name()).await)),
        Err(error) => Err(error),
    };
    Finding { name: backend.name(), facts: backend.facts(), works }
}
