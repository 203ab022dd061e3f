//! A guest for tests: it sends packets and takes those that the device sent.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use virtio_queue::Queue;
use vm_memory::{Bytes, GuestAddress};
use vmoon_core::error::Result;
use vmoon_core::units::{Cid, VsockPort};
use vmoon_core::vsock::{VsockListener, VsockStream};

use crate::device::{Device, DeviceError, RestoreMode};
use crate::memory::GuestMemory;
use crate::ring::driver::{DriverQueue, memory};
use crate::state::DeviceState;
use crate::vsock::packet::{HEADER_SIZE, Header, Operation, TYPE_STREAM};
use crate::vsock::pipe::CAPACITY_ON_WIRE;
use crate::vsock::{VsockDevice, VsockHost};
use crate::waker::HostWaker;

pub(super) const GUEST_CID: Cid = Cid(42);
const RECEIVE_BASE: u64 = 0x10_0000;
const TRANSMIT_BASE: u64 = 0x20_0000;
/// Room for one packet that the guest sends.
const SLOT: u64 = 0x1_1000;
const SLOTS: u64 = 16;

/// A packet as the guest sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) operation: Operation,
    pub(super) host_port: u32,
    pub(super) guest_port: u32,
    pub(super) flags: u32,
    pub(super) forwarded: u32,
    pub(super) payload: Vec<u8>,
}

pub(super) struct Guest {
    pub(super) device: VsockDevice,
    pub(super) host: VsockHost,
    pub(super) memory: GuestMemory,
    pub(super) receive: DriverQueue,
    pub(super) transmit: DriverQueue,
    pub(super) event: DriverQueue,
    pub(super) queues: Vec<Queue>,
    /// The addresses of the receive buffers under way, by head.
    buffers: HashMap<u16, u64>,
    buffer_size: u32,
    sent: u64,
    wakes: Arc<AtomicU32>,
}

/// The guest's half of a snapshot.
pub(super) struct Frozen {
    pub(super) state: DeviceState,
    ram: Vec<u8>,
    receive: DriverQueue,
    transmit: DriverQueue,
    event: DriverQueue,
    queues: Vec<virtio_queue::QueueState>,
    buffers: HashMap<u16, u64>,
}

impl Guest {
    /// A guest whose driver is up, with this many receive buffers.
    pub(super) fn new(count: u16) -> Self {
        Self::with_buffers(count, 4096)
    }

