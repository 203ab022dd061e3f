//! What is asked of the framework, as traits: `macos` implements them with Objective-C, the tests
//! without.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use vmoon_core::{Bytes, Result};

use crate::host::HostFacts;
use crate::plan::{Files, Plan};

/// Virtualization.framework, or what stands for it.
pub trait Framework: Send + Sync + fmt::Debug {
    /// What it can do here.
    fn facts(&self) -> HostFacts;

    /// Makes a machine, stopped, and has the framework check its configuration. Blocks.
    ///
    /// `identifier` is that of a saved machine; without, a new one is made.
    ///
    /// # Errors
    /// `vm.spec` with the framework's own words.
    fn create(
        &self,
        plan: &Plan,
        files: &Files,
        identifier: Option<&[u8]>,
        wiring: Wiring,
    ) -> Result<Created>;
}

/// A machine that was made.
#[derive(Debug)]
pub struct Created {
    /// The machine.
    pub engine: Box<dyn Engine>,
    /// Its vsock device, if it has one.
    pub sockets: Option<Arc<dyn Sockets>>,
    /// Its identifier, by which alone a saved state of it can be restored.
    pub identifier: Vec<u8>,
    /// Why the framework could not save such a machine, if it could not.
    pub unsaveable: Option<String>,
}

/// What a machine is given of its surroundings.
pub struct Wiring {
    /// What the guest's console reads from, and what it writes to.
    pub console: (OwnedFd, OwnedFd),
    /// Hears how the machine ended by itself: at most once.
    pub ended: Box<dyn Fn(Ended) + Send + Sync>,
    /// Takes a connection that the guest opens to a port that is listened on; false refuses it.
    /// Must not wait.
    pub incoming: Incoming,
}

/// Takes a connection of the guest's to this port of the host.
pub type Incoming = Arc<dyn Fn(u32, RawConnection) -> bool + Send + Sync>;

impl fmt::Debug for Wiring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wiring").field("console", &self.console).finish_non_exhaustive()
    }
}

/// How a machine ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The guest powered off.
    PoweredOff,
    /// The framework stopped it, for this reason.
    Failed(String),
}

/// One machine of the framework, as its thread sees it. Each call waits until the framework has
/// answered, or a deadline has passed. Dropping it frees the machine; one that runs is stopped.
pub trait Engine: Send + fmt::Debug {
    /// Starts a stopped machine with its boot loader.
    fn start(&mut self) -> Result<()>;
    /// Pauses a machine that runs.
    fn pause(&mut self) -> Result<()>;
    /// Goes on after a pause.
    fn resume(&mut self) -> Result<()>;
    /// Ends the machine without asking the guest; one that has stopped stays so.
    fn stop(&mut self) -> Result<()>;
    /// Asks the guest to power off.
    fn press_power_button(&mut self) -> Result<()>;
    /// Writes the state of a paused machine to a file that does not exist.
    fn save(&mut self, file: &Path) -> Result<()>;
    /// Reads the state of a stopped machine, which is paused afterwards.
    fn restore(&mut self, file: &Path) -> Result<()>;
    /// Asks the guest to get by with so much memory.
    fn set_balloon(&mut self, target: Bytes) -> Result<()>;
}

/// The vsock device of one machine. Nothing here waits.
pub trait Sockets: Send + Sync + fmt::Debug {
    /// Begins to connect to a port of the guest. `answer` is called when the framework knows; it
    /// may never be.
    fn connect(&self, port: u32, answer: Answer);
    /// Takes connections of the guest's to a port of the host from now on.
    fn listen(&self, port: u32);
    /// Refuses them again.
    fn unlisten(&self, port: u32);
}

/// Hears of a connection, or in the framework's words why there is none. A connection that comes
/// too late is closed by being dropped.
pub type Answer = Box<dyn FnOnce(Result<RawConnection, String>) + Send>;

/// A connection as it comes: a stream socket of our own, and its ports.
#[derive(Debug)]
pub struct RawConnection {
    /// The socket.
    pub socket: OwnedFd,
    /// The port on the host's side.
    pub host_port: u32,
    /// The port on the guest's side.
    pub guest_port: u32,
}
