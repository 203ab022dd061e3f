//! The states of a machine and the legal order of operations.
//!
//! ```text
//! created → starting → running ⇄ paused → stopping → stopped
//!    ↑_________|          \________|_________/
//!  failed start                 crashed
//! ```
//! | operation | legal in | ends in |
//! | --- | --- | --- |
//! | start | created | running (created again when it fails) |
//! | pause | running | paused |
//! | resume | paused | running |
//! | stop | running, paused | stopped |
//! | kill | starting, running, paused, stopping, crashed | stopped |
//! | snapshot | running, paused | the same |
//! | restore | running, paused, crashed, stopped | as the snapshot was taken |
//! | connect, exec | running | the same |
//! | fault | running, paused | the same |
//! | crash | running, paused, stopping | crashed |
//! | copy a direct disk | all but starting, running, stopping | the same |
//! | remove | created, stopped, crashed | gone |

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};

/// What a machine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Described, with its resources reserved; no guest code has run.
    Created,
    /// Loading the kernel and starting the vCPUs.
    Starting,
    /// Guest code runs.
    Running,
    /// No vCPU runs guest code; [`Operation::Resume`] goes on.
    Paused,
    /// Asked to power off.
    Stopping,
    /// Powered off. A restore can bring it back while the handle is open.
    Stopped,
    /// Triple fault, guest panic or a hypervisor error.
    Crashed,
}

impl State {
    /// Every state, in the order of a machine's life.
    pub const ALL: [Self; 7] = [
        Self::Created,
        Self::Starting,
        Self::Running,
        Self::Paused,
        Self::Stopping,
        Self::Stopped,
        Self::Crashed,
    ];

    /// The name that scripts see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Crashed => "crashed",
        }
    }

    /// The state of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Checks that `operation` is legal in this state.
    ///
    /// # Errors
    /// `vm.state`, with the details `state`, `operation` and `allowed`.
    pub fn allows(self, operation: Operation) -> Result<()> {
        let allowed = operation.allowed_in();
        if allowed.contains(&self) {
            return Ok(());
        }
        let names: Vec<&str> = allowed.iter().map(|state| state.as_str()).collect();
        let hint = match (self, operation) {
            (Self::Paused, Operation::Exec | Operation::Connect) => "vm:resume() first",
            (_, Operation::CopyDirectDisk) => "vm:pause() first",
            (Self::Created, _) => "vm:start() first",
            (Self::Crashed | Self::Stopped, _) => "vm:restore(snapshot) brings the machine back",
            (Self::Running, Operation::Start) => "it was started, by vmoon.boot or vm:start",
            _ => "vm:wait(state) waits for a state",
        };
        Err(Error::new(
            Code::VmState,
            format!(
                "{} is not possible while the machine is {self}; allowed: {}",
                operation.as_str(),
                names.join(", ")
            ),
        )
        .with_hint(hint)
        .with_detail("state", self.as_str())
        .with_detail("operation", operation.as_str())
        .with_detail("allowed", names))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that can be asked of a machine and that its state may forbid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant is the method of the same name")]
pub enum Operation {
    Start,
    Pause,
    Resume,
    Stop,
    Kill,
    Snapshot,
    Restore,
    Connect,
    Exec,
    Balloon,
    Fault,
    Crash,
    CopyDirectDisk,
    Remove,
}

impl Operation {
    /// The name that messages use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Stop => "stop",
            Self::Kill => "kill",
            Self::Snapshot => "snapshot",
            Self::Restore => "restore",
            Self::Connect => "connect",
            Self::Exec => "exec",
            Self::Balloon => "balloon",
            Self::Fault => "a fault",
            Self::Crash => "a crash on purpose",
            Self::CopyDirectDisk => "copying a disk that the guest writes in place",
            Self::Remove => "remove",
        }
    }

    /// The states in which the operation is legal.
    pub const fn allowed_in(self) -> &'static [State] {
        use State::{Crashed, Created, Paused, Running, Starting, Stopped, Stopping};
        match self {
            Self::Start => &[Created],
            Self::Pause | Self::Connect | Self::Exec => &[Running],
            Self::Resume => &[Paused],
            Self::Stop | Self::Snapshot | Self::Balloon | Self::Fault => &[Running, Paused],
            Self::Crash => &[Running, Paused, Stopping],
            Self::Kill => &[Starting, Running, Paused, Stopping, Crashed],
            Self::Restore => &[Running, Paused, Crashed, Stopped],
            Self::CopyDirectDisk => &[Created, Paused, Stopped, Crashed],
            Self::Remove => &[Created, Stopped, Crashed],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forbidden_operation_names_the_state_and_the_states_allowed() {
        let error = State::Paused.allows(Operation::Exec).unwrap_err();
        assert_eq!(error.code(), Code::VmState);
        assert_eq!(error.details()["state"], "paused");
        assert_eq!(error.details()["allowed"], serde_json::json!(["running"]));
        assert!(error.message().contains("paused"), "{error}");
    }

    #[test]
    fn names_round_trip() {
        for state in State::ALL {
            assert_eq!(State::from_name(state.as_str()), Some(state));
        }
        assert_eq!(State::from_name("asleep"), None);
    }
}
