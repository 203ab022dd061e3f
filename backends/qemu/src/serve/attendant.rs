//! The thread that serves one QEMU process.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;
use vmoon_core::Console;
use vmoon_virtio::block::Disk;
use vmoon_virtio::entropy::EntropyHost;

use super::disk::Server;
use super::entropy::EntropyServer;
use crate::process::Reach;
use crate::vhost::Vhost;

/// What is served, to one QEMU process after another.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    /// The vsock device, where the machine has one.
    pub(crate) vhost: Option<Arc<Mutex<Vhost>>>,
    /// Written when the host has work for it.
    pub(crate) host_work: Arc<EventFd>,
    /// The disks, in order.
    pub(crate) disks: Arc<[Mutex<Disk>]>,
    /// The source of entropy.
    pub(crate) entropy: EntropyHost,
    /// What the guest prints.
    pub(crate) console: Arc<Console>,
}

impl Served {
    /// The vsock device.
    pub(crate) fn vhost(&self) -> Option<MutexGuard<'_, Vhost>> {
        self.vhost.as_ref().map(|vhost| vhost.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A serving thread. Dropping it ends the thread, once its process is dead.
#[derive(Debug)]
pub(crate) struct Attendant {
    stop: Arc<EventFd>,
    entropy: Arc<EntropyServer>,
    thread: Option<JoinHandle<()>>,
}

/// The sockets of the guest's ports.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) serial: UnixStream,
    pub(crate) console: UnixStream,
    pub(crate) entropy: Arc<EntropyServer>,
    pub(crate) disks: Vec<UnixStream>,
}

impl Attendant {
    /// Starts to serve the process behind `reach`.
    pub(crate) fn start(reach: Reach, sockets: Sockets, served: Served) -> io::Result<Self> {
        let stop = Arc::new(EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?);
        let epoll = Epoll::new()?;
        let told = stop.clone();
        let entropy = sockets.entropy.clone();
        let thread = std::thread::Builder::new().name("qemu".to_owned()).spawn(move || {
            let mut round = match Round::new(epoll, &reach, sockets, &served, &told) {
                Ok(round) => round,
                Err(error) => {
                    tracing::error!(%error, "QEMU cannot be served");
                    return;
                }
            };
            if let Err(error) = round.serve() {
                tracing::error!(%error, "QEMU is not served any more");
            }
        })?;
        Ok(Self { stop, entropy, thread: Some(thread) })
    }

    /// Answers what the stopped guest's device has asked for: later it would be answered from the
    /// source of the life that begins.
    pub(crate) fn answer_entropy(&self) {
        if let Err(error) = self.entropy.serve() {
            tracing::debug!(%error, "entropy is not asked for any more");
        }
    }
}

impl Drop for Attendant {
    fn drop(&mut self) {
        // A full counter wakes the thread as well.
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that serves QEMU died");
        }
    }
}

/// A reason to wake up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wakeup {
    Stop,
    Call,
    HostWork,
    Kick,
    Serial,
    Console,
    Entropy,
    Disk(usize),
}

impl Wakeup {
    const fn token(self) -> u64 {
        match self {
            Self::Stop => 0,
            Self::Call => 1,
            Self::HostWork => 2,
            Self::Kick => 3,
            Self::Serial => 4,
            Self::Console => 5,
            Self::Entropy => 6,
            Self::Disk(index) => 7 + index as u64,
        }
    }

    fn of_token(token: u64) -> Self {
        match token {
            0 => Self::Stop,
            1 => Self::Call,
            2 => Self::HostWork,
            3 => Self::Kick,
            4 => Self::Serial,
            5 => Self::Console,
            6 => Self::Entropy,
            disk => Self::Disk(usize::try_from(disk - 7).unwrap_or(usize::MAX)),
        }
    }
}

struct Round<'a> {
    epoll: Epoll,
    reach: &'a Reach,
    sockets: Sockets,
    servers: Vec<Server<'a>>,
    served: &'a Served,
    /// The descriptors that are watched for kicks.
    kicks: Vec<RawFd>,
}

impl<'a> Round<'a> {
    fn new(
        epoll: Epoll,
        reach: &'a Reach,
        mut sockets: Sockets,
        served: &'a Served,
        stop: &EventFd,
    ) -> io::Result<Self> {
        let servers = served
            .disks
            .iter()
            .zip(&mut sockets.disks)
            .map(|(disk, socket)| Server::new(disk, socket))
            .collect::<io::Result<_>>()?;
        let round = Self { epoll, reach, sockets, servers, served, kicks: Vec::new() };
        let edges = EventSet::IN | EventSet::EDGE_TRIGGERED;
        round.watch(stop.as_raw_fd(), Wakeup::Stop, EventSet::IN)?;
        round.watch(reach.listener.as_raw_fd(), Wakeup::Call, EventSet::IN)?;
        round.watch(served.host_work.as_raw_fd(), Wakeup::HostWork, edges)?;
        round.watch(round.sockets.serial.as_raw_fd(), Wakeup::Serial, EventSet::IN)?;
        round.watch(round.sockets.console.as_raw_fd(), Wakeup::Console, EventSet::IN)?;
        round.watch(round.sockets.entropy.as_raw_fd(), Wakeup::Entropy, EventSet::IN)?;
        for (index, socket) in round.sockets.disks.iter().enumerate() {
            round.watch(socket.as_raw_fd(), Wakeup::Disk(index), EventSet::IN)?;
        }
        Ok(round)
    }

