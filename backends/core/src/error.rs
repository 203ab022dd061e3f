//! The structured error that every layer raises and that scripts see as a table.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident => $text:literal,)*) => {
        /// The stable code of an error, as scripts compare it (`err.code == "vm.state"`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $variant,)*
        }

        impl Code {
            /// Every code, in the order of the Lua API's list.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The code's text, for example `vm.spec`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

codes! {
    /// The machine's description is not valid.
    VmSpec => "vm.spec",
    /// The machine's state forbids the operation.
    VmState => "vm.state",
    /// A wait on the machine reached its deadline.
    VmTimeout => "vm.timeout",
    /// No machine bears that name or id.
    VmNotFound => "vm.not_found",
    /// The guest's kernel panicked, or the hypervisor could not go on.
    GuestPanic => "guest.panic",
    /// The guest stopped while something waited for it.
    GuestStopped => "guest.stopped",
    /// A command ended with a status that the caller does not accept.
    ExecStatus => "exec.status",
    /// A command ran longer than it may.
    ExecTimeout => "exec.timeout",
    /// The program to run does not exist in the guest.
    ExecNotFound => "exec.not_found",
    /// The guest's agent does not answer, or there is none.
    AgentUnavailable => "agent.unavailable",
    /// Nobody listens on the port.
    VsockRefused => "vsock.refused",
    /// A vsock operation reached its deadline.
    VsockTimeout => "vsock.timeout",
    /// The peer vanished, or a restore cut the connection.
    VsockReset => "vsock.reset",
    /// The snapshot was deleted or never existed.
    SnapshotNotFound => "snapshot.not_found",
    /// The snapshot belongs to another machine.
    SnapshotForeign => "snapshot.foreign",
    /// A saved snapshot is damaged.
    SnapshotCorrupt => "snapshot.corrupt",
    /// A saved snapshot needs another version, backend or CPU.
    SnapshotIncompatible => "snapshot.incompatible",
    /// The guest did not confirm fresh entropy.
    SnapshotEntropy => "snapshot.entropy",
    /// The balloon did not reach its target in time.
    BalloonTimeout => "balloon.timeout",
    /// No backend works here.
    BackendUnavailable => "backend.unavailable",
    /// The backend cannot do this.
    BackendUnsupported => "backend.unsupported",
    /// A file does not exist.
    FileNotFound => "file.not_found",
    /// Something is there already.
    FileExists => "file.exists",
    /// No space is left, or the quota is used up.
    FileNoSpace => "file.no_space",
    /// A path leads through something that is no directory.
    FileNotDirectory => "file.not_directory",
    /// A directory is where a file is wanted.
    FileIsDirectory => "file.is_directory",
    /// A file may not be opened.
    FilePermission => "file.permission",
    /// Any other failure to read or write a file.
    FileIo => "file.io",
    /// The task was cancelled.
    TaskCancelled => "task.cancelled",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error with everything that a person needs: what, where, why, and what to do.
///
/// Cheap to move: the payload is boxed.
#[derive(Debug, Clone)]
pub struct Error(Box<Payload>);

#[derive(Debug, Clone)]
struct Payload {
    code: Code,
    message: String,
    hint: Option<String>,
    details: BTreeMap<&'static str, serde_json::Value>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of this code; `message` is one line without a full stop.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(Payload {
            code,
            message: message.into(),
            hint: None,
            details: BTreeMap::new(),
            source: None,
        }))
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds to the end of the message.
    #[must_use]
    pub fn with_message_suffix(mut self, suffix: &str) -> Self {
        self.0.message.push_str(suffix);
        self
    }

    /// Adds a named detail; it becomes a field of the Lua error table.
    #[must_use]
    pub fn with_detail(mut self, name: &'static str, value: impl Into<serde_json::Value>) -> Self {
        self.0.details.insert(name, value.into());
        self
    }

    /// Keeps the error that caused this one. Its text is not repeated in the message.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// What happened, in one line, without the causes.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The named details.
    pub fn details(&self) -> &BTreeMap<&'static str, serde_json::Value> {
        &self.0.details
    }

    /// The message followed by its causes, joined with `: `.
    pub fn full_message(&self) -> String {
        let mut text = self.0.message.clone();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code, self.0.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_message_lists_the_causes_once() {
        let error = Error::new(Code::VmSpec, "kernel cannot be read")
            .with_source(std::io::Error::other("no such file"));
        assert_eq!(error.full_message(), "kernel cannot be read: no such file");
        assert_eq!(error.to_string(), "vm.spec: kernel cannot be read");
    }
}
