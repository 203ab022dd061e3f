//! `echo-server` and `connect`.

use vmoon_protocol::{Kind, message::Exec};

use crate::host::{BUF_ALLOC, Host, Stream, bytes_of, exec_frame, shell};
use crate::vsock::{CREDIT_REQUEST, CREDIT_UPDATE, Packet, REQUEST, RESPONSE, RST, RW, SHUTDOWN};

const PORT: u32 = 7000;

fn serve(host: &mut Host) -> Stream {
    let server = host.command();
    host.send(&server, exec_frame(1, &shell(&format!("echo-server {PORT}"))));
    // It prints nothing; any answer comes after it listens.
    host.vsock.send(&server.packet(CREDIT_REQUEST, Vec::new()));
    assert_eq!(host.packet_for(&server).op, CREDIT_UPDATE);
    server
}

/// Bytes that differ from place to place.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 7 + index / 251) as u8).collect()
}

fn read_exactly(host: &mut Host, stream: &mut Stream, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < length {
        bytes.extend(host.read(stream));
        host.vsock.send(&stream.packet(CREDIT_UPDATE, Vec::new()));
    }
    bytes
}

#[test]
fn echoes_packets_of_every_size() {
    let Some(mut host) = Host::boot() else { return };
    let _server = serve(&mut host);
    let mut stream = host.connect(PORT, BUF_ALLOC).unwrap();
    for length in [1, 7, 8, 255, 256, 257, 4000, 5000, 65_492] {
        host.send(&stream, pattern(length));
        assert_eq!(read_exactly(&mut host, &mut stream, length), pattern(length), "{length}");
    }
    // Many at once: the buffers that are lent out come back.
    for _ in 0..20 {
        let packets: Vec<_> = (0..10).map(|_| stream.packet(RW, pattern(6000))).collect();
        host.vsock.send_all(&packets);
        let echoed = read_exactly(&mut host, &mut stream, 60_000);
        assert!(echoed.chunks(6000).all(|chunk| chunk == pattern(6000)));
    }
}

#[test]
fn an_echo_waits_for_credit_and_gives_none_meanwhile() {
    let Some(mut host) = Host::boot() else { return };
    let _server = serve(&mut host);
    let mut stream = host.connect(PORT, 500).unwrap();
    let data = pattern(100_000);
    for piece in data.chunks(25_000) {
        host.send(&stream, piece.to_vec());
    }
    let mut echoed: Vec<u8> = Vec::new();
    while echoed.len() < data.len() {
        let packet = host.packet_for(&stream);
        assert!(packet.fwd_cnt as usize <= echoed.len() + packet.data.len(), "taken, not sent");
        if packet.op == RW {
            echoed.extend(&packet.data);
            stream.received += packet.data.len() as u32;
            host.vsock.send(&stream.packet(CREDIT_UPDATE, Vec::new()));
        }
    }
    assert_eq!(echoed, data);
}

#[test]
fn an_echo_ends_after_what_it_owes() {
    let Some(mut host) = Host::boot() else { return };
    let _server = serve(&mut host);
    let mut stream = host.connect(PORT, 100).unwrap();
    host.send(&stream, pattern(1000));
    let mut shutdown = stream.packet(SHUTDOWN, Vec::new());
    shutdown.flags = 2;
    host.vsock.send(&shutdown);
    assert_eq!(read_exactly(&mut host, &mut stream, 1000), pattern(1000));
    loop {
        match host.packet_for(&stream).op {
            SHUTDOWN => break,
            CREDIT_UPDATE => {}
            op => panic!("op {op}"),
        }
    }
}