    pub(super) fn with_buffers(count: u16, buffer_size: u32) -> Self {
        let wakes = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&wakes);
        let host_waker = HostWaker::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let device = VsockDevice::new(GUEST_CID, host_waker);
        let queue = |index| DriverQueue::new(index, 256, true);
        let mut guest = Self {
            host: device.host(),
            device,
            memory: memory(),
            receive: queue(0),
            transmit: queue(1),
            event: queue(2),
            queues: Vec::new(),
            buffers: HashMap::new(),
            buffer_size,
            sent: 0,
            wakes,
        };
        guest.queues =
            [&guest.receive, &guest.transmit, &guest.event].map(DriverQueue::queue).into();
        for _ in 0..count {
            guest.add_buffer();
        }
        guest
    }

    /// Makes one more receive buffer available.
    pub(super) fn add_buffer(&mut self) {
        let used: Vec<u64> = self.buffers.values().copied().collect();
        let size = u64::from(self.buffer_size);
        let address = (0..).map(|slot| RECEIVE_BASE + slot * size);
        let address = address.into_iter().find(|address| !used.contains(address)).unwrap();
        self.give_buffer(address);
    }

    fn give_buffer(&mut self, address: u64) {
        let before = self.receive.clone();
        assert!(self.receive.add(&self.memory, &[(address, self.buffer_size, true)]));
        let head = self.receive.newest(&self.memory, &before);
        self.buffers.insert(head, address);
    }

    /// Lets the device do all that it has to do, as its owner would.
    pub(super) fn run(&mut self) -> Result<(), DeviceError> {
        let _ = self.device.process_host(&mut self.queues, &self.memory)?;
        let mut again = 0b111;
        while again != 0 {
            let mut next = 0;
            for index in (0..3).filter(|index| again & (1 << index) != 0) {
                let done = self.device.process_queue(index, &mut self.queues, &self.memory)?;
                next |= done.again;
            }
            again = next;
        }
        Ok(())
    }

    /// Sends a header and a payload, cut at these places into descriptors.
    pub(super) fn send_raw(&mut self, header: &Header, payload: &[u8], cuts: &[usize]) {
        while self.transmit.take_used(&self.memory).is_some() {}
        let base = TRANSMIT_BASE + self.sent % SLOTS * SLOT;
        self.sent += 1;
        let bytes = [&header.encode()[..], payload].concat();
        self.memory.write_slice(&bytes, GuestAddress(base)).unwrap();
        let mut buffers = Vec::new();
        let mut start = 0;
        for &end in cuts.iter().chain([&bytes.len()]) {
            let end = end.clamp(start, bytes.len());
            buffers.push((base + start as u64, u32::try_from(end - start).unwrap(), false));
            start = end;
        }
        assert!(self.transmit.add(&self.memory, &buffers), "the transmit queue is full");
    }

    pub(super) fn header(operation: Operation, host_port: u32, guest_port: u32) -> Header {
        Header {
            source_cid: GUEST_CID,
            destination_cid: Cid::HOST,
            source_port: guest_port,
            destination_port: host_port,
            length: 0,
            kind: TYPE_STREAM,
            operation: Some(operation),
            flags: 0,
            buffer: CAPACITY_ON_WIRE,
            forwarded: 0,
        }
    }

    /// Sends a packet without payload and lets the device take it.
    pub(super) fn send(&mut self, operation: Operation, host_port: u32, guest_port: u32) {
        self.send_raw(&Self::header(operation, host_port, guest_port), &[], &[HEADER_SIZE]);
        self.run().unwrap();
    }

    pub(super) fn send_flags(&mut self, operation: Operation, ports: (u32, u32), flags: u32) {
        let header = Header { flags, ..Self::header(operation, ports.0, ports.1) };
        self.send_raw(&header, &[], &[HEADER_SIZE]);
        self.run().unwrap();
    }

    /// Sends data, having taken `forwarded` bytes.
    pub(super) fn send_data(&mut self, ports: (u32, u32), payload: &[u8], forwarded: u32) {
        let header = Header {
            length: u32::try_from(payload.len()).unwrap(),
            forwarded,
            ..Self::header(Operation::Data, ports.0, ports.1)
        };
        self.send_raw(&header, payload, &[HEADER_SIZE]);
        self.run().unwrap();
    }

    /// Says how much it has taken, and how large its buffer is.
    pub(super) fn send_credit(&mut self, ports: (u32, u32), buffer: u32, forwarded: u32) {
        let header =
            Header { buffer, forwarded, ..Self::header(Operation::CreditUpdate, ports.0, ports.1) };
        self.send_raw(&header, &[], &[HEADER_SIZE]);
        self.run().unwrap();
    }

    /// Takes what the device sent, and gives its buffers back.
    pub(super) fn take(&mut self) -> Vec<Packet> {
        self.run().unwrap();
        let mut packets = Vec::new();
        while let Some((head, written)) = self.receive.take_used(&self.memory) {
            let address = self.buffers.remove(&head).unwrap();
            let mut bytes = vec![0; written as usize];
            self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
            let (header, payload) = bytes.split_first_chunk::<HEADER_SIZE>().unwrap();
            let header = Header::decode(header);
            assert_eq!(header.length as usize, payload.len());
            assert_eq!((header.source_cid, header.kind), (Cid::HOST, TYPE_STREAM));
            assert_eq!(header.buffer, CAPACITY_ON_WIRE);
            packets.push(Packet {
                operation: header.operation.unwrap(),
                host_port: header.source_port,
                guest_port: header.destination_port,
                flags: header.flags,
                forwarded: header.forwarded,
                payload: payload.to_vec(),
            });
            self.give_buffer(address);
            self.run().unwrap();
        }
        packets
    }

    /// The operations of what the device sent.
    pub(super) fn take_operations(&mut self) -> Vec<Operation> {
        self.take().into_iter().map(|packet| packet.operation).collect()
    }

    /// The bytes that the device sent, all of them data.
    pub(super) fn take_data(&mut self) -> Vec<u8> {
        self.take()
            .into_iter()
            .flat_map(|packet| {
                assert_eq!(packet.operation, Operation::Data);
                packet.payload
            })
            .collect()
    }

    /// A connection from the guest's port to a listener on the host's.
    pub(super) fn dial(&mut self, listener: &dyn VsockListener, guest_port: u32) -> VsockStream {
        self.send(Operation::Request, listener.port().0, guest_port);
        assert_eq!(self.take_operations(), [Operation::Response]);
        now(listener.accept()).unwrap()
    }

    /// A connection from the host to the guest's port; with its ports.
    pub(super) fn accept(&mut self, guest_port: u32) -> (VsockStream, (u32, u32)) {
        let host = self.host.clone();
        let mut connecting = pin!(host.connect(VsockPort(guest_port)));
        assert!(poll(connecting.as_mut()).is_none());
        let request = self.take().pop().unwrap();
        assert_eq!((request.operation, request.guest_port), (Operation::Request, guest_port));
        self.send(Operation::Response, request.host_port, guest_port);
        (poll(connecting.as_mut()).unwrap().unwrap(), (request.host_port, guest_port))
    }

    pub(super) fn freeze(&self) -> Frozen {
        let mut ram = vec![0; usize::try_from(crate::ring::driver::RAM).unwrap()];
        self.memory.read_slice(&mut ram, GuestAddress(0)).unwrap();
        Frozen {
            state: self.device.save(),
            ram,
            receive: self.receive.clone(),
            transmit: self.transmit.clone(),
            event: self.event.clone(),
            queues: self.queues.iter().map(Queue::state).collect(),
            buffers: self.buffers.clone(),
        }
    }

    /// Goes back, as the owner of the device and its guest would.
    pub(super) fn thaw(&mut self, frozen: &Frozen, mode: RestoreMode) {
        self.memory.write_slice(&frozen.ram, GuestAddress(0)).unwrap();
        self.device.restore(&frozen.state, mode).unwrap();
        self.receive = frozen.receive.clone();
        self.transmit = frozen.transmit.clone();
        self.event = frozen.event.clone();
        self.queues = frozen.queues.iter().map(|&state| Queue::try_from(state).unwrap()).collect();
        self.buffers.clone_from(&frozen.buffers);
    }

    pub(super) fn wakes(&self) -> u32 {
        self.wakes.load(Ordering::Relaxed)
    }
}

/// Polls a future once.
pub(super) fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// The result of a future that must be ready.
pub(super) fn now<F: Future>(future: F) -> F::Output {
    poll(pin!(future)).expect("the future is not ready")
}

/// Reads up to 64 KiB; `None` where it would wait.
pub(super) fn read(stream: &mut VsockStream) -> Option<std::io::Result<Vec<u8>>> {
    let mut bytes = vec![0; 64 << 10];
    let count = poll(pin!(stream.read(&mut bytes)))?;
    Some(count.map(|count| {
        bytes.truncate(count);
        bytes
    }))
}

/// Writes; how many bytes there was room for, `None` where it would wait.
pub(super) fn write(stream: &mut VsockStream, bytes: &[u8]) -> Option<std::io::Result<usize>> {
    poll(pin!(stream.write(bytes)))
}

pub(super) fn shutdown(stream: &mut VsockStream) {
    now(stream.shutdown()).unwrap();
}
