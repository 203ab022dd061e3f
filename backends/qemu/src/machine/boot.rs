//! Starting QEMU processes.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Instant;

use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::json;
use vmm_sys_util::eventfd::EventFd;
use vmoon_core::lifecycle::Operation;
use vmoon_core::{BootSource, Code, Error, Result, State};

use super::actor::Actor;
use super::monitor::Qemu;
use crate::error::cannot;
use crate::firmware;
use crate::plan::{Kind, Start};
use crate::process::Process;
use crate::serve::Channels;

/// The files that a process boots from, in memory.
struct Files {
    kernel: File,
    initrd: Option<File>,
}

impl Actor {
    /// Starts QEMU with the kernel. A failure goes back to `created`.
    pub(super) fn start(&mut self) -> Result<()> {
        self.state().allows(Operation::Start)?;
        self.set_state(State::Starting, None);
        let begun = self.begin().and_then(|()| self.ask("cont").map(drop));
        match begun {
            Ok(()) => {
                self.started = Some(Instant::now());
                self.set_state(State::Running, None);
                Ok(())
            }
            Err(error) => {
                self.lose_process();
                self.set_state(State::Created, None);
                Err(error)
            }
        }
    }

    fn begin(&mut self) -> Result<()> {
        let source = self.boot.clone().expect("a fork is never in the state created");
        let in_memory = |bytes: &[u8]| {
            in_memory(bytes).map_err(|error| cannot("keep the guest's files in memory", error))
        };
        if self.plan.guest == Kind::Micro {
            let line = format!("{} {}", source.cmdline, self.plan.micro_parameters());
            let entry = firmware::load(&self.ram, &source.kernel, line.trim())?;
            let files = Files { kernel: in_memory(&firmware::image(entry))?, initrd: None };
            return self.spawn(Some(&files), None);
        }
        let files = Files {
            kernel: in_memory(source.kernel.bytes())?,
            initrd: source.initrd.as_ref().map(|it| in_memory(it.bytes())).transpose()?,
        };
        self.reset_writes = source.kernel.bytes().starts_with(b"\x7fELF");
        self.spawn(Some(&files), Some(&source))
    }

    /// Starts a process that boots nothing: its state will come from a snapshot.
    pub(super) fn spawn_empty(&mut self) -> Result<()> {
        if self.plan.guest == Kind::Micro {
            // The firmware is a part of the state; here only its size counts.
            let kernel = in_memory(&firmware::image(0))
                .map_err(|error| cannot("keep the guest's files in memory", error))?;
            return self.spawn(Some(&Files { kernel, initrd: None }), None);
        }
        self.spawn(None, None)
    }

    fn spawn(&mut self, files: Option<&Files>, source: Option<&BootSource>) -> Result<()> {
        let failed = |error| cannot("start QEMU", error);
        let (channels, ends) = Channels::new(self.plan.disks.len()).map_err(failed)?;
        // QEMU makes vhost's calls on it; nothing is behind it but the calls themselves.
        let vhost = EventFd::new(libc::EFD_CLOEXEC).map_err(failed)?;
        let line = source
            .map(|source| format!("{}{}", source.cmdline.trim(), self.plan.linux_parameters()));
        let start = files.map(|files| match &line {
            Some(line) => Start::Kernel {
                kernel: files.kernel.as_raw_fd(),
                initrd: files.initrd.as_ref().map(AsRawFd::as_raw_fd),
                command_line: line,
            },
            None => Start::Firmware(files.kernel.as_raw_fd()),
        });
        let ram = self.ram.descriptor();
        let arguments = self.plan.arguments(
            self.program,
            &ends,
            ram.as_raw_fd(),
            vhost.as_raw_fd(),
            self.cid,
            start,
        );
        tracing::debug!(arguments = arguments.join(" "), "QEMU");
        // SAFETY: `vhost` is open until the end of this function.
        let vhost_descriptor = unsafe { std::os::fd::BorrowedFd::borrow_raw(vhost.as_raw_fd()) };
        let mut inherited = vec![ram, vhost_descriptor];
        inherited.extend(ends.descriptors());
        if let Some(files) = files {
            inherited.push(files.kernel.as_fd());
            inherited.extend(files.initrd.as_ref().map(AsFd::as_fd));
        }
        let (process, reach) =
            Process::spawn(&self.program.path, &arguments, &inherited).map_err(failed)?;
        drop(ends);
        self.processes += 1;
        let (number, served) = (self.processes, self.served.clone());
        let qemu = Qemu::attend(number, &self.mailbox, process, reach, channels, served);
        self.qemu = Some(qemu.map_err(failed)?);
        self.greet().map_err(|error| {
            let message = format!("QEMU did not start: {}", error.message());
            Error::new(Code::BackendUnavailable, message)
                .with_hint("`vmoon -vv` shows QEMU's command line")
                .with_detail("backend", "qemu")
        })
    }

    fn greet(&mut self) -> Result<()> {
        self.ask("qmp_capabilities")?;
        // RAM is shared with this process and no part of what QEMU saves.
        let capability = json!({ "capability": "x-ignore-shared", "state": true });
        self.ask_with("migrate-set-capabilities", &json!({ "capabilities": [capability] }))?;
        Ok(())
    }
}

fn in_memory(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("guest-file", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file)
}
