//! Random histories with snapshots and restores: no byte is lost, invented or reordered, both
//! sides agree on which connections live, and idle ones always survive.

use std::collections::BTreeMap;

use proptest::prelude::*;
use vmoon_core::units::VsockPort;
use vmoon_core::vsock::{VsockListener, VsockStream};

use super::guest::{Frozen, Guest, poll, read, write};
use crate::device::RestoreMode;
use crate::vsock::packet::Operation;

const PORT: u32 = 1024;

#[derive(Clone, Copy, Debug)]
enum Step {
    Dial(u32),
    HostWrites(u32, usize),
    HostReads(u32),
    HostDrops(u32),
    GuestWrites(u32, usize),
    GuestReads(u32),
    Snapshot,
    Restore(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let port = 0_u32..4;
    prop_oneof![
        2 => port.clone().prop_map(Step::Dial),
        4 => (port.clone(), 1_usize..60_000).prop_map(|(port, count)| Step::HostWrites(port, count)),
        4 => port.clone().prop_map(Step::HostReads),
        1 => port.clone().prop_map(Step::HostDrops),
        4 => (port.clone(), 1_usize..30_000).prop_map(|(port, count)| Step::GuestWrites(port, count)),
        4 => port.prop_map(Step::GuestReads),
        1 => Just(Step::Snapshot),
        1 => (0_usize..4).prop_map(Step::Restore),
    ]
}

/// The guest's view of a connection; part of a snapshot.
#[derive(Clone, Debug, Default)]
struct GuestEnd {
    /// Bytes sent and the host's confirmation.
    sent: u32,
    confirmed: u32,
    /// Bytes that have arrived and that the application has taken.
    arrived: Vec<u8>,
    taken: usize,
}

/// The host's view of a connection.
struct HostEnd {
    stream: VsockStream,
    /// Where its two sequences of bytes are; put back by a restore.
    written: u32,
    read: u32,
}

/// What the history goes back to: the device with its guest, and what both sides knew.
struct Snapshot {
    frozen: Frozen,
    ends: BTreeMap<u32, GuestEnd>,
    /// Bytes written and read by the host, and whether the connection was idle.
    marks: BTreeMap<u32, (u32, u32, bool)>,
}

struct World {
    guest: Guest,
    listener: Box<dyn VsockListener>,
    ends: BTreeMap<u32, GuestEnd>,
    hosts: BTreeMap<u32, HostEnd>,
    snapshots: Vec<Snapshot>,
}

/// The bytes of a sequence from a place on: each tells where it is.
fn sequence(from: u32, count: usize) -> Vec<u8> {
    (from..).take(count).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

impl World {
    fn new() -> Self {
        let guest = Guest::with_buffers(16, 4096);
        let listener = guest.host.listen(VsockPort(PORT)).unwrap();
        Self {
            guest,
            listener,
            ends: BTreeMap::new(),
            hosts: BTreeMap::new(),
            snapshots: Vec::new(),
        }
    }

    /// The guest's kernel takes what has arrived.
    fn deliver(&mut self) {
        for packet in self.guest.take() {
            let port = packet.guest_port;
            match packet.operation {
                Operation::Reset => {
                    self.ends.remove(&port);
                }
                Operation::Response => {
                    self.ends.insert(port, GuestEnd::default());
                }
                _ => {}
            }
            if let Some(end) = self.ends.get_mut(&port) {
                end.confirmed = packet.forwarded;
                end.arrived.extend(packet.payload);
            }
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Dial(port) if !self.ends.contains_key(&port) => {
                self.guest.send(Operation::Request, PORT, port);
                self.deliver();
                let accepted = poll(std::pin::pin!(self.listener.accept()));
                let stream = accepted.unwrap().unwrap();
                assert_eq!(stream.id().guest.0, port);
                self.hosts.insert(port, HostEnd { stream, written: 0, read: 0 });
            }
            Step::HostWrites(port, count) => {
                if let Some(host) = self.hosts.get_mut(&port) {
                    let bytes = sequence(host.written, count);
                    match write(&mut host.stream, &bytes) {
                        Some(Ok(count)) => host.written += u32::try_from(count).unwrap(),
                        Some(Err(_)) => {
                            self.hosts.remove(&port);
                        }
                        None => {}
                    }
                }
            }
            Step::HostReads(port) => {
                if let Some(host) = self.hosts.get_mut(&port) {
                    match read(&mut host.stream) {
                        Some(Ok(bytes)) => {
                            assert_eq!(bytes, sequence(host.read ^ 0x8000_0000, bytes.len()));
                            host.read += u32::try_from(bytes.len()).unwrap();
                        }
                        Some(Err(_)) => {
                            self.hosts.remove(&port);
                        }
                        None => {}
                    }
                }
            }
            Step::HostDrops(port) => {
                self.hosts.remove(&port);
            }
            Step::GuestWrites(port, count) => {
                if let Some(end) = self.ends.get_mut(&port) {
                    let room = (256 << 10) - (end.sent - end.confirmed) as usize;
                    let bytes = sequence(end.sent ^ 0x8000_0000, count.min(room));
                    end.sent += u32::try_from(bytes.len()).unwrap();
                    let taken = u32::try_from(end.taken).unwrap();
                    self.guest.send_data((PORT, port), &bytes, taken);
                }
            }
            Step::GuestReads(port) => {
                if let Some(end) = self.ends.get_mut(&port) {
                    assert_eq!(end.arrived, sequence(0, end.arrived.len()));
                    end.taken = end.arrived.len();
                    let taken = u32::try_from(end.taken).unwrap();
                    self.guest.send_credit((PORT, port), 50_000, taken);
                }
            }
            Step::Snapshot if self.snapshots.len() < 4 => {
                let marks = self.hosts.iter().map(|(&port, host)| {
                    let end = self.ends.get(&port);
                    let idle = end.is_some_and(|end| {
                        end.arrived.len() == host.written as usize && end.sent == host.read
                    });
                    (port, (host.written, host.read, idle))
                });
                let marks = marks.collect();
                let (frozen, ends) = (self.guest.freeze(), self.ends.clone());
                self.snapshots.push(Snapshot { frozen, ends, marks });
            }
            Step::Restore(which) if which < self.snapshots.len() => self.restore(which),
            _ => {}
        }
        self.deliver();
    }

    fn restore(&mut self, which: usize) {
        let Snapshot { frozen, ends, marks } = &self.snapshots[which];
        let believed = ends.clone();
        self.guest.thaw(frozen, RestoreMode::InPlace);
        self.ends = believed;
        let marks = marks.clone();
        self.deliver();
        // Both sides agree on who is left.
        let mut cut = Vec::new();
        for (&port, host) in &mut self.hosts {
            match read(&mut host.stream) {
                None => {
                    let &(written, read, idle) = marks.get(&port).expect("it was in the snapshot");
                    assert!(idle, "port {port} lives on and was not idle");
                    assert!(self.ends.contains_key(&port), "the guest lost port {port}");
                    (host.written, host.read) = (written, read);
                }
                Some(Err(_)) => {
                    assert!(!self.ends.contains_key(&port), "the guest keeps port {port}");
                    cut.push(port);
                }
                Some(Ok(bytes)) => panic!("{} bytes out of nowhere", bytes.len()),
            }
        }
        for port in cut {
            self.hosts.remove(&port);
        }
        assert!(self.ends.keys().all(|port| self.hosts.contains_key(port)));
    }
}

proptest! {
    #[test]
    fn histories_keep_their_bytes(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in steps {
            world.apply(step);
        }
    }
}
