//! The service: a listener for commands, and the control connection.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::control;
use crate::session;
use crate::sys;
use crate::transport::{self, Transport};

/// Threads need little: their buffers are on the heap.
const STACK: usize = 128 * 1024;

/// The agent's service.
#[derive(Debug)]
pub(crate) struct Service {
    transport: Transport,
    platform: Platform,
}

/// What the service may do to the machine that it runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Platform {
    /// A guest: its clock, entropy and power are the host's to command.
    Guest,
    /// Somebody's computer: lives change nothing, and a shutdown ends the agent alone.
    Development,
}

impl Service {
    /// The service of a guest.
    pub(crate) fn guest() -> Self {
        Self { transport: Transport::Vsock, platform: Platform::Guest }
    }

    /// The service on a development machine.
    pub(crate) fn development(transport: Transport) -> Self {
        Self { transport, platform: Platform::Development }
    }

    /// Serves for ever.
    pub(crate) fn run(self) -> io::Result<()> {
        if let Err(error) = sys::lift_descriptor_limit() {
            eprintln!("vmoon-agent: few commands can run at once: {error}");
        }
        // Listening comes before `Ready`: the host may open a command connection at once.
        let listener = self.transport.listen()?;
        let platform = self.platform;
        spawn("listener", move || accept_all(&listener, platform))?;
        control::run(&self.transport, platform)
    }
}

/// Starts a thread of the service.
pub(crate) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(body).map(drop)
}

fn accept_all(listener: &OwnedFd, platform: Platform) {
    let report = Arc::new(|error: &io::Error| eprintln!("vmoon-agent: a command: {error}"));
    loop {
        let outcome = transport::accept(listener).and_then(|stream| {
            let report = Arc::clone(&report);
            spawn("command", move || {
                if let Err(error) = session::serve(stream, platform) {
                    report(&error);
                }
            })
        });
        if let Err(error) = outcome {
            eprintln!("vmoon-agent: cannot take a connection: {error}");
            // Out of descriptors or memory: what is running may give some back.
            thread::sleep(Duration::from_millis(100));
        }
    }
}
