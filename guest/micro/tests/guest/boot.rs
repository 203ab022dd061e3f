//! From the first instruction to `Ready`, and to the end.

use std::sync::atomic::Ordering;

use vmoon_protocol::message::Life;
use vmoon_protocol::watch::{Unit, Watch};
use vmoon_protocol::{AGENT_PORT, Kind};

use crate::host::{BUF_ALLOC, Host, bytes_of, exec_frame, shell};
use crate::machine::{End, wait};
use crate::registers::{MUTE_BALLOON, MUTE_ENTROPY};
use crate::vsock::{CREDIT_REQUEST, CREDIT_UPDATE, Packet, REQUEST, RESPONSE, RST, RW, Vsock};

#[test]
fn boots_and_announces_itself() {
    for event_idx in [true, false] {
        let Some(host) = Host::boot_with(event_idx, "") else { return };
        wait("the console", || host.machine().console().contains("ready\n").then_some(()));
        assert_eq!(host.machine().console(), "vmoon micro: ready\n");
    }
}

#[test]
fn dials_again_while_nobody_listens() {
    let Some(mut vsock) = Vsock::boot(true, "") else { return };
    let mut ports = Vec::new();
    for _ in 0..3 {
        let request = vsock.receive();
        assert_eq!((request.op, request.host_port), (REQUEST, AGENT_PORT));
        ports.push(request.guest_port);
        vsock.send(&Packet { op: RST, ..request });
    }
    ports.dedup();
    assert_eq!(ports.len(), 3, "each attempt has a port of its own");
}

#[test]
fn announces_itself_again_after_a_transport_reset() {
    let Some(mut host) = Host::boot() else { return };
    let mut stream = host.command();
    host.succeed(&mut stream, "put k v");
    let before = host.control;
    // Nothing is on its way any more that would be answered with a reset.
    host.vsock.send(&stream.packet(CREDIT_REQUEST, Vec::new()));
    assert_eq!(host.packet_for(&stream).op, CREDIT_UPDATE);
    host.vsock.transport_reset();
    host.accept_control();
    assert_ne!(host.control, before);
    host.send(&stream, vec![0; 16]);
    assert_eq!(host.packet_for(&stream).op, RST, "the old connection is gone");
    let mut stream = host.command();
    assert_eq!(host.succeed(&mut stream, "get k"), "v\n");
}

fn control(host: &Host, data: Vec<u8>) -> Packet {
    Packet {
        host_port: AGENT_PORT,
        guest_port: host.control,
        op: RW,
        buf_alloc: BUF_ALLOC,
        data,
        ..Packet::default()
    }
}

/// The guest answers while it sets up its devices, so it may be asked before it has heard of entropy.
#[test]
fn randomness_waits_for_entropy_however_early_it_is_asked_for() {
    let devices = [MUTE_BALLOON, MUTE_ENTROPY]
        .map(|(base, gsi)| format!("virtio_mmio.device=4K@{base:#x}:{gsi}"));
    let Some(vsock) = Vsock::boot(true, &devices.join(" ")) else { return };
    let mut host = Host::beside(vsock);
    host.control = host.vsock.receive().guest_port;
    let early = host.stream(AGENT_PORT, BUF_ALLOC);
    let packets = [
        host.control_response(),
        early.packet(REQUEST, Vec::new()),
        early.packet(RW, exec_frame(1, &shell("random 16"))),
    ];
    host.vsock.send_all(&packets);
    host.machine().shared.released.store(true, Ordering::Release);
    let mut later = host.command();
    assert_eq!(host.succeed(&mut later, "echo here"), "here\n");
    assert_eq!(host.packet_for(&early).op, RESPONSE);
    let printed = |packet: &Packet| packet.host_port == early.host_port && packet.op == RW;
    assert!(!host.inbox.iter().any(printed), "it did not wait: {:?}", host.inbox);
}

#[test]
fn a_new_life_is_confirmed() {
    let Some(mut host) = Host::boot() else { return };
    let life = Life { epoch: 77, unix_ns: 1_700_000_000_000_000_000, entropy: [9; 32] };
    host.vsock.send(&control(&host, bytes_of(Kind::Life, 3, &life.encode())));
    let reply = host.vsock.receive();
    assert_eq!(reply.data, bytes_of(Kind::LifeDone, 3, &77u64.to_le_bytes()));
    let mut stream = host.command();
    assert!(host.succeed(&mut stream, "date").starts_with("170000000"));
}

