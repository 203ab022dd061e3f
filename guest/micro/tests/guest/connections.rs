//! vsock: states, credit, half-close, resets.

use std::time::Duration;

use vmoon_protocol::AGENT_PORT;

use crate::host::{BUF_ALLOC, Host, exec_frame, shell};
use crate::vsock::{CREDIT_REQUEST, CREDIT_UPDATE, Packet, RESPONSE, RST, RW, SHUTDOWN};

const NOT_RECEIVING: u32 = 1;
const NOT_SENDING: u32 = 2;

#[test]
fn unknown_ports_and_connections_are_reset() {
    let Some(mut host) = Host::boot() else { return };
    assert!(host.connect(4444, BUF_ALLOC).is_none());
    for op in [RW, SHUTDOWN, RESPONSE, CREDIT_UPDATE, 99] {
        let packet = Packet { host_port: 1, guest_port: AGENT_PORT, op, ..Packet::default() };
        host.vsock.send(&packet);
        assert_eq!(host.vsock.receive().op, RST, "op {op}");
    }
    host.vsock.send(&Packet { host_port: 1, guest_port: 2, op: RST, ..Packet::default() });
    assert_eq!(host.vsock.receive_within(Duration::from_millis(50)), None, "a reset has no answer");
}

#[test]
fn closing_is_confirmed() {
    let Some(mut host) = Host::boot() else { return };
    let mut stream = host.command();
    host.succeed(&mut stream, "true");
    let mut shutdown = stream.packet(SHUTDOWN, Vec::new());
    shutdown.flags = NOT_RECEIVING | NOT_SENDING;
    host.vsock.send(&shutdown);
    assert_eq!(host.packet_for(&stream).op, RST);
}

#[test]
fn a_half_closed_connection_still_answers() {
    let Some(mut host) = Host::boot() else { return };
    let mut stream = host.command();
    host.send(&stream, exec_frame(1, &shell("sleep 50")));
    let mut shutdown = stream.packet(SHUTDOWN, Vec::new());
    shutdown.flags = NOT_SENDING;
    host.vsock.send(&shutdown);
    assert_eq!(host.outcome(&mut stream, 1).exit.code, 0);
    let end = host.packet_for(&stream);
    assert_eq!((end.op, end.flags), (SHUTDOWN, NOT_RECEIVING | NOT_SENDING));
}

#[test]
fn credit_is_told_when_asked() {
    let Some(mut host) = Host::boot() else { return };
    let mut stream = host.command();
    host.succeed(&mut stream, "true");
    host.vsock.send(&stream.packet(CREDIT_REQUEST, Vec::new()));
    let update = host.packet_for(&stream);
    assert_eq!(update.op, CREDIT_UPDATE);
    assert!(update.buf_alloc >= 64 * 1024 && update.fwd_cnt != 0);
}

#[test]
fn the_hosts_credit_is_respected() {
    let Some(mut host) = Host::boot() else { return };
    for size in [60_000, 400_000] {
        let mut stream = host.connect(AGENT_PORT, 1000).unwrap();
        host.send(&stream, exec_frame(1, &shell(&format!("random {}", size / 2))));
        let mut taken = 0;
        let mut since_credit = 0;
        // Short of what is expected, with Stdout headers on top: go on until Exit's 32 bytes.
        while taken < size {
            let packet = host.packet_for(&stream);
            if packet.op == RW {
                since_credit += packet.data.len();
                taken += packet.data.len();
                stream.received += packet.data.len() as u32;
            }
            assert!(since_credit <= 1000, "{since_credit} bytes without credit");
            if since_credit == 1000 {
                since_credit = 0;
                host.vsock.send(&stream.packet(CREDIT_UPDATE, Vec::new()));
            }
        }
    }
}

#[test]
fn a_stalled_reader_does_not_disturb_others() {
    let Some(mut host) = Host::boot() else { return };
    let stalled = host.connect(AGENT_PORT, 0).unwrap();
    host.send(&stalled, exec_frame(1, &shell("random 1000000")));
    let mut stream = host.command();
    for _ in 0..20 {
        assert_eq!(host.succeed(&mut stream, "echo on"), "on\n");
    }
    // The stalled one goes away in the middle.
    host.vsock.send(&stalled.packet(RST, Vec::new()));
    assert_eq!(host.succeed(&mut stream, "echo on"), "on\n");
}

#[test]
fn many_connections_and_their_ends() {
    let Some(mut host) = Host::boot() else { return };
    for round in 0..3 {
        let mut streams: Vec<_> = (0..256).map(|_| host.command()).collect();
        for (index, stream) in streams.iter_mut().enumerate() {
            let text = format!("r{round}c{index}");
            assert_eq!(host.succeed(stream, &format!("echo {text}")), format!("{text}\n"));
        }
        for stream in &streams {
            host.vsock.send(&stream.packet(RST, Vec::new()));
        }
    }
}

#[test]
fn more_connections_than_there_is_room_for() {
    let Some(mut host) = Host::boot() else { return };
    let streams: Vec<_> = (0..1100).map_while(|_| host.connect(AGENT_PORT, BUF_ALLOC)).collect();
    assert!((256..1100).contains(&streams.len()), "{}", streams.len());
    host.vsock.send(&streams[0].packet(RST, Vec::new()));
    let mut stream = host.command();
    assert_eq!(host.succeed(&mut stream, "echo room"), "room\n");
}

#[test]
fn a_device_that_falls_behind_is_waited_for() {
    let Some(mut host) = Host::boot() else { return };
    let mut streams: Vec<_> = (0..25).map(|_| host.command()).collect();
    // More answers than the queue has room for, before the first is taken.
    let packets: Vec<_> = streams
        .iter()
        .map(|stream| stream.packet(RW, exec_frame(1, &shell("echo late"))))
        .collect();
    host.vsock.send_all(&packets);
    std::thread::sleep(Duration::from_millis(100));
    for stream in &mut streams {
        assert_eq!(host.outcome(stream, 1).stdout, "late\n");
    }
}

#[test]
fn a_request_for_a_connection_that_exists_resets_it() {
    let Some(mut host) = Host::boot() else { return };
    let stream = host.command();
    host.vsock.send(&stream.packet(crate::vsock::REQUEST, Vec::new()));
    assert_eq!(host.packet_for(&stream).op, RST);
    let mut stream = host.command();
    assert_eq!(host.succeed(&mut stream, "echo on"), "on\n");
}
