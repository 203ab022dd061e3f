//! Starts programs: arguments, environment, directory, user.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use vmoon_protocol::message::{self, Exec, Failure};

use crate::account::Account;
use crate::sys;
use crate::terminal::Terminal;

/// A program that was started, in a process group of its own. Dropping it kills the group.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Becomes readable when the program ends.
    pub(crate) end: OwnedFd,
    /// Where input goes: a pipe, or the terminal.
    pub(crate) stdin: Option<File>,
    /// Where output comes from: a pipe, or the terminal.
    pub(crate) stdout: Option<File>,
    pub(crate) stderr: Option<File>,
    /// The terminal that it runs on.
    pub(crate) terminal: Option<Terminal>,
    pub(crate) started: Instant,
    reaped: bool,
}

impl Process {
    /// Starts what is asked for.
    ///
    /// Without a user this is `posix_spawn`: the agent's memory is neither copied nor marked.
    pub(crate) fn start(exec: &Exec) -> Result<Self, Failure> {
        let (program, mut command) = command(exec)?;
        if let Some(directory) = &exec.directory {
            let directory = OsStr::from_bytes(directory);
            check_directory(directory)?;
            command.current_dir(directory);
        }
        if let Some(user) = &exec.user {
            run_as(&mut command, user)?;
        }
        for (name, value) in &exec.environment {
            if name.is_empty() || name.contains(&0) || value.contains(&0) {
                let name = String::from_utf8_lossy(name);
                return Err(failure(
                    "vm.spec",
                    format!("{name:?} cannot be set in an environment"),
                ));
            }
            command.env(OsStr::from_bytes(name), OsStr::from_bytes(value));
        }
        let terminal = streams(&mut command, exec)?;
        let started = Instant::now();
        let child = command.spawn().map_err(|error| start_failure(&program, &error))?;
        // The command holds the program's end of a terminal, which must not outlive the program.
        drop(command);
        Self::adopt(child, terminal, started)
            .map_err(|error| failure("agent.unavailable", format!("{error}, after the start")))
    }

    fn adopt(mut child: Child, terminal: Option<Terminal>, started: Instant) -> io::Result<Self> {
        let end = sys::pidfd(child.id()).inspect_err(|_| {
            let _ = child.kill().and_then(|()| child.wait());
        })?;
        let file = |fd: Option<OwnedFd>| fd.map(File::from);
        let on_terminal = || terminal.as_ref().map(Terminal::file).transpose();
        let process = Self {
            stdin: file(child.stdin.take().map(OwnedFd::from)).or(on_terminal()?),
            stdout: file(child.stdout.take().map(OwnedFd::from)).or(on_terminal()?),
            stderr: file(child.stderr.take().map(OwnedFd::from)),
            terminal,
            child,
            end,
            started,
            reaped: false,
        };
        let ends = [
            process.stdin.as_ref().map(AsFd::as_fd),
            process.stdout.as_ref().map(AsFd::as_fd),
            process.stderr.as_ref().map(AsFd::as_fd),
        ];
        ends.into_iter().flatten().try_for_each(sys::set_nonblocking)?;
        Ok(process)
    }

    /// Signals the process group, if the program has not been reaped.
    pub(crate) fn signal(&self, signal: i32) {
        if !self.reaped {
            // The group may be empty by now, or the number not a signal: neither hurts.
            let _ = sys::kill_group(self.child.id(), signal);
        }
    }

    /// The status of the program, if it has ended.
    pub(crate) fn try_reap(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        self.reaped |= status.is_some();
        Ok(status)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            self.signal(libc::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// Connects the program with pipes, in a process group, or with a terminal, in a session.
fn streams(command: &mut Command, exec: &Exec) -> Result<Option<Terminal>, Failure> {
    if let Some(size) = exec.terminal {
        let terminal = Terminal::open(size, command).map_err(|error| {
            failure("agent.unavailable", format!("the guest gives no terminal: {error}"))
        })?;
        return Ok(Some(terminal));
    }
    command
        .process_group(0)
        .stdin(if exec.stdin { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok(None)
}

/// The program's name for messages, and the command without its surroundings.
fn command(exec: &Exec) -> Result<(OsString, Command), Failure> {
    let words: Vec<&OsStr> = match &exec.command {
        message::Command::Arguments(words) => {
            words.iter().map(|word| OsStr::from_bytes(word)).collect()
        }
        message::Command::Shell(text) => {
            ["sh", "-c"].map(OsStr::new).into_iter().chain([OsStr::from_bytes(text)]).collect()
        }
    };
    let Some((program, arguments)) = words.split_first().filter(|(name, _)| !name.is_empty())
    else {
        return Err(failure("vm.spec", "there is no program to run".to_owned()));
    };
    if words.iter().any(|word| word.as_bytes().contains(&0)) {
        return Err(failure("vm.spec", "an argument holds a NUL byte".to_owned()));
    }
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(((*program).to_owned(), command))
}

fn check_directory(directory: &OsStr) -> Result<(), Failure> {
    let shown = directory.to_string_lossy();
    match fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(failure("file.not_found", format!("{shown} is not a directory in the guest"))),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(failure("file.permission", format!("{shown} may not be entered in the guest")))
        }
        Err(_) => {
            Err(failure("file.not_found", format!("directory {shown} does not exist in the guest")))
        }
    }
}

fn run_as(command: &mut Command, user: &str) -> Result<(), Failure> {
    let account = Account::find(user).ok_or_else(|| {
        failure("exec.not_found", format!("user {user:?} does not exist in the guest"))
    })?;
    command.env("USER", &account.name).env("LOGNAME", &account.name);
    command.env("HOME", OsString::from_vec(account.home.clone().into_bytes()));
    // SAFETY: between fork and exec the closure makes system calls only; what it uses was
    // allocated before.
    unsafe { command.pre_exec(move || account.become_it()) };
    Ok(())
}

fn start_failure(program: &OsStr, error: &io::Error) -> Failure {
    let shown = program.to_string_lossy();
    match error.kind() {
        io::ErrorKind::NotFound if program == "sh" => failure(
            "exec.not_found",
            "the guest has no shell; give the command as an argv table".to_owned(),
        ),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            failure("exec.not_found", format!("program {shown} does not exist in the guest"))
        }
        io::ErrorKind::PermissionDenied => {
            failure("file.permission", format!("{shown} may not be executed in the guest"))
        }
        _ => failure("exec.not_found", format!("{shown} cannot be started in the guest: {error}")),
    }
}

fn failure(code: &str, message: String) -> Failure {
    Failure { code: code.to_owned(), message }
}
