//! What to run, and how it ended.

use std::time::Duration;

use vmoon_protocol::message::{Command, Exec, Exit, TerminalSize};

/// A command for the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// The program and its arguments, or text for the shell.
    pub command: Command,
    /// Standard input: for `exec` the whole of it, for `spawn` its beginning.
    pub stdin: Option<Vec<u8>>,
    /// For `spawn`: more input follows through [`super::ProcessInput`].
    pub keep_stdin_open: bool,
    /// Variables added to the agent's environment.
    pub environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// The directory to run in.
    pub directory: Option<Vec<u8>>,
    /// The user to run as, by name or number.
    pub user: Option<String>,
    /// The size of a terminal for it to run on: its output is all standard output then.
    pub terminal: Option<TerminalSize>,
    /// How long it may run; then its process group is killed.
    pub timeout: Option<Duration>,
}

impl ExecRequest {
    /// A command for the guest's shell.
    pub fn shell(command: impl Into<Vec<u8>>) -> Self {
        Self { command: Command::Shell(command.into()), ..Self::default() }
    }

    /// A program and its arguments.
    pub fn arguments<I, A>(arguments: I) -> Self
    where
        I: IntoIterator<Item = A>,
        A: Into<Vec<u8>>,
    {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self { command: Command::Arguments(arguments), ..Self::default() }
    }

    /// The command in one line, for messages.
    pub fn describe(&self) -> String {
        match &self.command {
            Command::Shell(text) => String::from_utf8_lossy(text).into_owned(),
            Command::Arguments(arguments) => arguments
                .iter()
                .map(|argument| String::from_utf8_lossy(argument))
                .collect::<Vec<_>>()
                .join(" "),
        }
    }

    /// The message that asks the guest; `stdin` says whether input follows.
    pub(super) fn message(&self, stdin: bool) -> Exec {
        Exec {
            command: self.command.clone(),
            environment: self.environment.clone(),
            directory: self.directory.clone(),
            user: self.user.clone(),
            timeout_ms: self
                .timeout
                .map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1)),
            stdin,
            terminal: self.terminal,
        }
    }
}

/// How a command ended. A code other than zero is data, not an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecResult {
    /// The exit code; 128 + signal when a signal ended it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// All of its standard output; empty for [`super::Output::Exit`].
    pub stdout: Vec<u8>,
    /// All of its standard error; empty for [`super::Output::Exit`].
    pub stderr: Vec<u8>,
    /// How long it ran by the guest's clock.
    pub duration: Duration,
}

impl ExecResult {
    /// Whether the code is zero.
    pub fn ok(&self) -> bool {
        self.code == 0
    }
}

impl From<Exit> for ExecResult {
    fn from(exit: Exit) -> Self {
        Self {
            code: exit.code,
            signal: (exit.signal != 0).then_some(exit.signal),
            stdout: Vec::new(),
            stderr: Vec::new(),
            duration: Duration::from_nanos(exit.duration_ns),
        }
    }
}
