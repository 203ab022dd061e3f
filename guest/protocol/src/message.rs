//! The typed messages that frames carry.

use alloc::string::String;
use alloc::vec::Vec;

use crate::fields::{self, Truncated};

/// Tags of [`Exec`]'s fields.
mod exec_tag {
    pub(super) const ARGUMENT: u16 = 1;
    pub(super) const SHELL: u16 = 2;
    pub(super) const ENVIRONMENT: u16 = 3;
    pub(super) const DIRECTORY: u16 = 4;
    pub(super) const USER: u16 = 5;
    pub(super) const TIMEOUT: u16 = 6;
    pub(super) const STDIN: u16 = 7;
    pub(super) const TERMINAL: u16 = 8;
}

/// What to run: the payload of [`crate::Kind::Exec`], as fields.
///
/// | tag | field | value |
/// | --- | --- | --- |
/// | 1 | argument, repeated | bytes |
/// | 2 | shell command, instead of arguments | bytes |
/// | 3 | environment, repeated | `NAME=value` |
/// | 4 | directory | bytes |
/// | 5 | user | a name or a number |
/// | 6 | timeout | `u64`, milliseconds |
/// | 7 | standard input | `u8`: 1 when [`crate::Kind::Stdin`] frames follow |
/// | 8 | terminal: all three streams are one | [`TerminalSize`] |
///
/// The micro guest splits a shell command into words at spaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exec {
    /// The program and its arguments, or a command for the shell.
    pub command: Command,
    /// Variables added to the agent's environment.
    pub environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// The directory to run in.
    pub directory: Option<Vec<u8>>,
    /// The user to run as.
    pub user: Option<String>,
    /// After this many milliseconds the process group is killed.
    pub timeout_ms: Option<u64>,
    /// Whether standard input will be sent; otherwise it is empty.
    pub stdin: bool,
    /// The size of the terminal that the program runs on; none for pipes.
    pub terminal: Option<TerminalSize>,
}

/// The size of a terminal: the payload of [`crate::Kind::Resize`], rows and columns as `u16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Lines of text.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

impl TerminalSize {
    /// The payload.
    pub fn encode(self) -> [u8; 4] {
        let ([a, b], [c, d]) = (self.rows.to_le_bytes(), self.columns.to_le_bytes());
        [a, b, c, d]
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`Truncated`] when it is not 4 bytes.
    pub fn decode(payload: &[u8]) -> Result<Self, Truncated> {
        let [a, b, c, d]: [u8; 4] = payload.try_into().map_err(|_| Truncated)?;
        Ok(Self { rows: u16::from_le_bytes([a, b]), columns: u16::from_le_bytes([c, d]) })
    }
}

/// The program of an [`Exec`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A program and its arguments.
    Arguments(Vec<Vec<u8>>),
    /// Text for `sh -c`.
    Shell(Vec<u8>),
}

impl Default for Command {
    fn default() -> Self {
        Self::Arguments(Vec::new())
    }
}

impl Exec {
    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match &self.command {
            Command::Arguments(arguments) => {
                for argument in arguments {
                    fields::put(&mut out, exec_tag::ARGUMENT, argument);
                }
            }
            Command::Shell(text) => fields::put(&mut out, exec_tag::SHELL, text),
        }
        for (name, value) in &self.environment {
            let mut pair = name.clone();
            pair.push(b'=');
            pair.extend_from_slice(value);
            fields::put(&mut out, exec_tag::ENVIRONMENT, &pair);
        }
        if let Some(directory) = &self.directory {
            fields::put(&mut out, exec_tag::DIRECTORY, directory);
        }
        if let Some(user) = &self.user {
            fields::put(&mut out, exec_tag::USER, user.as_bytes());
        }
        if let Some(timeout) = self.timeout_ms {
            fields::put(&mut out, exec_tag::TIMEOUT, &timeout.to_le_bytes());
        }
        if self.stdin {
            fields::put(&mut out, exec_tag::STDIN, &[1]);
        }
        if let Some(size) = self.terminal {
            fields::put(&mut out, exec_tag::TERMINAL, &size.encode());
        }
        out
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`Truncated`] when a field is cut short or a number has the wrong length.
    pub fn decode(payload: &[u8]) -> Result<Self, Truncated> {
        let mut exec = Self::default();
        let mut arguments = Vec::new();
        let mut shell = None;
        for field in fields::iter(payload) {
            let (tag, value) = field?;
            match tag {
                exec_tag::ARGUMENT => arguments.push(value.to_vec()),
                exec_tag::SHELL => shell = Some(value.to_vec()),
                exec_tag::ENVIRONMENT => {
                    let split = value.iter().position(|byte| *byte == b'=').unwrap_or(value.len());
                    let (name, rest) = value.split_at(split);
                    exec.environment
                        .push((name.to_vec(), rest.get(1..).unwrap_or_default().to_vec()));
                }
                exec_tag::DIRECTORY => exec.directory = Some(value.to_vec()),
                exec_tag::USER => {
                    exec.user = Some(String::from_utf8_lossy(value).into_owned());
                }
                exec_tag::TIMEOUT => {
                    let bytes = value.try_into().map_err(|_| Truncated)?;
                    exec.timeout_ms = Some(u64::from_le_bytes(bytes));
                }
                exec_tag::STDIN => exec.stdin = value.first() == Some(&1),
                exec_tag::TERMINAL => exec.terminal = Some(TerminalSize::decode(value)?),
                _ => {}
            }
        }
        exec.command = shell.map_or(Command::Arguments(arguments), Command::Shell);
        Ok(exec)
    }
}

