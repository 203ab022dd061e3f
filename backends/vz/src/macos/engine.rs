//! A machine of the framework.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use block2::RcBlock;
use objc2::rc::Retained;
use objc2_foundation::{NSError, NSURL};
use objc2_virtualization::{
    VZVirtioSocketListener, VZVirtioTraditionalMemoryBalloonDevice, VZVirtualMachine,
    VZVirtualMachineState,
};
use vmoon_core::{Bytes, Code, Error, Result};

use super::completion::{handler, owned_words};
use super::delegate::{Delegate, ListenerDelegate};
use super::queue::Confined;
use crate::framework::Engine;

/// How long the framework may take to change a machine's state.
const CHANGE: Duration = Duration::from_secs(15);
/// How long it may take to write or read a machine's memory.
const MEMORY: Duration = Duration::from_mins(5);

/// What lives on a machine's queue.
pub(super) struct Objects {
    pub(super) machine: Retained<VZVirtualMachine>,
    /// The machine holds it weakly.
    pub(super) _delegate: Retained<Delegate>,
    /// The listener of every port, and its delegate, which it holds weakly.
    pub(super) listener: (Retained<VZVirtioSocketListener>, Retained<ListenerDelegate>),
}

/// A machine.
#[derive(Debug)]
pub(super) struct Machine(pub(super) Confined<Objects>);

/// Where the framework's answer goes.
struct Reply(mpsc::SyncSender<Result<(), String>>);

impl Reply {
    /// Answers at once.
    fn answer(self, outcome: Result<(), String>) {
        // Whoever waited may have given up.
        let _ = self.0.send(outcome);
    }

    /// The handler through which the framework answers.
    fn handler(self) -> RcBlock<dyn Fn(*mut NSError)> {
        handler(move |outcome| self.answer(outcome))
    }
}

impl Machine {
    /// Asks the framework on the machine's queue and waits for its answer.
    fn ask(
        &self,
        what: &'static str,
        deadline: Duration,
        request: impl FnOnce(&VZVirtualMachine, Reply) + Send + 'static,
    ) -> Result<()> {
        // Room for the answer, so that the queue never waits.
        let (sender, answer) = mpsc::sync_channel(1);
        self.0.spawn(move |objects| request(&objects.machine, Reply(sender)));
        match answer.recv_timeout(deadline) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(words)) => Err(failed(what, &words)),
            Err(mpsc::RecvTimeoutError::Timeout) => Err(Error::new(
                Code::VmTimeout,
                format!("the framework did not {what} within {} s", deadline.as_secs()),
            )),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                Err(failed(what, "the framework forgot the request"))
            }
        }
    }

    /// As [`Machine::ask`], with a file.
    fn ask_with_file(
        &self,
        what: &'static str,
        file: &Path,
        request: impl FnOnce(&VZVirtualMachine, &NSURL, Reply) + Send + 'static,
    ) -> Result<()> {
        let file: PathBuf = file.to_owned();
        self.ask(what, MEMORY, move |machine, reply| match NSURL::from_file_path(&file) {
            Some(url) => request(machine, &url, reply),
            None => reply.answer(Err(format!("{} is no path for it", file.display()))),
        })
    }
}

fn failed(what: &str, words: &str) -> Error {
    Error::new(Code::BackendUnavailable, format!("the framework cannot {what}: {words}"))
        .with_detail("backend", "vz")
}

impl Engine for Machine {
    fn start(&mut self) -> Result<()> {
        self.ask("start the machine", CHANGE, |machine, reply| {
            // SAFETY: called on the machine's queue; the framework copies the handler.
            unsafe { machine.startWithCompletionHandler(&reply.handler()) };
        })
    }

    fn pause(&mut self) -> Result<()> {
        self.ask("pause the machine", CHANGE, |machine, reply| {
            // SAFETY: as above.
            unsafe { machine.pauseWithCompletionHandler(&reply.handler()) };
        })
    }

    fn resume(&mut self) -> Result<()> {
        self.ask("resume the machine", CHANGE, |machine, reply| {
            // SAFETY: as above.
            unsafe { machine.resumeWithCompletionHandler(&reply.handler()) };
        })
    }

    fn stop(&mut self) -> Result<()> {
        self.ask("stop the machine", CHANGE, |machine, reply| {
            // SAFETY: read on the machine's queue, on which alone it changes.
            let state = unsafe { machine.state() };
            if matches!(state, VZVirtualMachineState::Stopped | VZVirtualMachineState::Error) {
                // To stop what has stopped can crash the framework.
                return reply.answer(Ok(()));
            }
            // SAFETY: as above.
            unsafe { machine.stopWithCompletionHandler(&reply.handler()) };
        })
    }

    fn press_power_button(&mut self) -> Result<()> {
        self.ask("ask the guest to power off", CHANGE, |machine, reply| {
            // SAFETY: called on the machine's queue.
            reply.answer(unsafe { machine.requestStopWithError() }.map_err(owned_words));
        })
    }

    fn save(&mut self, file: &Path) -> Result<()> {
        self.ask_with_file("save the machine", file, |machine, url, reply| {
            // SAFETY: as for `start`; who saves has macOS 14 (`HostFacts::capabilities`).
            unsafe {
                machine.saveMachineStateToURL_completionHandler(url, &reply.handler());
            }
        })
    }

    fn restore(&mut self, file: &Path) -> Result<()> {
        self.ask_with_file("restore the machine", file, |machine, url, reply| {
            // SAFETY: as for `save`.
            unsafe {
                machine.restoreMachineStateFromURL_completionHandler(url, &reply.handler());
            }
        })
        .map_err(|error| {
            Error::new(Code::SnapshotIncompatible, error.message())
                .with_hint("a saved state is for the Mac and the macOS that wrote it")
                .with_source(error)
        })
    }

    fn set_balloon(&mut self, target: Bytes) -> Result<()> {
        self.ask("move the balloon", CHANGE, move |machine, reply| {
            // SAFETY: read on the machine's queue.
            let devices = unsafe { machine.memoryBalloonDevices() };
            let balloon = devices.firstObject().and_then(|device| {
                device.downcast::<VZVirtioTraditionalMemoryBalloonDevice>().ok()
            });
            let Some(balloon) = balloon else {
                return reply.answer(Err("it has none".to_owned()));
            };
            // SAFETY: as above. The framework rounds down to MiB and clamps by itself.
            unsafe { balloon.setTargetVirtualMachineMemorySize(target.get()) };
            reply.answer(Ok(()));
        })
    }
}
