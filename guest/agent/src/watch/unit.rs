//! A systemd unit is in a state. systemd tells its private socket of every change.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use vmoon_protocol::watch::Unit;

use super::dbus::{Kind, Peer};
use super::wait::{Condition, Look, Never, RARELY};
use crate::sys;

/// Exists where systemd is PID 1, as `sd_booted(3)` has it.
const BOOTED: &str = "/run/systemd/system";
/// Where systemd speaks D-Bus to root, without a bus.
const SOCKET: &str = "/run/systemd/private";

const MANAGER: &str = "/org/freedesktop/systemd1";
const MANAGER_INTERFACE: &str = "org.freedesktop.systemd1.Manager";
const UNIT_INTERFACE: &str = "org.freedesktop.systemd1.Unit";
const SERVICE_INTERFACE: &str = "org.freedesktop.systemd1.Service";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// The kinds of units, by their suffixes; a name with none is a service's.
const SUFFIXES: &[&str] = &[
    ".automount",
    ".device",
    ".mount",
    ".path",
    ".scope",
    ".service",
    ".slice",
    ".socket",
    ".swap",
    ".target",
    ".timer",
];

/// The wait for a unit.
#[derive(Debug)]
pub(super) struct UnitCondition {
    socket: PathBuf,
    name: String,
    state: String,
    peer: Peer,
    /// The unit's object.
    path: String,
    /// What the last look showed.
    last: Option<States>,
}

/// The states of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
struct States {
    active: String,
    sub: String,
    load: String,
}

impl UnitCondition {
    /// # Errors
    /// The inner one says why this guest has no units, or none of this name.
    pub(super) fn new(unit: &Unit) -> io::Result<Result<Self, Never>> {
        if !Path::new(BOOTED).exists() {
            return Ok(Err(Never {
                code: "backend.unsupported",
                message: "the guest does not run systemd, so it has no units".to_owned(),
            }));
        }
        Self::at(Path::new(SOCKET), unit)
    }

    fn at(socket: &Path, unit: &Unit) -> io::Result<Result<Self, Never>> {
        let has_suffix = SUFFIXES.iter().any(|suffix| unit.name.ends_with(suffix));
        let name = if has_suffix { unit.name.clone() } else { unit.name.clone() + ".service" };
        let mut peer = Peer::connect(socket)?;
        let loaded = peer.call(MANAGER, MANAGER_INTERFACE, "LoadUnit", &[&name])?;
        let path = match (loaded.kind, loaded.text) {
            (Kind::Return, Some(path)) => path,
            (_, reason) => {
                let reason = reason.unwrap_or_else(|| "systemd does not load it".to_owned());
                let message = format!("there can be no unit {name}: {reason}");
                return Ok(Err(Never { code: "vm.spec", message }));
            }
        };
        let (socket, state) = (socket.to_owned(), unit.state.clone());
        Ok(Ok(Self { socket, name, state, peer, path, last: None }))
    }

    /// Whether something was said since the last look that may concern the unit. Silence for as
    /// long as a wait sleeps is worth a look as well.
    fn is_stale(&mut self) -> io::Result<bool> {
        let (mut messages, mut stale) = (0, false);
        while sys::poll(&mut [sys::entry(Some(&self.peer), libc::POLLIN)], Some(Duration::ZERO))?
            > 0
        {
            let message = self.peer.read()?;
            messages += 1;
            // A unit that nobody used was forgotten and is another object afterwards.
            stale |= message.path == self.path
                || matches!(message.member.as_str(), "UnitNew" | "UnitRemoved" | "Reloading");
        }
        Ok(stale || messages == 0)
    }

    fn property(&mut self, interface: &str, name: &str) -> io::Result<String> {
        let answer = self.peer.call(&self.path, PROPERTIES, "Get", &[interface, name])?;
        match (answer.kind, answer.text) {
            (Kind::Return, Some(value)) => Ok(value),
            (_, reason) => Err(io::Error::other(format!(
                "systemd does not tell {name} of {}: {}",
                self.name,
                reason.unwrap_or_default()
            ))),
        }
    }

    fn states(&mut self) -> io::Result<States> {
        if let Some(last) = self.last.clone()
            && !self.is_stale()?
        {
            return Ok(last);
        }
        let states = States {
            active: self.property(UNIT_INTERFACE, "ActiveState")?,
            sub: self.property(UNIT_INTERFACE, "SubState")?,
            load: self.property(UNIT_INTERFACE, "LoadState")?,
        };
        self.last = Some(states.clone());
        Ok(states)
    }

    /// The states; systemd that executed itself anew is asked on a new connection.
    fn states_again(&mut self) -> io::Result<States> {
        match self.states() {
            Err(error) if is_close(&error) => {
                self.last = None;
                self.peer = Peer::connect(&self.socket)?;
                self.states()
            }
            other => other,
        }
    }
}

fn is_close(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

impl Condition for UnitCondition {
    fn look(&mut self) -> io::Result<Look> {
        let states = self.states_again()?;
        if states.active == self.state || states.sub == self.state {
            return Ok(Look::True);
        }
        if self.state == Unit::ACTIVE && states.active == "failed" {
            let result = match self.property(SERVICE_INTERFACE, "Result") {
                Ok(result) => format!(" ({result})"),
                // Only services have one.
                Err(_) => String::new(),
            };
            let message = format!("the unit {} failed{result}", self.name);
            return Ok(Look::Never(Never { code: "exec.status", message }));
        }
        let unloaded = match states.load.as_str() {
            "loaded" => String::new(),
            other => format!(", {other}"),
        };
        Ok(Look::NotYet(format!("it is {} ({}{unloaded})", states.active, states.sub)))
    }

    fn wakers(&self) -> Vec<RawFd> {
        vec![self.peer.as_raw_fd()]
    }

    fn interval(&self) -> Duration {
        RARELY
    }
}
