//! A vsock device (virtio 1.3 section 5.10) whose packets the tests write and read themselves.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress};

use crate::machine::{Machine, wait};
use crate::registers::{EVENT_IDX, GUEST_CID, VERSION_1};
use crate::ring::Ring;

pub(crate) const REQUEST: u16 = 1;
pub(crate) const RESPONSE: u16 = 2;
pub(crate) const RST: u16 = 3;
pub(crate) const SHUTDOWN: u16 = 4;
pub(crate) const RW: u16 = 5;
pub(crate) const CREDIT_UPDATE: u16 = 6;
pub(crate) const CREDIT_REQUEST: u16 = 7;

const HEADER: usize = 44;
const HOST_CID: u64 = 2;

/// A packet's header without the CIDs, and its payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) host_port: u32,
    pub(crate) guest_port: u32,
    pub(crate) op: u16,
    pub(crate) flags: u32,
    pub(crate) buf_alloc: u32,
    pub(crate) fwd_cnt: u32,
    pub(crate) data: Vec<u8>,
}

/// The device beside its machine.
#[derive(Debug)]
pub(crate) struct Vsock {
    pub(crate) machine: Machine,
    rx: Ring,
    tx: Ring,
    events: Ring,
    /// Packets that were taken from the guest while something else was waited for.
    early: VecDeque<Packet>,
}

impl Vsock {
    /// Boots a guest and waits for its driver.
    pub(crate) fn boot(event_idx: bool, cmdline: &str) -> Option<Self> {
        let features = VERSION_1 | if event_idx { EVENT_IDX } else { 0 };
        let machine = Machine::boot(features, cmdline)?;
        let registers = wait("the vsock driver", || {
            let registers = machine.shared.registers.lock().unwrap();
            registers.driver_ok().then(|| registers.clone())
        });
        assert_eq!(registers.accepted, features);
        let [rx, tx, events] = registers.queues.map(|queue| Ring::new(queue, event_idx));
        Some(Self { machine, rx, tx, events, early: VecDeque::new() })
    }

    /// Sends a packet to the guest.
    pub(crate) fn send(&mut self, packet: &Packet) {
        if self.push(packet) {
            self.machine.interrupt();
        }
    }

    /// Sends several packets, interrupting the guest at most once.
    pub(crate) fn send_all(&mut self, packets: &[Packet]) {
        let mut interrupt = false;
        for packet in packets {
            interrupt |= self.push(packet);
        }
        if interrupt {
            self.machine.interrupt();
        }
    }

    fn push(&mut self, packet: &Packet) -> bool {
        let chain = wait("a receive buffer", || {
            // The guest may be waiting for its own packets to be taken.
            let chain = self.rx.pop(&self.machine.memory);
            if chain.is_none() {
                let packet = self.take();
                self.early.extend(packet);
            }
            chain
        });
        let mut bytes = Vec::with_capacity(HEADER + packet.data.len());
        bytes.extend_from_slice(&HOST_CID.to_le_bytes());
        bytes.extend_from_slice(&GUEST_CID.to_le_bytes());
        bytes.extend_from_slice(&packet.host_port.to_le_bytes());
        bytes.extend_from_slice(&packet.guest_port.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(packet.data.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(&1u16.to_le_bytes());
        bytes.extend_from_slice(&packet.op.to_le_bytes());
        bytes.extend_from_slice(&packet.flags.to_le_bytes());
        bytes.extend_from_slice(&packet.buf_alloc.to_le_bytes());
        bytes.extend_from_slice(&packet.fwd_cnt.to_le_bytes());
        bytes.extend_from_slice(&packet.data);
        let (address, room) = chain.buffers[0];
        assert!(bytes.len() <= room as usize, "the packet fits its buffer");
        self.machine.memory.write_slice(&bytes, GuestAddress(address)).unwrap();
        self.rx.push(&self.machine.memory, &chain, u32::try_from(bytes.len()).unwrap())
    }

    /// The next packet from the guest, within a time.
    pub(crate) fn receive_within(&mut self, time: Duration) -> Option<Packet> {
        let start = Instant::now();
        loop {
            let packet = self.early.pop_front().or_else(|| self.take());
            if packet.is_some() || start.elapsed() > time {
                return packet;
            }
            std::thread::sleep(Duration::from_micros(20));
        }
    }

    /// Takes a packet from the guest's queue.
    fn take(&mut self) -> Option<Packet> {
        let memory = &self.machine.memory;
        let chain = self.tx.pop(memory)?;
        let mut bytes = Vec::new();
        for (address, length) in &chain.buffers {
            let end = bytes.len();
            bytes.resize(end + *length as usize, 0);
            memory.read_slice(&mut bytes[end..], GuestAddress(*address)).unwrap();
        }
        if self.tx.push(memory, &chain, 0) {
            self.machine.interrupt();
        }
        Some(parse(&bytes))
    }

    /// The next packet from the guest.
    pub(crate) fn receive(&mut self) -> Packet {
        self.receive_within(Duration::from_secs(20)).expect("a packet from the guest")
    }

    /// Sends the event that all connections are gone.
    pub(crate) fn transport_reset(&mut self) {
        let chain = self.events.pop(&self.machine.memory).expect("an event buffer");
        self.machine.memory.write_obj(0u32, GuestAddress(chain.buffers[0].0)).unwrap();
        if self.events.push(&self.machine.memory, &chain, 4) {
            self.machine.interrupt();
        }
    }
}

fn parse(bytes: &[u8]) -> Packet {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!((long(0), long(8)), (GUEST_CID, HOST_CID));
    assert_eq!(bytes[28..30], [1, 0], "a stream");
    assert_eq!(word(24) as usize, bytes.len() - HEADER, "the length is that of the payload");
    Packet {
        guest_port: word(16),
        host_port: word(20),
        op: u16::from_le_bytes([bytes[30], bytes[31]]),
        flags: word(32),
        buf_alloc: word(36),
        fwd_cnt: word(40),
        data: bytes[HEADER..].to_vec(),
    }
}