    fn watch(&self, descriptor: RawFd, wakeup: Wakeup, interest: EventSet) -> io::Result<()> {
        let event = EpollEvent::new(interest, wakeup.token());
        self.epoll.ctl(ControlOperation::Add, descriptor, event)
    }

    fn forget(&self, descriptor: RawFd) {
        // It fails for a descriptor that is not watched any more.
        let _ = self.epoll.ctl(ControlOperation::Delete, descriptor, EpollEvent::default());
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut ready = vec![EpollEvent::default(); 32];
        loop {
            let count = match self.epoll.wait(-1, &mut ready) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            for event in &ready[..count] {
                match Wakeup::of_token(event.data()) {
                    Wakeup::Stop => {
                        self.drain();
                        return Ok(());
                    }
                    // Nobody is left to call. Before Linux 6.11 a thread that listened would not
                    // hear of it.
                    Wakeup::Call if !event.event_set().contains(EventSet::IN) => {
                        self.forget(self.reach.listener.as_raw_fd());
                    }
                    wakeup => self.wake(wakeup),
                }
            }
        }
    }

    fn wake(&mut self, wakeup: Wakeup) {
        let Self { reach, sockets, servers, served, .. } = self;
        let (descriptor, outcome) = match wakeup {
            Wakeup::Stop => return,
            Wakeup::Call => (reach.listener.as_raw_fd(), self.call()),
            Wakeup::HostWork => {
                if let Some(mut vhost) = served.vhost() {
                    vhost.serve_host();
                }
                return;
            }
            Wakeup::Kick => {
                if let Some(mut vhost) = served.vhost() {
                    vhost.serve_guest();
                }
                return;
            }
            Wakeup::Serial => (sockets.serial.as_raw_fd(), print(&mut sockets.serial, served)),
            Wakeup::Console => (sockets.console.as_raw_fd(), print(&mut sockets.console, served)),
            Wakeup::Entropy => (sockets.entropy.as_raw_fd(), sockets.entropy.serve()),
            Wakeup::Disk(index) => match servers.get_mut(index).zip(sockets.disks.get_mut(index)) {
                Some((server, socket)) => (socket.as_raw_fd(), server.serve(socket)),
                None => return,
            },
        };
        if let Err(error) = outcome {
            // QEMU has closed its end: it is ending, or is dead.
            tracing::debug!(%error, ?wakeup, "a channel of QEMU has ended");
            self.forget(descriptor);
        }
    }

    fn call(&mut self) -> io::Result<()> {
        let Some(call) = self.reach.listener.receive()? else { return Ok(()) };
        let result = match self.served.vhost() {
            Some(mut vhost) => vhost.call(self.reach, call.request, call.argument),
            None => Err(libc::ENOTTY),
        };
        self.watch_kicks()?;
        self.reach.listener.answer(call, result)
    }

    /// Watches what QEMU has named for kicks since the last call.
    fn watch_kicks(&mut self) -> io::Result<()> {
        let Some(vhost) = self.served.vhost() else { return Ok(()) };
        let now: Vec<RawFd> = vhost.kicks().map(|kick| kick.as_raw_fd()).collect();
        if now == self.kicks {
            return Ok(());
        }
        // A duplicate that was dropped has left the set by itself; its number may be in use again.
        for &descriptor in &now {
            let interest = EventSet::IN | EventSet::EDGE_TRIGGERED;
            let event = EpollEvent::new(interest, Wakeup::Kick.token());
            match self.epoll.ctl(ControlOperation::Add, descriptor, event) {
                Err(error) if error.raw_os_error() != Some(libc::EEXIST) => return Err(error),
                _ => {}
            }
        }
        self.kicks = now;
        Ok(())
    }

    /// The last words of a process that is dead.
    fn drain(&mut self) {
        for socket in [&mut self.sockets.serial, &mut self.sockets.console] {
            if socket.set_nonblocking(true).is_ok() {
                while print(socket, self.served).is_ok() {}
            }
        }
    }
}

/// Takes what the guest printed.
fn print(socket: &mut UnixStream, served: &Served) -> io::Result<()> {
    let mut bytes = [0; 4096];
    match socket.read(&mut bytes)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => {
            served.console.append(&bytes[..count]);
            Ok(())
        }
    }
}
