//! Files: values of the store, carried in pieces.

use vmoon_protocol::Kind;
use vmoon_protocol::files::{Entry, Fetch, Node, Piece, Sender, Store};
use vmoon_protocol::message::Failure;

use crate::host::{Host, Stream, bytes_of, exec_frame, shell};

fn store(host: &mut Host, stream: &mut Stream, id: u64, path: &str, pieces: &[Piece<'_>]) {
    let store = Store { path: path.into(), name: Some(b"name".to_vec()), parents: false };
    let mut bytes = bytes_of(Kind::Store, id, &store.encode());
    for piece in pieces {
        piece.encode(&mut bytes, Sender::Host, id);
    }
    for part in bytes.chunks(30_000) {
        host.send(stream, part.to_vec());
    }
}

/// Sends a file, cut into pieces of `cut` bytes; the answer's kind and failure.
fn write(
    host: &mut Host,
    stream: &mut Stream,
    id: u64,
    path: &str,
    data: &[u8],
) -> Option<Failure> {
    let mut pieces = vec![Piece::Entry(Entry::file(data.len() as u64))];
    let mut offset = 0;
    for bytes in data.chunks(25_000) {
        pieces.push(Piece::Data { offset, bytes });
        offset += bytes.len() as u64;
    }
    pieces.push(Piece::Data { offset, bytes: &[] });
    store(host, stream, id, path, &pieces);
    let answer = host.frame(stream);
    assert_eq!(answer.id, id);
    (answer.kind != Kind::Done as u16).then(|| Failure::decode(&answer.payload))
}

fn read(host: &mut Host, stream: &mut Stream, id: u64, path: &str) -> Result<Vec<u8>, Failure> {
    let fetch = Fetch { path: path.into(), contents: true };
    host.send(stream, bytes_of(Kind::Fetch, id, &fetch.encode()));
    let mut data = Vec::new();
    loop {
        let frame = host.frame(stream);
        assert_eq!(frame.id, id);
        match Kind::from_value(frame.kind).unwrap() {
            Kind::Done => return Ok(data),
            Kind::Error => return Err(Failure::decode(&frame.payload)),
            _ => {}
        }
        match Piece::decode(frame.kind, &frame.payload).unwrap() {
            Some(Piece::Data { offset, bytes }) => {
                assert_eq!(offset, data.len() as u64);
                data.extend_from_slice(bytes);
            }
            piece => panic!("{piece:?}"),
        }
    }
}

#[test]
fn a_file_comes_back_and_is_seen_by_commands() {
    let Some(mut host) = Host::boot() else { return };
    let mut stream = host.command();
    let empty = host.succeed(&mut stream, "checksum");
    let long: Vec<u8> = (0..131_072_u32).map(|n| (n * 31 % 251) as u8).collect();
    for (id, path, data) in [
        (1, "/etc/motd", &b"hello\nworld"[..]),
        (2, "a path\nof é", b""),
        (3, "/long", &long),
        (4, "/long", &long[..70_001]),
    ] {
        assert_eq!(write(&mut host, &mut stream, id, path, data), None, "{path}");
        assert_eq!(read(&mut host, &mut stream, id + 10, path).unwrap(), data, "{path}");
    }
    assert_eq!(host.succeed(&mut stream, "cat /etc/motd"), "hello\nworld");
    assert_eq!(host.succeed(&mut stream, "get /etc/motd"), "hello\nworld\n");
    assert_eq!(host.exec(&mut stream, "cat /nothing").exit.code, 1);
    assert_ne!(host.succeed(&mut stream, "checksum"), empty);
    // Into a directory, under its name.
    assert_eq!(write(&mut host, &mut stream, 5, "/tmp/", b"x"), None);
    assert_eq!(read(&mut host, &mut stream, 6, "/tmp/name").unwrap(), b"x");
}

#[test]
fn a_hole_is_zeroes() {
    let Some(mut host) = Host::boot() else { return };
    let mut stream = host.command();
    let pieces = [
        Piece::Entry(Entry::file(0)),
        Piece::Data { offset: 5, bytes: b"x" },
        Piece::Data { offset: 8, bytes: b"" },
    ];
    store(&mut host, &mut stream, 1, "/sparse", &pieces);
    assert_eq!(host.frame(&mut stream).kind, Kind::Done as u16);
    assert_eq!(read(&mut host, &mut stream, 2, "/sparse").unwrap(), b"\0\0\0\0\0x\0\0");
}

#[test]
fn what_it_cannot_keep_is_refused_and_the_connection_goes_on() {
    let Some(mut host) = Host::boot() else { return };
    let mut stream = host.command();
    assert_eq!(read(&mut host, &mut stream, 1, "/none").unwrap_err().code, "file.not_found");
    let failure = write(&mut host, &mut stream, 2, "", b"x").unwrap();
    assert_eq!(failure.code, "file.not_found");
    let failure = write(&mut host, &mut stream, 3, &"p".repeat(2000), b"x").unwrap();
    assert_eq!(failure.code, "file.not_found");
    let failure = write(&mut host, &mut stream, 4, "/big", &vec![7; 131_073]).unwrap();
    assert_eq!(failure.code, "file.no_space", "{failure:?}");
    assert!(failure.message.starts_with("/big: "), "{failure:?}");
    let directory = [Piece::Entry(Entry { node: Node::Directory, ..Entry::file(0) }), Piece::Leave];
    store(&mut host, &mut stream, 5, "/tree", &directory);
    let failure = Failure::decode(&host.frame(&mut stream).payload);
    assert_eq!(failure.code, "backend.unsupported", "{failure:?}");
    let disorder = [
        Piece::Entry(Entry::file(0)),
        Piece::Data { offset: 5, bytes: b"xyz" },
        Piece::Data { offset: 2, bytes: b"xyz" },
    ];
    store(&mut host, &mut stream, 6, "/disorder", &disorder);
    let failure = Failure::decode(&host.frame(&mut stream).payload);
    assert_eq!(failure.code, "agent.unavailable", "{failure:?}");
    // While a command runs, it is the command's connection.
    host.send(&stream, exec_frame(20, &shell("sleep 100")));
    let fetch = Fetch { path: b"/none".to_vec(), contents: true };
    host.send(&stream, bytes_of(Kind::Fetch, 21, &fetch.encode()));
    assert_eq!(Failure::decode(&host.frame(&mut stream).payload).code, "vm.state");
    assert_eq!(host.outcome(&mut stream, 20).exit.code, 0);
    assert_eq!(host.succeed(&mut stream, "echo fine"), "fine\n");
    // No block is lost by any of it: there are fewer than this.
    for id in 100..300 {
        let code = if id % 2 == 0 {
            write(&mut host, &mut stream, id, "/big", &vec![7; 131_073]).unwrap().code
        } else {
            read(&mut host, &mut stream, id, "/none").unwrap_err().code
        };
        assert!(code.starts_with("file."), "{code}");
    }
}
