//! The thread of a vCPU, and the handle that pauses and resumes it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

use kvm_ioctls::VcpuFd;

use super::exits::{self, Ending, Step};
use super::job::{Job, Outcome};
use super::kick::{self, ImmediateExit};
use crate::bus::Bus;

/// Called on the vCPU's thread when guest code must not run any more.
pub(crate) type OnEnding = Arc<dyn Fn(usize, Ending) + Send + Sync>;

/// A vCPU and its thread. Created parked; dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Vcpu {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    index: usize,
    // Declared before `fd`, whose mapping it points into.
    immediate_exit: ImmediateExit,
    /// Held by the thread whenever it is not parked.
    fd: Mutex<VcpuFd>,
    thread: OnceLock<libc::pthread_t>,
    gate: Mutex<Gate>,
    moved: Condvar,
    /// Mirrors `gate.wanted == Run` for the running loop.
    run: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Park,
    Run,
    Quit,
}

#[derive(Debug)]
struct Gate {
    wanted: Wanted,
    parked: bool,
    /// Taken by the thread once it is parked.
    job: Option<Job>,
    /// What came of the last job.
    outcome: Option<Outcome>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vcpu").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Vcpu {
    /// Starts the thread, parked.
    pub(crate) fn spawn(
        index: usize,
        mut fd: VcpuFd,
        bus: Arc<Bus>,
        on_ending: OnEnding,
    ) -> io::Result<Self> {
        kick::install_handler()?;
        // SAFETY: `fd` moves into the same structure, which drops it last.
        let immediate_exit = unsafe { ImmediateExit::of(&mut fd) };
        let shared = Arc::new(Shared {
            index,
            immediate_exit,
            fd: Mutex::new(fd),
            thread: OnceLock::new(),
            gate: Mutex::new(Gate { wanted: Wanted::Park, parked: true, job: None, outcome: None }),
            moved: Condvar::new(),
            run: AtomicBool::new(false),
        });
        let thread = std::thread::Builder::new()
            .name(format!("vcpu-{index}"))
            .stack_size(256 << 10)
            .spawn({
                let shared = shared.clone();
                move || shared.live(&bus, &on_ending)
            })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The vCPU's file descriptor. The vCPU must be parked, or this waits until it is.
    pub(crate) fn fd(&self) -> MutexGuard<'_, VcpuFd> {
        self.shared.fd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets guest code run.
    pub(crate) fn resume(&self) {
        let mut gate = self.shared.gate();
        gate.wanted = Wanted::Run;
        gate.parked = false;
        self.shared.run.store(true, Ordering::SeqCst);
        self.shared.moved.notify_all();
    }

    /// Asks the vCPU to park; [`Vcpu::wait_parked`] waits for it.
    pub(crate) fn request_park(&self) {
        self.shared.request(Wanted::Park);
    }

    /// Has the vCPU's thread do `job` as soon as it is parked; [`Vcpu::wait_outcome`] tells what
    /// came of it.
    pub(crate) fn assign(&self, job: Job) {
        let mut gate = self.shared.gate();
        gate.job = Some(job);
        gate.outcome = None;
        self.shared.moved.notify_all();
    }

    /// Returns once the job that was assigned is done.
    pub(crate) fn wait_outcome(&self) -> Outcome {
        let mut gate = self.shared.gate();
        loop {
            if let Some(outcome) = gate.outcome.take() {
                return outcome;
            }
            gate = self.shared.moved.wait(gate).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Returns once no guest code runs and the last exit is completed.
    pub(crate) fn wait_parked(&self) {
        let mut gate = self.shared.gate();
        while !gate.parked {
            gate = self.shared.moved.wait(gate).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        self.shared.request(Wanted::Quit);
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!(vcpu = self.shared.index, "the vCPU's thread panicked");
        }
    }
}

impl Shared {
    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(&self, wanted: Wanted) {
        let mut gate = self.gate();
        gate.wanted = wanted;
        self.run.store(false, Ordering::SeqCst);
        if gate.parked {
            self.moved.notify_all();
            return;
        }
        drop(gate);
        self.immediate_exit.set(true);
        if let Some(thread) = self.thread.get() {
            kick::interrupt(*thread);
        }
    }

    /// The thread's life: park, run, park, until told to quit.
    fn live(&self, bus: &Bus, on_ending: &OnEnding) {
        // SAFETY: always succeeds.
        let myself = unsafe { libc::pthread_self() };
        self.thread.get_or_init(|| myself);
        while self.wait_for_work() {
            let ending = {
                let mut fd = self.fd.lock().unwrap_or_else(PoisonError::into_inner);
                self.run_guest(&mut fd, bus)
            };
            let ended = ending.is_some();
            // Before parking: whoever waits for that sees the ending first.
            if let Some(ending) = ending {
                on_ending(self.index, ending);
            }
            let mut gate = self.gate();
            gate.parked = true;
            if ended && gate.wanted == Wanted::Run {
                gate.wanted = Wanted::Park;
            }
            self.moved.notify_all();
        }
    }

    /// Waits while parked; false when the thread shall end.
    fn wait_for_work(&self) -> bool {
        let mut gate = self.gate();
        loop {
            match gate.wanted {
                Wanted::Run => {
                    gate.parked = false;
                    return true;
                }
                Wanted::Quit => {
                    gate.parked = true;
                    self.moved.notify_all();
                    return false;
                }
                Wanted::Park => {
                    gate.parked = true;
                    self.moved.notify_all();
                    gate = match gate.job.take() {
                        Some(job) => {
                            drop(gate);
                            let outcome = {
                                let fd = self.fd.lock().unwrap_or_else(PoisonError::into_inner);
                                job.perform(self.index, &fd)
                            };
                            let mut gate = self.gate();
                            gate.outcome = Some(outcome);
                            gate
                        }
                        None => self.moved.wait(gate).unwrap_or_else(PoisonError::into_inner),
                    };
                }
            }
        }
    }

    fn run_guest(&self, fd: &mut VcpuFd, bus: &Bus) -> Option<Ending> {
        self.immediate_exit.set(false);
        // A request between the decision to run and the line above set the flag in vain.
        if !self.run.load(Ordering::SeqCst) {
            return None;
        }
        loop {
            match exits::step(fd, bus) {
                // An exit's instruction is complete only after the next call: a request to park
                // is therefore looked at only when a call was interrupted.
                Step::Continue => {}
                Step::Interrupted => {
                    if !self.run.load(Ordering::SeqCst) {
                        return None;
                    }
                    self.immediate_exit.set(false);
                    if !self.run.load(Ordering::SeqCst) {
                        return None;
                    }
                }
                Step::Ended(ending) => {
                    self.immediate_exit.set(true);
                    let settled = fd.run();
                    tracing::debug!(vcpu = self.index, ?ending, ?settled, "guest code ended");
                    return Some(ending);
                }
            }
        }
    }
}
