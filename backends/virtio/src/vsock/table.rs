//! The connections of a device, and which of them have something to send.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use vmoon_core::units::VsockPort;

use super::connection::{Connection, Phase};
use super::packet::{Operation, Ports};
use super::pipe::Pipe;
use super::shared::Shared;

/// How many connections a guest has at most; it is refused beyond that.
const MAX_CONNECTIONS: usize = 16 << 10;
/// How many resets for connections that do not exist may wait for the guest's buffers before the
/// device stops listening to it.
pub(super) const MAX_RESETS: usize = 1024;
/// Where the ports begin from which the host connects.
pub(super) const FIRST_PORT: VsockPort = VsockPort(1 << 30);
/// `VMADDR_PORT_ANY`: no port of anybody's.
const NO_PORT: u32 = u32::MAX;

/// What to send next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A reset for a connection that does not exist.
    Reset(Ports),
    /// A packet of a connection.
    Packet(u64, Operation),
}

/// All connections, by serial and by ports.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) connections: HashMap<u64, Connection>,
    by_ports: HashMap<Ports, u64>,
    /// Connections that may have something to send, each once.
    ready: VecDeque<u64>,
    /// Resets for connections that do not exist.
    pub(super) resets: VecDeque<Ports>,
    pub(super) next_port: VsockPort,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            connections: HashMap::new(),
            by_ports: HashMap::new(),
            ready: VecDeque::new(),
            resets: VecDeque::new(),
            next_port: FIRST_PORT,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.connections.len() >= MAX_CONNECTIONS
    }

    /// The serial of the connection with these ports.
    pub(super) fn find(&self, ports: Ports) -> Option<u64> {
        self.by_ports.get(&ports).copied()
    }

    pub(super) fn insert(&mut self, connection: Connection) -> u64 {
        let serial = connection.pipe.serial;
        self.by_ports.insert(connection.ports, serial);
        self.connections.insert(serial, connection);
        serial
    }

    pub(super) fn remove(&mut self, serial: u64) -> Option<Connection> {
        let connection = self.connections.remove(&serial)?;
        self.by_ports.remove(&connection.ports);
        Some(connection)
    }

    /// Takes every connection out; nothing is left to send.
    pub(super) fn clear(&mut self) -> HashMap<u64, Connection> {
        self.by_ports.clear();
        self.ready.clear();
        self.resets.clear();
        std::mem::take(&mut self.connections)
    }

    /// A connection that the host wants, from a port that is free.
    pub(super) fn request(
        &mut self,
        shared: &Arc<Shared>,
        serial: u64,
        guest: VsockPort,
        phase: Phase,
    ) -> Arc<Pipe> {
        let ports = self.free_ports(guest);
        let pipe = Pipe::new(serial, ports, Arc::clone(shared));
        self.insert(Connection::new(Arc::clone(&pipe), ports, phase));
        self.enqueue(serial);
        pipe
    }

    /// Ports with `guest` that no connection has and that were not used for a long time: the
    /// guest may still have packets of an earlier connection under way.
    fn free_ports(&mut self, guest: VsockPort) -> Ports {
        loop {
            let host = self.next_port;
            let next = host.0.wrapping_add(1);
            self.next_port = if next == NO_PORT { FIRST_PORT } else { VsockPort(next) };
            let ports = Ports { host, guest };
            // The table is bounded, far below the number of ports.
            if !self.by_ports.contains_key(&ports) {
                return ports;
            }
        }
    }

    /// The connection may have something to send.
    pub(super) fn enqueue(&mut self, serial: u64) {
        if let Some(connection) = self.connections.get_mut(&serial)
            && !std::mem::replace(&mut connection.queued, true)
        {
            self.ready.push_back(serial);
        }
    }

    /// Cuts a connection whose other end did what it must not, or went away: the host's stream
    /// fails, and the guest is told.
    pub(super) fn cut(&mut self, serial: u64) {
        if let Some(connection) = self.connections.get_mut(&serial) {
            connection.pipe.cut(false);
            connection.phase = Phase::Cut;
            self.enqueue(serial);
        }
    }

    /// The connections between such ports on which bytes may flow.
    pub(super) fn established(&self, such: impl Fn(Ports) -> bool) -> Vec<u64> {
        let found = self.connections.iter().filter(|(_, connection)| {
            matches!(connection.phase, Phase::Established { .. }) && such(connection.ports)
        });
        found.map(|(&serial, _)| serial).collect()
    }

    /// What to send next. It stays first until [`Table::sent`].
    pub(super) fn next(&mut self) -> Option<Next> {
        if let Some(&ports) = self.resets.front() {
            return Some(Next::Reset(ports));
        }
        while let Some(&serial) = self.ready.front() {
            if let Some(connection) = self.connections.get_mut(&serial) {
                if let Some(operation) = connection.next() {
                    return Some(Next::Packet(serial, operation));
                }
                connection.queued = false;
            }
            self.ready.pop_front();
        }
        None
    }

    /// What [`Table::next`] said has been sent: the connection goes to the end of the queue.
    pub(super) fn sent(&mut self, next: Next) {
        match next {
            Next::Reset(_) => {
                self.resets.pop_front();
            }
            Next::Packet(serial, operation) => {
                self.ready.pop_front();
                if operation == Operation::Reset {
                    self.remove(serial);
                } else {
                    self.ready.push_back(serial);
                }
            }
        }
    }
}
