//! Exec, spawn and watches, by way of the agent.

use std::time::Duration;

use vmoon_protocol::watch::{Process as Awaited, Unit, Watch};

use super::machine::Vm;
use crate::agent::{AgentClient, ExecRequest, ExecResult, Observed, Process};
use crate::error::{Code, Error, Result};
use crate::lifecycle::Operation;
use crate::race;

impl Vm {
    /// Runs a command to its end and collects its output. A code other than zero is data. A
    /// machine that has just started is waited for. Cancel-safe: dropping the future kills the
    /// command.
    ///
    /// # Errors
    /// `vm.state`, `exec.timeout`, `exec.not_found`, `agent.unavailable`, `guest.panic`,
    /// `guest.stopped`; `vsock.reset` when a restore came between.
    pub async fn exec(&self, request: ExecRequest) -> Result<ExecResult> {
        let agent = self.commandable()?;
        let what = self.transcript.describe(|| format!("exec {:?}", request.describe()));
        self.transcript.note(what, agent.exec(request)).await
    }

    /// Starts a command whose output is streamed.
    ///
    /// # Errors
    /// Those of [`Vm::exec`].
    pub async fn spawn(&self, request: ExecRequest) -> Result<Process> {
        let agent = self.commandable()?;
        let what = self.transcript.describe(|| format!("spawn {:?}", request.describe()));
        self.transcript.note(what, agent.spawn(request)).await
    }

    /// Waits for something in the guest; the agent announces it. Cancel-safe.
    ///
    /// # Errors
    /// `vm.timeout`, naming what was waited for and, in `observed`, what the guest saw last;
    /// `exec.status` when it can no longer come, and those of [`Vm::exec`].
    pub async fn watch_guest(&self, watch: Watch, timeout: Option<Duration>) -> Result<()> {
        let agent = self.commandable()?;
        let observed = Observed::default();
        let what = describe(&watch);
        let came = race::against_end(self.machine.as_ref(), agent.watch(&watch, &observed));
        let waited = self.within(timeout, &what, came);
        let noted = self.transcript.describe(|| format!("wait for {what}"));
        let outcome = self.transcript.note(noted, waited).await;
        outcome.map_err(|error| match observed.last() {
            Some(last) if error.code() == Code::VmTimeout => {
                error.with_message_suffix(&format!(": {last}")).with_detail("observed", last)
            }
            _ => error,
        })
    }

    /// The agent of a machine that runs commands now.
    pub(super) fn commandable(&self) -> Result<&AgentClient> {
        self.check(Operation::Exec)?;
        self.agent.as_ref().ok_or_else(|| {
            let (what, hint) = if self.spec.vsock.is_none() {
                ("it has no vsock device", "leave `vsock` out of the spec, or set it to true")
            } else {
                ("its spec says agent = false", "leave `agent` out of the spec")
            };
            Error::new(
                Code::AgentUnavailable,
                format!("the machine {:?} runs no commands: {what}", self.name()),
            )
            .with_hint(hint)
        })
    }
}

/// What is waited for; completes "waited for".
fn describe(watch: &Watch) -> String {
    let text = String::from_utf8_lossy;
    match watch {
        Watch::Port(port) => format!("port {port}"),
        Watch::File(path) => format!("the file {}", text(path)),
        Watch::Gone(path) => format!("the end of the file {}", text(path)),
        Watch::Socket(path) => format!("the socket {}", text(path)),
        Watch::Exit(Awaited::Id(id)) => format!("the end of process {id}"),
        Watch::Exit(Awaited::Name(name)) => format!("the end of every process {}", text(name)),
        Watch::Unit(Unit { name, state }) => format!("the unit {name} to be {state}"),
        Watch::Ready(name) => format!("readiness {name:?}"),
    }
}
