//! Frames, however the stream is cut.

use vmoon_protocol::message::Life;
use vmoon_protocol::{Kind, MAX_PAYLOAD};

use crate::host::{Host, bytes_of, exec_frame, shell};
use crate::vsock::RST;

#[test]
fn frames_may_be_cut_anywhere() {
    let Some(mut host) = Host::boot() else { return };
    let mut stream = host.command();
    let life = Life { epoch: 2, unix_ns: 1, entropy: [3; 32] };
    let mut bytes = bytes_of(Kind::Life, 8, &life.encode());
    bytes.extend(bytes_of(Kind::Stdin, 1, b"ignored"));
    bytes.extend(exec_frame(1, &shell("echo whole")));
    for cut in 1..bytes.len() {
        let (left, right) = bytes.split_at(cut);
        host.vsock.send_all(&[
            stream.packet(crate::vsock::RW, left.to_vec()),
            stream.packet(crate::vsock::RW, right.to_vec()),
        ]);
        assert_eq!(host.outcome(&mut stream, 1).stdout, "whole\n", "cut at {cut}");
    }
    for byte in &bytes {
        host.send(&stream, vec![*byte]);
    }
    assert_eq!(host.outcome(&mut stream, 1).stdout, "whole\n");
}

#[test]
fn long_frames_arrive_in_pieces() {
    let Some(mut host) = Host::boot() else { return };
    let mut stream = host.command();
    let text = "y".repeat(60_000);
    let bytes = exec_frame(2, &shell(&format!("echo {text}")));
    for piece in bytes.chunks(7_001) {
        host.send(&stream, piece.to_vec());
    }
    assert_eq!(host.outcome(&mut stream, 2).stdout, format!("{text}\n"));
}

#[test]
fn input_is_swallowed_and_credited() {
    let Some(mut host) = Host::boot() else { return };
    let mut stream = host.command();
    let input = bytes_of(Kind::Stdin, 1, &vec![7; MAX_PAYLOAD]);
    let mut sent = 0u32;
    let mut told = 0;
    for piece in input.repeat(10).chunks(30_000) {
        host.send(&stream, piece.to_vec());
        sent += u32::try_from(piece.len()).unwrap();
        while sent - told > 100_000 {
            told = host.packet_for(&stream).fwd_cnt;
        }
    }
    host.inbox.clear();
    assert_eq!(host.succeed(&mut stream, "echo alive"), "alive\n");
}

#[test]
fn what_is_no_frame_resets_the_connection() {
    let Some(mut host) = Host::boot() else { return };
    let mut too_long = bytes_of(Kind::Exec, 1, b"");
    too_long[..4].copy_from_slice(&(MAX_PAYLOAD as u32 + 1).to_le_bytes());
    let mut flags = bytes_of(Kind::Exec, 1, b"");
    flags[6] = 1;
    for bytes in [too_long, flags] {
        let stream = host.command();
        host.send(&stream, bytes);
        assert_eq!(host.packet_for(&stream).op, RST);
    }
    let mut stream = host.command();
    assert_eq!(host.succeed(&mut stream, "echo alive"), "alive\n");
}

#[test]
fn a_command_that_is_cut_short_is_an_error() {
    let Some(mut host) = Host::boot() else { return };
    let mut stream = host.command();
    for payload in
        [&[1u8, 0, 0][..], &[2, 0, 0, 0, 5, 0, 0, 0, b'x'], &[1, 0, 0, 0, 255, 255, 255, 255]]
    {
        host.send(&stream, bytes_of(Kind::Exec, 6, payload));
        let frame = host.frame(&mut stream);
        assert_eq!((frame.kind, frame.id), (Kind::Error as u16, 6));
    }
    host.send(&stream, bytes_of(Kind::Exec, 7, b""));
    assert_eq!(host.outcome(&mut stream, 7).exit.code, 0);
    assert_eq!(host.succeed(&mut stream, "echo alive"), "alive\n");
}

#[test]
fn one_command_at_a_time() {
    let Some(mut host) = Host::boot() else { return };
    let mut stream = host.command();
    host.send(&stream, exec_frame(1, &shell("sleep 100")));
    host.send(&stream, exec_frame(2, &shell("true")));
    let frame = host.frame(&mut stream);
    assert_eq!((frame.kind, frame.id), (Kind::Error as u16, 2));
    assert_eq!(host.outcome(&mut stream, 1).exit.code, 0);
}
