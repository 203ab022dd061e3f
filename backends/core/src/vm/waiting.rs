//! Waits for states and for readiness.

use std::time::Duration;

use super::machine::Vm;
use crate::agent::seconds;
use crate::backend::Status;
use crate::error::{Code, Error, Result};
use crate::lifecycle::State;
use crate::race;
use crate::spec::{Guest, Ready};

impl Vm {
    /// Waits for a state.
    ///
    /// # Errors
    /// `vm.timeout`; `guest.panic` or `guest.stopped` when the machine has ended otherwise.
    pub async fn wait_state(&self, state: State, timeout: Option<Duration>) -> Result<()> {
        let mut status = self.watch();
        let reached = async {
            let found = status.wait_for(|now| now.state == state || race::is_end(now.state)).await;
            match found.map(|now| now.clone()) {
                Ok(now) if now.state == state => Ok(()),
                Ok(now) => Err(race::ended(&now, self.console())),
                Err(_) if state == State::Stopped => Ok(()),
                Err(_) => Err(race::ended(&closed(), self.console())),
            }
        };
        if self.is_closed() && state == State::Stopped {
            return Ok(());
        }
        self.within(timeout, &format!("the machine to be {state}"), reached).await
    }

    /// The error of whatever waits for the guest once it has crashed (`guest.panic`) or stopped
    /// (`guest.stopped`); none while it may go on.
    pub fn end(&self) -> Option<Error> {
        let status = self.status();
        race::is_end(status.state).then(|| race::ended(&status, self.console()))
    }

    /// Waits until the machine is ready in the sense of its spec. A console pattern is matched by
    /// the scripting layer: for it, as without an agent, this returns once the machine runs.
    ///
    /// # Errors
    /// `vm.timeout`, `guest.panic`, `guest.stopped`, `agent.unavailable`.
    pub async fn wait_ready(&self, timeout: Duration) -> Result<()> {
        match (&self.agent, &self.spec.ready) {
            (Some(agent), Ready::Agent) => {
                let announced = race::against_end(self.machine.as_ref(), agent.ready());
                let waited = self.within(Some(timeout), "the guest's agent", announced).await;
                waited.map_err(|error| match error.code() {
                    Code::VmTimeout => error.with_hint(self.hint_for_silence()),
                    _ => error,
                })
            }
            _ => self.wait_state(State::Running, Some(timeout)).await,
        }
    }

    fn hint_for_silence(&self) -> &'static str {
        match self.spec.guest {
            Guest::Kernel { .. } => {
                "a kernel of your own runs no agent by itself: use agent = false, or let `ready` \
                 be a pattern that its console prints"
            }
            _ => {
                "the console shows how far the guest came; a slow host may need a larger `timeout`"
            }
        }
    }

    /// Awaits `operation` within `timeout`, if there is one; `what` completes "waited for".
    pub(super) async fn within<T>(
        &self,
        timeout: Option<Duration>,
        what: &str,
        operation: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let Some(timeout) = timeout else {
            return operation.await;
        };
        match tokio::time::timeout(timeout, operation).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.late(timeout, what)),
        }
    }

    fn late(&self, timeout: Duration, what: &str) -> Error {
        let error = Error::new(
            Code::VmTimeout,
            format!("waited {} for {what} of {:?}", seconds(timeout), self.name()),
        )
        .with_hint("the wait takes `timeout`")
        .with_detail("timeout", timeout.as_secs_f64())
        .with_detail("state", self.state().as_str())
        .with_detail("vm", self.name());
        race::with_console(error, self.console())
    }
}

fn closed() -> Status {
    Status { state: State::Stopped, reason: Some("the machine was closed".to_owned()) }
}