#[test]
fn shutting_down_is_answered_first() {
    let Some(mut host) = Host::boot() else { return };
    host.vsock.send(&control(&host, bytes_of(Kind::Shutdown, 5, &[0])));
    assert_eq!(host.vsock.receive().data, bytes_of(Kind::Done, 5, &[]));
    assert_eq!(host.machine().end(), End::PowerOff);
}

#[test]
fn ports_may_be_waited_for() {
    let Some(mut host) = Host::boot() else { return };
    let done = |id| bytes_of(Kind::Done, id, &[]);
    let watch = |port| Watch::Port(port).encode();
    let seen = |id, text: &str| bytes_of(Kind::Observed, id, text.as_bytes());
    host.vsock.send(&control(&host, bytes_of(Kind::Watch, 5, &watch(1024))));
    assert_eq!(host.vsock.receive().data, done(5));
    // Of three that wait, one gives up and one waits for another port.
    for (id, port) in [(6, 7000), (7, 7000), (8, 70_010)] {
        host.vsock.send(&control(&host, bytes_of(Kind::Watch, id, &watch(port))));
        let reply = host.vsock.receive().data;
        assert_eq!(reply, seen(id, "nobody listens on it, but on 1024 (vsock)"));
    }
    host.vsock.send(&control(&host, bytes_of(Kind::Unwatch, 7, &[])));
    let stream = host.command();
    host.send(&stream, exec_frame(1, &shell("echo-server 7000")));
    let reply = host.vsock.receive();
    assert_eq!((reply.guest_port, reply.data), (host.control, done(6)));
    let reply = host.vsock.receive().data;
    assert_eq!(reply, seen(8, "nobody listens on it, but on 1024, 7000 (vsock)"));
    let other = host.command();
    host.send(&other, exec_frame(1, &shell("echo-server 70010")));
    let reply = host.vsock.receive();
    assert_eq!(reply.data, done(8));
    assert!(host.inbox.is_empty());
}

#[test]
fn names_are_declared_and_waited_for() {
    let Some(mut host) = Host::boot() else { return };
    let watch = Watch::Ready("db".into()).encode();
    let seen = |id, text: &str| bytes_of(Kind::Observed, id, text.as_bytes());
    host.vsock.send(&control(&host, bytes_of(Kind::Watch, 5, &watch)));
    assert_eq!(host.vsock.receive().data, seen(5, "the guest has declared nothing"));
    let mut stream = host.command();
    host.succeed(&mut stream, "ready web");
    let reply = host.inbox.pop_front().unwrap_or_else(|| host.vsock.receive());
    assert_eq!(reply.data, seen(5, "the guest has declared web"));
    host.succeed(&mut stream, "ready db");
    let reply = host.inbox.pop_front().unwrap_or_else(|| host.vsock.receive());
    assert_eq!(reply.data, bytes_of(Kind::Done, 5, &[]));
    // It stays so, and declaring again is no error.
    host.succeed(&mut stream, "ready db");
    host.vsock.send(&control(&host, bytes_of(Kind::Watch, 6, &watch)));
    assert_eq!(host.vsock.receive().data, bytes_of(Kind::Done, 6, &[]));
}

#[test]
fn other_watches_are_refused() {
    let Some(mut host) = Host::boot() else { return };
    for watch in [
        Watch::File(b"/etc".to_vec()),
        Watch::Unit(Unit { name: "a".into(), state: Unit::ACTIVE.into() }),
    ] {
        host.vsock.send(&control(&host, bytes_of(Kind::Watch, 6, &watch.encode())));
        let reply = host.vsock.receive().data;
        assert_eq!(u16::from_le_bytes([reply[4], reply[5]]), Kind::Error as u16);
        assert!(reply[16..].starts_with(b"backend.unsupported\0"));
    }
}

#[test]
fn the_ways_to_end() {
    for (command, end) in [("poweroff", End::PowerOff), ("panic", End::Panic)] {
        let Some(mut host) = Host::boot() else { return };
        let stream = host.command();
        host.send(&stream, exec_frame(1, &shell(command)));
        if end == End::PowerOff {
            host.packet_for(&stream);
        }
        assert_eq!(host.machine().end(), end);
        if end == End::Panic {
            assert!(host.machine().console().contains("panic: asked for by a command"));
        }
    }
}
