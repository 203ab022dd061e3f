//! Vsock, console and balloon.

use std::time::Duration;

use super::machine::Vm;
use crate::agent::seconds;
use crate::backend::{BalloonLevel, BalloonStatistics};
use crate::error::{Code, Error, Result};
use crate::lifecycle::Operation;
use crate::race;
use crate::units::{Bytes, VsockPort};
use crate::vsock::{VsockListener, VsockStream};

/// How long the guest has to report its memory statistics.
const STATISTICS_DEADLINE: Duration = Duration::from_secs(5);

impl Vm {
    /// Opens a connection to a port of the guest. Cancel-safe.
    ///
    /// # Errors
    /// `vsock.refused` when nobody listens, `vsock.timeout` at the deadline, `vm.state`,
    /// `guest.panic`, `guest.stopped`.
    pub async fn connect(&self, port: VsockPort, timeout: Option<Duration>) -> Result<VsockStream> {
        self.check(Operation::Connect)?;
        self.check_vsock()?;
        if let Some(agent) = &self.agent {
            agent.announce_life()?;
        }
        let connecting = race::against_end(self.machine.as_ref(), self.machine.connect(port));
        let outcome = match timeout {
            None => connecting.await,
            Some(timeout) => tokio::time::timeout(timeout, connecting).await.unwrap_or_else(|_| {
                Err(Error::new(
                    Code::VsockTimeout,
                    format!(
                        "the guest did not answer on vsock port {port} within {}",
                        seconds(timeout)
                    ),
                )
                .with_detail("timeout", timeout.as_secs_f64()))
            }),
        };
        outcome.map_err(|error| {
            let error = error.with_detail("port", port.0).with_detail("vm", self.name());
            if error.code() == Code::VsockRefused && error.hint().is_none() {
                error.with_hint(format!(
                    "nothing listens there yet; vm:wait_port({port}) waits for it"
                ))
            } else {
                error
            }
        })
    }

    /// Answers the guest on a port of the host.
    ///
    /// # Errors
    /// `vm.spec` when the port is taken; 1024 belongs to the agent.
    pub async fn listen(&self, port: VsockPort) -> Result<Box<dyn VsockListener>> {
        self.check_open("listen")?;
        self.check_vsock()?;
        self.machine.listen(port).await
    }

    fn check_vsock(&self) -> Result<()> {
        if self.spec.vsock.is_some() {
            return Ok(());
        }
        Err(Error::new(Code::VmSpec, format!("the machine {:?} has no vsock device", self.name()))
            .with_hint("leave `vsock` out of the spec, or set it to true"))
    }

    /// Types into the guest's console.
    pub async fn type_console(&self, bytes: Vec<u8>) -> Result<()> {
        self.check_open("type")?;
        self.machine.type_console(bytes).await
    }

    /// Sets the memory that the guest should be left with; with `wait`, returns once it is.
    ///
    /// # Errors
    /// `vm.spec` for more than the machine has; `balloon.timeout` with the details `target` and
    /// `actual`.
    pub async fn set_balloon(&self, target: Bytes, wait: Option<Duration>) -> Result<()> {
        self.check_balloon()?;
        if target > self.spec.memory {
            return Err(Error::new(
                Code::VmSpec,
                format!("the guest cannot be left with {target}: it has {}", self.spec.memory),
            )
            .with_hint("the target is the memory left to the guest, not the balloon's size"));
        }
        let mut level = self.machine.balloon().await?;
        self.machine.set_balloon(target).await?;
        let Some(wait) = wait else {
            return Ok(());
        };
        // Whole pages are moved: the last one of an uneven target stays with the guest.
        let reached =
            |level: &BalloonLevel| level.actual.get().abs_diff(target.get()) < Bytes::PAGE.get();
        let settled = async {
            level
                .wait_for(reached)
                .await
                .map(drop)
                .map_err(|_| Error::new(Code::GuestStopped, "the machine was closed"))
        };
        let settled = race::against_end(self.machine.as_ref(), settled);
        match tokio::time::timeout(wait, settled).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.balloon_late(target, wait, self.balloon().await?.actual)),
        }
    }

    /// Where the balloon stands.
    pub async fn balloon(&self) -> Result<BalloonLevel> {
        self.check_balloon()?;
        let level = self.machine.balloon().await?;
        let level = *level.borrow();
        Ok(level)
    }

    /// The guest's own memory figures.
    ///
    /// # Errors
    /// `balloon.timeout` when the guest does not report them.
    pub async fn balloon_statistics(&self) -> Result<BalloonStatistics> {
        self.check_balloon()?;
        let asked = race::against_end(self.machine.as_ref(), self.machine.balloon_statistics());
        match tokio::time::timeout(STATISTICS_DEADLINE, asked).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::new(
                Code::BalloonTimeout,
                format!(
                    "the guest of {:?} reported no memory statistics within {}",
                    self.name(),
                    seconds(STATISTICS_DEADLINE)
                ),
            )
            .with_hint("a paused guest, or one without a balloon driver, reports none")),
        }
    }

    fn check_balloon(&self) -> Result<()> {
        self.check(Operation::Balloon)?;
        if self.spec.balloon {
            return Ok(());
        }
        Err(Error::new(Code::VmSpec, format!("the machine {:?} has no balloon", self.name()))
            .with_hint("leave `balloon` out of the spec, or set it to true"))
    }

    fn balloon_late(&self, target: Bytes, wait: Duration, actual: Bytes) -> Error {
        Error::new(
            Code::BalloonTimeout,
            format!(
                "the guest of {:?} was to be left with {target} within {} and has {actual}",
                self.name(),
                seconds(wait)
            ),
        )
        .with_hint(
            "a guest gives up only what it does not use; give it more time or a higher target",
        )
        .with_detail("target", target.get())
        .with_detail("actual", actual.get())
        .with_detail("timeout", wait.as_secs_f64())
    }
}