#[test]
fn killing_the_server_resets_its_connections() {
    let Some(mut host) = Host::boot() else { return };
    let mut server = serve(&mut host);
    let mut other = host.command();
    let outcome = host.exec(&mut other, &format!("echo-server {PORT}"));
    assert_eq!(outcome.exit.code, 1, "the port is taken");
    assert_eq!(host.exec(&mut other, "echo-server 1024").exit.code, 1);

    let streams: Vec<_> = (0..3).map(|_| host.connect(PORT, BUF_ALLOC).unwrap()).collect();
    host.send(&server, bytes_of(Kind::Signal, 1, &15i32.to_le_bytes()));
    for stream in &streams {
        assert_eq!(host.packet_for(stream).op, RST);
    }
    assert_eq!(host.outcome(&mut server, 1).exit.code, 143);
    assert!(host.connect(PORT, BUF_ALLOC).is_none());

    // Its connection's end is the server's end too.
    let server = serve(&mut host);
    let stream = host.connect(PORT, BUF_ALLOC).unwrap();
    host.vsock.send(&server.packet(RST, Vec::new()));
    assert_eq!(host.packet_for(&stream).op, RST);
    assert!(host.connect(PORT, BUF_ALLOC).is_none());
}

/// Starts `connect` and answers its dialling; the stream as the host sees it.
fn dialled(host: &mut Host, command: &mut Stream, exec: &Exec, answer: u16) -> Stream {
    host.send(command, exec_frame(1, exec));
    let request = host.vsock.receive();
    assert_eq!((request.op, request.host_port), (REQUEST, 9000));
    host.vsock.send(&Packet { op: answer, buf_alloc: BUF_ALLOC, ..request.clone() });
    let mut stream = host.command();
    (stream.host_port, stream.guest_port) = (9000, request.guest_port);
    stream
}

#[test]
fn connect_sends_a_line_and_prints_one() {
    let Some(mut host) = Host::boot() else { return };
    let mut command = host.command();
    let exec = shell("connect 9000 hello there");
    let mut stream = dialled(&mut host, &mut command, &exec, RESPONSE);
    assert_eq!(host.read(&mut stream), b"hello there\n");
    host.send(&stream, b"general ".to_vec());
    host.send(&stream, b"kenobi\nmore".to_vec());
    assert_eq!(host.outcome(&mut command, 1).stdout, "general kenobi\n");
    assert_eq!(host.packet_for(&stream).op, SHUTDOWN);

    let stream = dialled(&mut host, &mut command, &exec, RST);
    drop(stream);
    let outcome = host.outcome(&mut command, 1);
    assert_eq!((outcome.exit.code, outcome.stderr.as_str()), (1, "connect: refused\n"));

    let mut stream = dialled(&mut host, &mut command, &exec, RESPONSE);
    host.read(&mut stream);
    host.vsock.send(&stream.packet(RST, Vec::new()));
    assert_eq!(host.outcome(&mut command, 1).stderr, "connect: reset\n");

    let mut stream = dialled(&mut host, &mut command, &exec, RESPONSE);
    host.read(&mut stream);
    let mut shutdown = stream.packet(SHUTDOWN, Vec::new());
    shutdown.flags = 2;
    host.vsock.send(&shutdown);
    assert_eq!(host.outcome(&mut command, 1).stderr, "connect: closed without a reply\n");
    assert_eq!(host.packet_for(&stream).op, SHUTDOWN);

    // Both directions at once, after half a line: that is the reply.
    let mut stream = dialled(&mut host, &mut command, &exec, RESPONSE);
    host.read(&mut stream);
    let mut shutdown = stream.packet(SHUTDOWN, Vec::new());
    shutdown.flags = 3;
    host.vsock.send_all(&[stream.packet(RW, b"half".to_vec()), shutdown]);
    assert_eq!(host.outcome(&mut command, 1).stdout, "half\n");
    assert_eq!(host.packet_for(&stream).op, RST);

    let exec = Exec { timeout_ms: Some(20), ..exec };
    let mut stream = dialled(&mut host, &mut command, &exec, RESPONSE);
    host.read(&mut stream);
    assert_eq!(host.outcome(&mut command, 1).exit.code, 137);
    assert_eq!(host.packet_for(&stream).op, RST);
}