/// How a program ended: the payload of [`crate::Kind::Exit`], 16 bytes.
///
/// ```text
///  0      4        8
///  | code | signal | duration in nanoseconds |
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// The exit code; 128 + signal when a signal ended it.
    pub code: i32,
    /// The signal that ended it, or 0.
    pub signal: i32,
    /// How long it ran by the guest's clock, in nanoseconds.
    pub duration_ns: u64,
}

impl Exit {
    /// The payload.
    pub fn encode(&self) -> [u8; 16] {
        let mut out = [0; 16];
        out[0..4].copy_from_slice(&self.code.to_le_bytes());
        out[4..8].copy_from_slice(&self.signal.to_le_bytes());
        out[8..16].copy_from_slice(&self.duration_ns.to_le_bytes());
        out
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`Truncated`] when it is shorter than 16 bytes.
    pub fn decode(payload: &[u8]) -> Result<Self, Truncated> {
        let bytes = payload.first_chunk::<16>().ok_or(Truncated)?;
        let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        Ok(Self {
            code: i32::from_le_bytes(word(0)),
            signal: i32::from_le_bytes(word(4)),
            duration_ns: u64::from(u32::from_le_bytes(word(8)))
                | u64::from(u32::from_le_bytes(word(12))) << 32,
        })
    }
}

/// The guest's new life: the payload of [`crate::Kind::Life`], 48 bytes.
///
/// ```text
///  0       8                                     16
///  | epoch | wall clock, nanoseconds since 1970  | entropy, 32 bytes |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Counts the lives of a machine; each restore, fork and load starts one.
    pub epoch: u64,
    /// The host's wall clock.
    pub unix_ns: u64,
    /// Fresh randomness for the guest's generator.
    pub entropy: [u8; 32],
}

impl Life {
    /// The length of the payload.
    pub const LEN: usize = 48;

    /// The payload.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[0..8].copy_from_slice(&self.epoch.to_le_bytes());
        out[8..16].copy_from_slice(&self.unix_ns.to_le_bytes());
        out[16..48].copy_from_slice(&self.entropy);
        out
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`Truncated`] when it is shorter than 48 bytes.
    pub fn decode(payload: &[u8]) -> Result<Self, Truncated> {
        let (epoch, rest) = payload.split_first_chunk::<8>().ok_or(Truncated)?;
        let (unix_ns, rest) = rest.split_first_chunk::<8>().ok_or(Truncated)?;
        let entropy = rest.first_chunk::<32>().ok_or(Truncated)?;
        Ok(Self {
            epoch: u64::from_le_bytes(*epoch),
            unix_ns: u64::from_le_bytes(*unix_ns),
            entropy: *entropy,
        })
    }
}

/// The agent's announcement: the payload of [`crate::Kind::Ready`].
///
/// `version: u32`, `reserved: u32`, then the guest's name (`micro`, `linux`) as UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The version of the protocol that the agent speaks.
    pub version: u32,
    /// The kind of guest.
    pub guest: String,
}

impl Ready {
    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.version.to_le_bytes().to_vec();
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(self.guest.as_bytes());
        out
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`Truncated`] when it is shorter than 8 bytes.
    pub fn decode(payload: &[u8]) -> Result<Self, Truncated> {
        let (version, rest) = payload.split_first_chunk::<4>().ok_or(Truncated)?;
        let (_, guest) = rest.split_first_chunk::<4>().ok_or(Truncated)?;
        Ok(Self {
            version: u32::from_le_bytes(*version),
            guest: String::from_utf8_lossy(guest).into_owned(),
        })
    }
}

/// Why a request failed: the payload of [`crate::Kind::Error`].
///
/// The code (one of the Lua API's error codes), a NUL byte, and a message, both UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For example `exec.not_found`.
    pub code: String,
    /// One line for people.
    pub message: String,
}

impl Failure {
    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.code.as_bytes().to_vec();
        out.push(0);
        out.extend_from_slice(self.message.as_bytes());
        out
    }

    /// Reads a payload; text that is not UTF-8 is replaced.
    pub fn decode(payload: &[u8]) -> Self {
        let split = payload.iter().position(|byte| *byte == 0).unwrap_or(payload.len());
        let (code, rest) = payload.split_at(split);
        Self {
            code: String::from_utf8_lossy(code).into_owned(),
            message: String::from_utf8_lossy(rest.get(1..).unwrap_or_default()).into_owned(),
        }
    }
}
