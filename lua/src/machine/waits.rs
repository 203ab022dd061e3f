//! The methods that wait for something to become true.

use std::time::{Duration, Instant};

use mlua::Value;
use vmoon_core::vm::ExecResult;
use vmoon_core::{Code, Error, State};
use vmoon_protocol::message::Watch;

use super::Machine;
use super::exec::{command, left, tail};
use crate::arguments::{Arguments, whole};
use crate::class::{Class, Results};
use crate::fault::Outcome;

/// How long a wait lasts unless `timeout` says otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long `wait_until` rests between two attempts.
const INTERVAL: Duration = Duration::from_millis(200);

pub(super) fn define(class: &mut Class<Machine>) -> mlua::Result<()> {
    class.waiting("vm:wait", Results::None, async |_, this: Machine, arguments| {
        let name = arguments.text(0, "a state")?;
        let Some(state) = State::from_name(&name) else {
            let names: Vec<&str> = State::ALL.iter().map(|state| state.as_str()).collect();
            return Err(Error::new(Code::VmSpec, format!("{name:?} is not a state"))
                .with_hint(format!("the states: {}", names.join(", ")))
                .with_detail("key", name)
                .into());
        };
        let timeout = timeout(&arguments)?;
        Ok(this.vm().wait_state(state, Some(timeout)).await?)
    })?;
    class.waiting("vm:wait_port", Results::None, async |_, this: Machine, arguments| {
        let port = whole(arguments.value(0))
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port != 0)
            .ok_or_else(|| arguments.wrong(0, "a port from 1 to 65535"))?;
        let timeout = timeout(&arguments)?;
        Ok(this.vm().watch_guest(Watch::Port(port), Some(timeout)).await?)
    })?;
    class.waiting("vm:wait_file", Results::None, async |_, this: Machine, arguments| {
        let path = arguments.string(0, "a path in the guest")?.as_bytes().to_vec();
        let timeout = timeout(&arguments)?;
        Ok(this.vm().watch_guest(Watch::File(path), Some(timeout)).await?)
    })?;
    class.waiting("vm:wait_unit", Results::None, async |_, this: Machine, arguments| {
        let name = arguments.text(0, "the name of a systemd unit")?;
        let timeout = timeout(&arguments)?;
        Ok(this.vm().watch_guest(Watch::Unit(name), Some(timeout)).await?)
    })?;
    class.waiting("vm:wait_until", Results::One, async |lua, this: Machine, arguments| {
        wait_until(&lua, &this, &arguments).await
    })
}

fn timeout(arguments: &Arguments) -> Outcome<Duration> {
    Ok(arguments.options(1, &["timeout"])?.duration("timeout")?.unwrap_or(PATIENCE))
}

/// Repeats a command until it succeeds; its standard output. The agent cannot announce what only
/// a command can tell, so this one is repeated.
async fn wait_until(lua: &mlua::Lua, this: &Machine, arguments: &Arguments) -> Outcome<Value> {
    let request = command(arguments)?;
    let options = arguments.options(1, &["timeout", "interval"])?;
    let timeout = options.duration("timeout")?.unwrap_or(PATIENCE);
    let interval = options.duration("interval")?.unwrap_or(INTERVAL);
    let start = Instant::now();
    let mut last = None;
    while let Some(rest) = left(start, timeout) {
        match tokio::time::timeout(rest, this.vm().exec(request.clone())).await {
            Ok(Ok(result)) if result.ok() => {
                return Ok(Value::String(lua.create_string(&result.stdout)?));
            }
            Ok(Ok(result)) => last = Some(result),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => break,
        }
        tokio::time::sleep(interval.min(left(start, timeout).unwrap_or_default())).await;
    }
    Err(late(&request.describe(), timeout, last.as_ref()).into())
}

/// The error of a command that did not succeed in time, with its last attempt.
fn late(command: &str, timeout: Duration, last: Option<&ExecResult>) -> Error {
    let attempt = match last {
        None => "it has not ended once".to_owned(),
        Some(last) => format!("the last attempt exited with code {}", last.code),
    };
    let message = format!("{command:?} did not succeed within {timeout:?}; {attempt}");
    let error = Error::new(Code::VmTimeout, message)
        .with_hint("`timeout` is how long to wait, `interval` the rest between two attempts")
        .with_detail("command", command)
        .with_detail("timeout", timeout.as_secs_f64());
    match last {
        None => error,
        Some(last) => error.with_detail("status", last.code).with_detail("output", tail(last)),
    }
}
