//! Running a program to its end, within a deadline.

use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::project;

/// Where a program of the host's is, as a shell would find it.
pub fn installed(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// How a program ended, and what it printed.
#[derive(Debug)]
pub struct Ended {
    /// The exit status; 128 and the signal's number when a signal ended it, as in a shell.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it ran.
    pub duration: Duration,
}

impl Ended {
    /// Asserts the exit status; a failure shows all that the program printed.
    #[track_caller]
    pub fn expect_status(&self, status: i32) -> &Self {
        assert_eq!(self.status, status, "exit status\n{self}");
        self
    }

    /// Asserts that standard error contains each of `texts`, whatever their case.
    #[track_caller]
    pub fn expect_stderr(&self, texts: &[&str]) -> &Self {
        let stderr = self.stderr.to_lowercase();
        for text in texts {
            assert!(stderr.contains(&text.to_lowercase()), "no {text:?} in standard error\n{self}");
        }
        self
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "exit status {} after {:.2?}", self.status, self.duration)?;
        writeln!(f, "--- standard output\n{}", self.stdout)?;
        writeln!(f, "--- standard error\n{}", self.stderr)
    }
}

/// A running program.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: JoinHandle<String>,
    stderr: JoinHandle<String>,
    started: Instant,
}

/// A command that runs `vmoon` in the project's folder, without a standard input.
pub fn vmoon<I: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = I>) -> Command {
    let mut command = Command::new(project::vmoon());
    command.args(arguments).current_dir(project::root()).stdin(Stdio::null());
    command
}

/// Runs a command to its end; kills it, and fails, at the deadline.
#[track_caller]
pub fn run(command: &mut Command, deadline: Duration) -> Ended {
    start(command).wait(deadline)
}

/// Runs a command with `input` as its standard input.
#[track_caller]
pub fn run_with_input(command: &mut Command, input: &str, deadline: Duration) -> Ended {
    let mut running = start(command.stdin(Stdio::piped()));
    let mut stdin = running.child.stdin.take().expect("standard input is a pipe");
    // A program that does not read to the end closes the pipe; what it then does is judged.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    running.wait(deadline)
}

/// Starts a command in a process group of its own.
#[track_caller]
pub fn start(command: &mut Command) -> Running {
    let mut child = command
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = collect(child.stdout.take().expect("standard output is a pipe"));
    let stderr = collect(child.stderr.take().expect("standard error is a pipe"));
    Running { child, stdout, stderr, started: Instant::now() }
}

fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("a pipe can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

impl Running {
    /// The process id.
    pub fn id(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id is an i32")
    }

    /// Sends a signal to the program.
    pub fn signal(&self, signal: i32) {
        // SAFETY: `kill` touches no memory; the child has not been waited for, so its id is its
        // own.
        unsafe { libc::kill(self.id(), signal) };
    }

    /// Waits for the end; kills the whole process group, and fails, at the deadline.
    #[track_caller]
    pub fn wait(mut self, deadline: Duration) -> Ended {
        let mut late = false;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                break status;
            }
            if self.started.elapsed() > deadline && !late {
                late = true;
                // SAFETY: as in `signal`; the group is the child's own.
                unsafe { libc::kill(-self.id(), libc::SIGKILL) };
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let ended = Ended {
            status: exit_status(status),
            duration: self.started.elapsed(),
            stdout: self.stdout.join().expect("the reader does not panic"),
            stderr: self.stderr.join().expect("the reader does not panic"),
        };
        assert!(!late, "still running after {deadline:?}\n{ended}");
        ended
    }
}

/// The status that a shell would show.
pub fn exit_status(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}
