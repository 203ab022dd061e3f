//! The graceful stop, and its end by force.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::machine::Vm;
use crate::error::Result;
use crate::lifecycle::{Operation, State};
use crate::race;

/// The agent has this share of the timeout to answer before the power button is pressed.
const AGENT_SHARE: u32 = 3;

/// How a stop came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopOutcome {
    /// The guest powered off by itself.
    Graceful,
    /// The timeout came first, or the guest crashed over it.
    Forced,
}

impl StopOutcome {
    /// The name that scripts see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Graceful => "graceful",
            Self::Forced => "forced",
        }
    }
}

impl Vm {
    /// Asks the guest to power off: first its agent, then by the power button. At the timeout it
    /// is killed.
    pub async fn stop(&self, timeout: Duration) -> Result<StopOutcome> {
        self.check(Operation::Stop)?;
        let start = Instant::now();
        let deadline = start + timeout;
        self.machine.begin_stop().await?;
        let asking = self.ask_to_stop(start + timeout / AGENT_SHARE);
        let mut status = self.watch();
        let graceful = async {
            tokio::select! {
                biased;
                end = status.wait_for(|status| race::is_end(status.state)) => {
                    end.map_or(State::Stopped, |status| status.state) == State::Stopped
                }
                // Asking only returns when it failed: then nothing is left but the timeout.
                () = asking => false,
            }
        };
        if timeout_at(deadline, graceful).await.unwrap_or(false) {
            return Ok(StopOutcome::Graceful);
        }
        self.machine.kill().await?;
        Ok(StopOutcome::Forced)
    }

    /// Asks until somebody heard; never returns if so. What the guest does about it shows in the
    /// machine's state.
    async fn ask_to_stop(&self, agent_deadline: Instant) {
        if let Some(agent) = &self.agent {
            match timeout_at(agent_deadline, agent.shut_down()).await {
                Ok(Ok(())) => std::future::pending().await,
                Ok(Err(error)) => tracing::info!(%error, "the agent cannot power the guest off"),
                Err(_) => tracing::info!("the agent does not answer: pressing the power button"),
            }
        }
        match self.machine.press_power_button().await {
            Ok(()) => std::future::pending().await,
            Err(error) => tracing::info!(%error, "the guest has no power button"),
        }
    }
}
