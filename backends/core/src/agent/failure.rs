//! Errors of the guest and of its connections, as people see them.

use std::time::Duration;

use vmoon_protocol::Frame;
use vmoon_protocol::fields::Truncated;
use vmoon_protocol::message::Failure;

use super::connection::Broken;
use super::request::ExecRequest;
use crate::error::{Code, Error};
use crate::race;

/// How much of a command's output an error carries.
const TAIL: usize = 2048;

impl From<Broken> for Error {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Ended => Self::new(Code::VsockReset, "the guest closed the agent's connection"),
            Broken::Io(error) => {
                Self::new(Code::VsockReset, "the connection to the guest's agent was reset")
                    .with_source(error)
            }
            Broken::Frame(error) => malformed().with_source(error),
        }
    }
}

impl From<Truncated> for Error {
    fn from(error: Truncated) -> Self {
        malformed().with_source(error)
    }
}

/// The guest's agent says what does not belong here.
pub(super) fn malformed() -> Error {
    Error::new(Code::AgentUnavailable, "the guest's agent does not keep to the protocol")
}

/// The error that an [`vmoon_protocol::Kind::Error`] frame carries.
pub(super) fn from_frame(frame: &Frame) -> Error {
    of_failure(Failure::decode(&frame.payload))
}

/// The error that a failure stands for.
pub(super) fn of_failure(failure: Failure) -> Error {
    let known = Code::ALL.iter().find(|code| code.as_str() == failure.code);
    match known {
        Some(code) => Error::new(*code, failure.message),
        None => Error::new(Code::AgentUnavailable, failure.message)
            .with_detail("guest_code", failure.code),
    }
}

/// The machine went back to a snapshot under a request.
pub(super) fn restored() -> Error {
    Error::new(Code::VsockReset, "the machine was restored meanwhile")
        .with_hint("requests do not outlive the life that they began in: repeat it")
        .with_detail(race::RESTORED, true)
}

/// The guest did not enforce a command's timeout. [`of_command`] completes it.
pub(super) fn late() -> Error {
    Error::new(Code::ExecTimeout, "the command did not end in time")
}

fn exec_timeout(request: &ExecRequest, output: &[u8]) -> Error {
    let timeout = request.timeout.unwrap_or_default();
    Error::new(
        Code::ExecTimeout,
        format!("{:?} did not end within {}", request.describe(), seconds(timeout)),
    )
    .with_detail("command", request.describe())
    .with_detail("timeout", timeout.as_secs_f64())
    .with_detail("output", tail(output))
}

/// Completes an error of a command with the command.
pub(super) fn of_command(error: Error, request: &ExecRequest, output: &[u8]) -> Error {
    if error.code() == Code::ExecTimeout {
        return exec_timeout(request, output);
    }
    error.with_detail("command", request.describe())
}

/// The end of some output as text.
pub(super) fn tail(output: &[u8]) -> String {
    let start = output.len().saturating_sub(TAIL);
    String::from_utf8_lossy(&output[start..]).into_owned()
}

/// A duration as people write it.
pub(crate) fn seconds(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{}ms", duration.as_secs_f64() * 1e3)
    } else {
        format!("{}s", duration.as_secs_f64())
    }
}
