//! Starts QEMU so that it ends with this process, however that ends.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_getfd, pidfd_open};

use super::seccomp::{self, Listener};

/// How much of what QEMU said is shown.
const SHOWN: u64 = 4096;

/// A QEMU process. Dropping it kills it and waits until it is gone.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stderr: File,
}

/// The means to serve a process's calls: its listener, memory and descriptors.
#[derive(Debug)]
pub(crate) struct Reach {
    /// Where its calls arrive.
    pub(crate) listener: Listener,
    /// The process's number, which is nobody else's before [`Process`] has waited for it.
    number: u32,
    /// Opened at the first call: what was started may be a wrapper that becomes QEMU only then,
    /// and the file is bound to the memory of the program that it was opened for.
    memory: OnceLock<File>,
    pidfd: OwnedFd,
}

impl Process {
    /// Starts `program`, which inherits `descriptors` under their numbers.
    ///
    /// The process dies with the calling *thread*: it must be one that lives as long as the
    /// machine.
    pub(crate) fn spawn(
        program: &Path,
        arguments: &[String],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<(Self, Reach)> {
        let stderr = File::from(memfd_create("qemu-stderr", MemfdFlags::CLOEXEC)?);
        let (ours, theirs) = UnixStream::pair()?;
        let inherited: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let parent = rustix::process::getpid();
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::from(stderr.try_clone()?))
            .stderr(Stdio::from(stderr.try_clone()?))
            // A Ctrl-C at the terminal is for vmoon, which ends its machines in order.
            .process_group(0);
        let prepare = move || prepare(parent, &inherited, theirs.as_fd());
        // SAFETY: `prepare` makes system calls only: it allocates nothing and takes no lock.
        unsafe { command.pre_exec(prepare) };
        let child = command.spawn()?;
        // The command holds the other end of the socket.
        drop(command);
        let mut process = Self { child, stderr };
        let reach = process.reach(&ours).inspect_err(|_| process.kill())?;
        Ok((process, reach))
    }

    fn reach(&self, socket: &UnixStream) -> io::Result<Reach> {
        let listener = Listener(receive_descriptor(socket)?);
        let number = self.child.id();
        let pid = i32::try_from(number).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::InvalidData)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Reach { listener, number, memory: OnceLock::new(), pidfd })
    }

    /// Kills it; returns once it is gone. Idempotent.
    pub(crate) fn kill(&mut self) {
        // Both fail only for a process that has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// How it ended, after its monitor has closed: in words.
    pub(crate) fn ending(&mut self) -> String {
        let status = match self.child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let said = self.said();
        if said.is_empty() {
            format!("QEMU ended ({status})")
        } else {
            format!("QEMU ended ({status}): {said}")
        }
    }

    /// The end of what it wrote to its standard error.
    pub(crate) fn said(&self) -> String {
        let length = self.stderr.metadata().map_or(0, |metadata| metadata.len());
        let mut bytes = vec![0; usize::try_from(length.min(SHOWN)).unwrap_or(0)];
        let start = length.saturating_sub(SHOWN);
        let count = self.stderr.read_at(&mut bytes, start).unwrap_or(0);
        let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
        text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Reach {
    /// Reads from the process's memory.
    pub(crate) fn read(&self, address: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.memory()?.read_exact_at(bytes, address)
    }

    /// Writes to the process's memory.
    pub(crate) fn write(&self, address: u64, bytes: &[u8]) -> io::Result<()> {
        self.memory()?.write_all_at(bytes, address)
    }

    fn memory(&self) -> io::Result<&File> {
        if let Some(memory) = self.memory.get() {
            return Ok(memory);
        }
        let path = format!("/proc/{}/mem", self.number);
        let memory = File::options().read(true).write(true).open(path)?;
        Ok(self.memory.get_or_init(|| memory))
    }

    /// A duplicate of one of the process's descriptors.
    pub(crate) fn descriptor(&self, number: i32) -> io::Result<OwnedFd> {
        let flags = rustix::process::PidfdGetfdFlags::empty();
        Ok(pidfd_getfd(&self.pidfd, number, flags)?)
    }
}

/// Runs in the child, before QEMU.
fn prepare(parent: Pid, inherited: &[RawFd], socket: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have died before the call above: then nobody would send the signal.
    if rustix::process::getppid() != Some(parent) {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    for &descriptor in inherited {
        // SAFETY: the parent keeps it open until the child has begun.
        let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
        fcntl_setfd(descriptor, FdFlags::empty())?;
    }
    seccomp::install(socket)
}

fn receive_descriptor(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC;
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
    control
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        })
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
