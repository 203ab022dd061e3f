//! Newtypes for what must not be mixed, and the parsers for what people write.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Code, Error, Result};

/// A number of bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    /// One page of guest memory on x86-64.
    pub const PAGE: Self = Self(4096);

    /// `count` kibibytes.
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// `count` mebibytes.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// `count` gibibytes.
    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }

    /// The plain number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 != 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl FromStr for Bytes {
    type Err = Error;

    /// Reads `"512MiB"`, `"1GiB"`, `"64KiB"`, `"12B"`; a bare number is a number of bytes.
    fn from_str(text: &str) -> Result<Self> {
        let trimmed = text.trim();
        let digits = trimmed.len() - trimmed.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = trimmed.split_at(digits);
        let shift = match unit.trim() {
            "" | "B" => Some(0),
            "KiB" | "K" | "k" => Some(10),
            "MiB" | "M" => Some(20),
            "GiB" | "G" => Some(30),
            "TiB" | "T" => Some(40),
            _ => None,
        };
        number
            .parse::<u64>()
            .ok()
            .zip(shift)
            .and_then(|(number, shift)| number.checked_mul(1 << shift))
            .map(Self)
            .ok_or_else(|| {
                Error::new(Code::VmSpec, format!("{text:?} is not a size"))
                    .with_hint("write bytes as a number, or a size such as \"512MiB\" or \"1GiB\"")
            })
    }
}

/// Reads a duration: `"250ms"`, `"20s"`, `"2m"`, `"1h"`, `"1.5s"`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let scale = match unit.trim() {
        "us" | "µs" => Some(1e-6),
        "ms" => Some(1e-3),
        "" | "s" => Some(1.0),
        "m" | "min" => Some(60.0),
        "h" => Some(3600.0),
        _ => None,
    };
    number
        .parse::<f64>()
        .ok()
        .zip(scale)
        .and_then(|(number, scale)| Duration::try_from_secs_f64(number * scale).ok())
        .ok_or_else(|| {
            Error::new(Code::VmSpec, format!("{text:?} is not a duration")).with_hint(
                "write seconds as a number, or a duration such as \"250ms\", \"20s\" or \"2m\"",
            )
        })
}

/// A guest physical address.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct GuestAddress(pub u64);

impl fmt::Display for GuestAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A vsock port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VsockPort(pub u32);

impl VsockPort {
    /// The port of the agent, on both sides: the guest dials the host's to announce itself, and
    /// listens on its own for commands.
    pub const AGENT: Self = Self(vmoon_protocol::AGENT_PORT);
}

impl fmt::Display for VsockPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A vsock context identifier (virtio 1.3 section 5.10.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cid(pub u64);

impl Cid {
    /// The host.
    pub const HOST: Self = Self(2);
    /// The first that a guest may have.
    pub const FIRST_GUEST: Self = Self(3);
    /// The last that a guest may have; the upper 32 bits are reserved and must be zero.
    pub const LAST_GUEST: Self = Self(u32::MAX as u64 - 1);
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new random identifier.
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

identifier! {
    /// Names one machine for as long as the process lives.
    MachineId
}
identifier! {
    /// Names one snapshot, in memory and on disk.
    SnapshotId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!("512MiB".parse::<Bytes>().unwrap(), Bytes::mib(512));
        assert_eq!("1GiB".parse::<Bytes>().unwrap(), Bytes::gib(1));
        assert_eq!("64 KiB".parse::<Bytes>().unwrap(), Bytes::kib(64));
        assert_eq!("4096".parse::<Bytes>().unwrap(), Bytes::PAGE);
        for wrong in ["", "banana", "-1", "1.5GiB", "99999999999999999999", "17179869184GiB", "1MB"]
        {
            assert_eq!(wrong.parse::<Bytes>().unwrap_err().code(), Code::VmSpec, "{wrong:?}");
        }
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(parse_duration("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(parse_duration("2m").unwrap(), Duration::from_mins(2));
        assert_eq!(parse_duration("1.5").unwrap(), Duration::from_millis(1500));
        for wrong in ["", "soon", "-1s", "1y", "1..2s"] {
            assert_eq!(parse_duration(wrong).unwrap_err().code(), Code::VmSpec, "{wrong:?}");
        }
    }
}
