//! The methods that wait for something to become true.

use std::time::{Duration, Instant};

use mlua::Value;
use vmoon_core::vm::ExecResult;
use vmoon_core::{Code, Error, State};
use vmoon_protocol::watch::{Process, Unit, Watch};

use super::Machine;
use super::exec::{command, left, tail};
use crate::arguments::{Arguments, whole};
use crate::class::{Class, Results};
use crate::fault::Outcome;

/// How long a wait lasts unless `timeout` says otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The shortest and the longest rest of `wait_until` between two attempts.
const RESTS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

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
            .and_then(|port| u32::try_from(port).ok())
            .filter(|port| *port != 0)
            .ok_or_else(|| arguments.wrong(0, "a port: TCP from 1 to 65535, or vsock"))?;
        watch(&this, Watch::Port(port), timeout(&arguments)?).await
    })?;
    class.waiting("vm:wait_file", Results::None, async |_, this: Machine, arguments| {
        let path = arguments.string(0, "a path in the guest")?.as_bytes().to_vec();
        let options = arguments.options(1, &["timeout", "gone"])?;
        let gone = options.flag("gone")?.unwrap_or(false);
        let wanted = if gone { Watch::Gone(path) } else { Watch::File(path) };
        watch(&this, wanted, options.duration("timeout")?.unwrap_or(PATIENCE)).await
    })?;
    class.waiting("vm:wait_socket", Results::None, async |_, this: Machine, arguments| {
        let path = arguments.string(0, "the path of a Unix socket in the guest")?;
        watch(&this, Watch::Socket(path.as_bytes().to_vec()), timeout(&arguments)?).await
    })?;
    class.waiting("vm:wait_exit", Results::None, async |_, this: Machine, arguments| {
        let process = process(&arguments)?;
        watch(&this, Watch::Exit(process), timeout(&arguments)?).await
    })?;
    class.waiting("vm:wait_ready", Results::None, async |_, this: Machine, arguments| {
        let name = arguments.text(0, "a name that the guest declares")?;
        watch(&this, Watch::Ready(name), timeout(&arguments)?).await
    })?;
    class.waiting("vm:wait_unit", Results::None, async |_, this: Machine, arguments| {
        let name = arguments.text(0, "the name of a systemd unit")?;
        let options = arguments.options(1, &["timeout", "state"])?;
        let state = options.text("state")?.unwrap_or_else(|| Unit::ACTIVE.to_owned());
        let timeout = options.duration("timeout")?.unwrap_or(PATIENCE);
        watch(&this, Watch::Unit(Unit { name, state }), timeout).await
    })?;
    class.waiting("vm:wait_until", Results::One, async |lua, this: Machine, arguments| {
        wait_until(&lua, &this, &arguments).await
    })
}

fn timeout(arguments: &Arguments) -> Outcome<Duration> {
    Ok(arguments.options(1, &["timeout"])?.duration("timeout")?.unwrap_or(PATIENCE))
}

async fn watch(this: &Machine, wanted: Watch, timeout: Duration) -> Outcome<()> {
    Ok(this.vm().watch_guest(wanted, Some(timeout)).await?)
}

/// A process: its id, or the name of all that are meant.
fn process(arguments: &Arguments) -> Outcome<Process> {
    const WANTED: &str = "a process id, or the name of a program";
    match arguments.value(0) {
        Value::String(name) if !name.as_bytes().is_empty() => {
            Ok(Process::Name(name.as_bytes().to_vec()))
        }
        value => whole(value)
            .and_then(|id| u32::try_from(id).ok())
            .filter(|id| *id != 0)
            .map(Process::Id)
            .ok_or_else(|| arguments.wrong(0, WANTED).into()),
    }
}

/// How long to rest before the next attempt when nobody says: longer the longer it has taken, so
/// that a wait reacts soon in proportion, and a long one costs little.
fn pause(waited: Duration) -> Duration {
    (waited / 16).clamp(RESTS.0, RESTS.1)
}

/// Repeats a command until it succeeds; its standard output. The agent cannot announce what only
/// a command can tell, so this one is repeated.
async fn wait_until(lua: &mlua::Lua, this: &Machine, arguments: &Arguments) -> Outcome<Value> {
    let request = command(arguments)?;
    let options = arguments.options(1, &["timeout", "interval"])?;
    let timeout = options.duration("timeout")?.unwrap_or(PATIENCE);
    let interval = options.duration("interval")?;
    let start = Instant::now();
    let mut last = None;
    while let Some(rest) = left(start, timeout) {
        match tokio::time::timeout(rest, this.vm().exec(request.clone())).await {
            Ok(Ok(result)) if result.ok() => {
                return Ok(Value::String(lua.create_string(&result.stdout)?));
            }
            Ok(Ok(result)) => last = Some(result),
            // Between two attempts nobody noticed the machine's end.
            Ok(Err(error)) => return Err(this.vm().end().unwrap_or(error).into()),
            Err(_) => break,
        }
        let pause = interval.unwrap_or_else(|| pause(start.elapsed()));
        tokio::time::sleep(pause.min(left(start, timeout).unwrap_or_default())).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_grow_with_the_wait() {
        assert_eq!(pause(Duration::ZERO), Duration::from_millis(5));
        assert_eq!(pause(Duration::from_secs(1)), Duration::from_micros(62_500));
        assert_eq!(pause(Duration::from_mins(1)), Duration::from_millis(200));
    }
}
