//! The host's side of the agent's protocol.

use std::collections::VecDeque;

use vmoon_protocol::frame::{self, Decoder};
use vmoon_protocol::message::{Command, Exec, Exit, Ready};
use vmoon_protocol::{AGENT_PORT, Kind};

use crate::machine::Machine;
use crate::vsock::{CREDIT_UPDATE, Packet, REQUEST, RESPONSE, RW, Vsock};

/// What the host lets the guest send before it has taken it.
pub(crate) const BUF_ALLOC: u32 = 256 * 1024;

/// A host with the guest's agent at the other end.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) vsock: Vsock,
    /// The guest's port of the control connection.
    pub(crate) control: u32,
    /// Packets that nobody asked for yet.
    pub(crate) inbox: VecDeque<Packet>,
    next_port: u32,
}

/// A connection to the guest, opened by the host.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) host_port: u32,
    pub(crate) guest_port: u32,
    /// Bytes received, which is what the host tells as `fwd_cnt`.
    pub(crate) received: u32,
    pub(crate) buf_alloc: u32,
    decoder: Decoder,
}

/// What a command did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) exit: Exit,
}

impl Host {
    /// Boots a guest and answers its control connection.
    pub(crate) fn boot() -> Option<Self> {
        Self::boot_with(true, "")
    }

    pub(crate) fn boot_with(event_idx: bool, cmdline: &str) -> Option<Self> {
        let mut host = Self::beside(Vsock::boot(event_idx, cmdline)?);
        host.accept_control();
        Some(host)
    }

    /// A host that has not answered the guest yet.
    pub(crate) fn beside(vsock: Vsock) -> Self {
        Self { vsock, control: 0, inbox: VecDeque::new(), next_port: 5000 }
    }

    /// Waits for the guest to dial, accepts, and reads `Ready`.
    pub(crate) fn accept_control(&mut self) {
        let request = self.vsock.receive();
        assert_eq!((request.op, request.host_port), (REQUEST, AGENT_PORT));
        self.control = request.guest_port;
        self.vsock.send(&self.control_response());
        let announcement = self.vsock.receive();
        assert_eq!(announcement.op, RW);
        let mut decoder = Decoder::new();
        decoder.push(&announcement.data);
        let frame = decoder.next_frame().unwrap().unwrap();
        assert_eq!(frame.kind, Kind::Ready as u16);
        let ready = Ready::decode(&frame.payload).unwrap();
        assert_eq!((ready.version, ready.guest.as_str()), (vmoon_protocol::VERSION, "micro"));
    }

    /// What accepts the control connection.
    pub(crate) fn control_response(&self) -> Packet {
        Packet {
            host_port: AGENT_PORT,
            guest_port: self.control,
            op: RESPONSE,
            buf_alloc: BUF_ALLOC,
            ..Packet::default()
        }
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.vsock.machine
    }

    /// A connection that nobody has asked the guest for.
    pub(crate) fn stream(&mut self, guest_port: u32, buf_alloc: u32) -> Stream {
        let host_port = self.next_port;
        self.next_port += 1;
        Stream { host_port, guest_port, received: 0, buf_alloc, decoder: Decoder::new() }
    }

    /// Opens a connection to a port of the guest; none when it refuses.
    pub(crate) fn connect(&mut self, guest_port: u32, buf_alloc: u32) -> Option<Stream> {
        let stream = self.stream(guest_port, buf_alloc);
        self.vsock.send(&stream.packet(REQUEST, Vec::new()));
        (self.packet_for(&stream).op == RESPONSE).then_some(stream)
    }

    /// Opens a command connection.
    pub(crate) fn command(&mut self) -> Stream {
        self.connect(AGENT_PORT, BUF_ALLOC).expect("the agent listens")
    }

    /// The next packet on a connection; others are kept.
    pub(crate) fn packet_for(&mut self, stream: &Stream) -> Packet {
        let ours = |packet: &Packet| {
            (packet.host_port, packet.guest_port) == (stream.host_port, stream.guest_port)
        };
        if let Some(index) = self.inbox.iter().position(ours) {
            return self.inbox.remove(index).unwrap();
        }
        loop {
            let packet = self.vsock.receive();
            if ours(&packet) {
                return packet;
            }
            self.inbox.push_back(packet);
        }
    }

    pub(crate) fn send(&mut self, stream: &Stream, data: Vec<u8>) {
        self.vsock.send(&stream.packet(RW, data));
    }

    /// The next bytes on a connection, which must not be reset. Taken at once.
    pub(crate) fn read(&mut self, stream: &mut Stream) -> Vec<u8> {
        loop {
            let packet = self.packet_for(stream);
            match packet.op {
                RW => {
                    stream.received += u32::try_from(packet.data.len()).unwrap();
                    return packet.data;
                }
                crate::vsock::CREDIT_REQUEST => {
                    self.vsock.send(&stream.packet(CREDIT_UPDATE, Vec::new()));
                }
                CREDIT_UPDATE => {}
                op => panic!("op {op} instead of data"),
            }
        }
    }

    /// The next frame on a connection.
    pub(crate) fn frame(&mut self, stream: &mut Stream) -> frame::Frame {
        loop {
            if let Some(frame) = stream.decoder.next_frame().unwrap() {
                return frame;
            }
            let data = self.read(stream);
            // A host that reads tells so now and then; here always.
            self.vsock.send(&stream.packet(CREDIT_UPDATE, Vec::new()));
            stream.decoder.push(&data);
        }
    }

    /// Reads frames until the command has ended.
    pub(crate) fn outcome(&mut self, stream: &mut Stream, id: u64) -> Outcome {
        let mut outcome = Outcome::default();
        loop {
            let frame = self.frame(stream);
            assert_eq!(frame.id, id);
            let text = || String::from_utf8_lossy(&frame.payload);
            match Kind::from_value(frame.kind).unwrap() {
                Kind::Stdout => outcome.stdout.push_str(&text()),
                Kind::Stderr => outcome.stderr.push_str(&text()),
                Kind::Exit => {
                    outcome.exit = Exit::decode(&frame.payload).unwrap();
                    return outcome;
                }
                kind => panic!("{kind:?}: {}", text()),
            }
        }
    }

    /// Runs a command on a connection.
    pub(crate) fn exec(&mut self, stream: &mut Stream, command: &str) -> Outcome {
        let id = u64::from(stream.received) + 7;
        self.send(stream, exec_frame(id, &shell(command)));
        self.outcome(stream, id)
    }

    /// Runs a command that must succeed; its output.
    pub(crate) fn succeed(&mut self, stream: &mut Stream, command: &str) -> String {
        let outcome = self.exec(stream, command);
        assert_eq!((outcome.exit.code, outcome.stderr.as_str()), (0, ""), "{command}");
        outcome.stdout
    }
}

impl Stream {
    /// A packet on this connection.
    pub(crate) fn packet(&self, op: u16, data: Vec<u8>) -> Packet {
        Packet {
            host_port: self.host_port,
            guest_port: self.guest_port,
            op,
            flags: 0,
            buf_alloc: self.buf_alloc,
            fwd_cnt: self.received,
            data,
        }
    }
}

/// A command for the shell.
pub(crate) fn shell(text: &str) -> Exec {
    Exec { command: Command::Shell(text.as_bytes().to_vec()), ..Exec::default() }
}

/// The frame that runs it.
pub(crate) fn exec_frame(id: u64, exec: &Exec) -> Vec<u8> {
    bytes_of(Kind::Exec, id, &exec.encode())
}

/// A frame's bytes.
pub(crate) fn bytes_of(kind: Kind, id: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(&mut bytes, kind, id, payload);
    bytes
}
