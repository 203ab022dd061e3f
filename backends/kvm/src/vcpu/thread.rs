//! The thread of a vCPU, and the handle that pauses and resumes it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use kvm_ioctls::VcpuFd;

use super::exits::{self, Ending, Step};
use super::gate::{Gate, MOMENT, Wanted};
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
    gate: Gate,
    /// Whether guest code is wanted, for the running loop.
    run: AtomicBool,
}

/// What a parked thread does next.
enum Next {
    Run,
    Perform(Job),
    Quit,
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
            gate: Gate::new(),
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
        self.shared.fd()
    }

    /// Lets guest code run.
    pub(crate) fn resume(&self) {
        self.shared.run.store(true, Ordering::SeqCst);
        // Parked until its thread says otherwise: a request to park that comes before the thread
        // has woken would wait for somebody who never ran.
        self.shared.gate.change(|understanding| understanding.wanted = Wanted::Run);
    }

    /// Asks the vCPU to park; [`Vcpu::wait_parked`] waits for it.
    pub(crate) fn request_park(&self) {
        self.shared.request(Wanted::Park);
    }

    /// Has the vCPU's thread do `job` as soon as it is parked; [`Vcpu::wait_outcome`] tells what
    /// came of it.
    pub(crate) fn assign(&self, job: Job) {
        self.shared.gate.change(|understanding| {
            understanding.job = Some(job);
            understanding.outcome = None;
        });
    }

    /// Returns once the job that was assigned is done.
    pub(crate) fn wait_outcome(&self) -> Outcome {
        self.shared.gate.wait(MOMENT, |understanding| understanding.outcome.take())
    }

    /// Returns once no guest code runs and the last exit is completed.
    pub(crate) fn wait_parked(&self) {
        self.shared.gate.wait(MOMENT, |understanding| understanding.parked.then_some(()));
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
    fn fd(&self) -> MutexGuard<'_, VcpuFd> {
        self.fd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(&self, wanted: Wanted) {
        self.run.store(false, Ordering::SeqCst);
        let parked = self.gate.change(|understanding| {
            understanding.wanted = wanted;
            understanding.parked
        });
        if parked {
            return;
        }
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
        let mut moment = Duration::ZERO;
        loop {
            match self.wait_for_work(moment) {
                Next::Quit => break,
                Next::Run => {
                    moment = Duration::ZERO;
                    let ending = self.run_guest(&mut self.fd(), bus);
                    self.park(ending, on_ending);
                }
                Next::Perform(job) => {
                    let outcome = job.perform(self.index, &mut self.fd());
                    self.gate.change(|understanding| understanding.outcome = Some(outcome));
                    // The word to run on comes within microseconds.
                    moment = MOMENT;
                }
            }
        }
    }

    fn wait_for_work(&self, moment: Duration) -> Next {
        self.gate.wait(moment, |understanding| match understanding.wanted {
            Wanted::Run => {
                understanding.parked = false;
                Some(Next::Run)
            }
            Wanted::Quit => Some(Next::Quit),
            Wanted::Park => understanding.job.take().map(Next::Perform),
        })
    }

    fn park(&self, ending: Option<Ending>, on_ending: &OnEnding) {
        let ended = ending.is_some();
        // Before parking: whoever waits for that sees the ending first.
        if let Some(ending) = ending {
            on_ending(self.index, ending);
        }
        self.gate.change(|understanding| {
            understanding.parked = true;
            if ended && understanding.wanted == Wanted::Run {
                understanding.wanted = Wanted::Park;
            }
        });
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
