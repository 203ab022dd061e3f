//! What the guest can be asked to wait for.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

/// Tags of the variants.
mod tag {
    pub(super) const PORT: u8 = 1;
    pub(super) const FILE: u8 = 2;
    pub(super) const UNIT: u8 = 3;
    pub(super) const GONE: u8 = 4;
    pub(super) const SOCKET: u8 = 5;
    pub(super) const EXIT_PID: u8 = 6;
    pub(super) const EXIT_NAME: u8 = 7;
    pub(super) const READY: u8 = 8;
}

/// What to wait for in the guest: the payload of [`crate::Kind::Watch`].
///
/// One byte for the variant, then its value:
///
/// | tag | variant | value |
/// | --- | --- | --- |
/// | 1 | port | `u16`, or `u32` where it is larger |
/// | 2, 4 | file that exists, file that is gone | a path, as bytes |
/// | 3 | unit | its name; for a state other than `active`, NUL and the state |
/// | 5 | Unix socket | a path, as bytes |
/// | 6, 7 | process exit | `u32`, the process id; or a name, as bytes |
/// | 8 | ready | the name that the guest declares, UTF-8 |
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watch {
    /// A port on which somebody listens: TCP (IPv4 or IPv6) or vsock.
    Port(u32),
    /// A file, directory or socket that exists.
    File(Vec<u8>),
    /// A path at which there is nothing.
    Gone(Vec<u8>),
    /// A Unix socket on which somebody listens, or receives datagrams. A path that begins with `@`
    /// names an abstract one.
    Socket(Vec<u8>),
    /// The end of a process, or of every process of a name.
    Exit(Process),
    /// A systemd unit in a state.
    Unit(Unit),
    /// A name that the guest has declared, by `vmoon-agent ready NAME`.
    Ready(String),
}

/// Which process an end is awaited of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Process {
    /// The one of this id.
    Id(u32),
    /// All of this name: the program's file name, as `pgrep -x` takes it.
    Name(Vec<u8>),
}

/// A systemd unit and the state to wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its name, with or without a suffix such as `.service`.
    pub name: String,
    /// One of systemd's active states (`active`, `failed`, …) or of the unit type's own
    /// (`running`, `exited`, `listening`, …).
    pub state: String,
}

impl Unit {
    /// The state that is waited for unless another is named.
    pub const ACTIVE: &'static str = "active";
}

impl Watch {
    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let (tag, value) = match self {
            Self::Port(port) => (
                tag::PORT,
                match u16::try_from(*port) {
                    Ok(port) => port.to_le_bytes().to_vec(),
                    Err(_) => port.to_le_bytes().to_vec(),
                },
            ),
            Self::File(path) => (tag::FILE, path.clone()),
            Self::Gone(path) => (tag::GONE, path.clone()),
            Self::Socket(path) => (tag::SOCKET, path.clone()),
            Self::Exit(Process::Id(id)) => (tag::EXIT_PID, id.to_le_bytes().to_vec()),
            Self::Exit(Process::Name(name)) => (tag::EXIT_NAME, name.clone()),
            Self::Unit(unit) => (tag::UNIT, unit.encode()),
            Self::Ready(name) => (tag::READY, name.as_bytes().to_vec()),
        };
        let mut out = Vec::from([tag]);
        out.extend_from_slice(&value);
        out
    }

    /// Reads a payload; none when this version does not know what is asked.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let (tag, value) = payload.split_first()?;
        Some(match *tag {
            tag::PORT => Self::Port(match *value {
                [low, high] => u16::from_le_bytes([low, high]).into(),
                [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
                _ => return None,
            }),
            tag::FILE => Self::File(value.to_vec()),
            tag::GONE => Self::Gone(value.to_vec()),
            tag::SOCKET => Self::Socket(value.to_vec()),
            tag::EXIT_PID => Self::Exit(Process::Id(u32::from_le_bytes(value.try_into().ok()?))),
            tag::EXIT_NAME => Self::Exit(Process::Name(value.to_vec())),
            tag::UNIT => Self::Unit(Unit::decode(value)?),
            tag::READY => Self::Ready(text(value)?),
            _ => return None,
        })
    }
}

impl Unit {
    fn encode(&self) -> Vec<u8> {
        let mut out = self.name.as_bytes().to_vec();
        if self.state != Self::ACTIVE {
            out.push(0);
            out.extend_from_slice(self.state.as_bytes());
        }
        out
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let mut parts = value.splitn(2, |byte| *byte == 0);
        let name = text(parts.next()?)?;
        let state = parts.next().map_or_else(|| Some(Self::ACTIVE.to_owned()), text)?;
        Some(Self { name, state })
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    core::str::from_utf8(bytes).ok().map(ToOwned::to_owned)
}
