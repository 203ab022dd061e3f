//! Properties of frames and messages: what is written reads back however the stream is cut, and
//! no bytes whatever make a reader panic.

use proptest::prelude::*;
use vmoon_protocol::files::{Entry, Fetch, Node, Piece, Sender, Store};
use vmoon_protocol::frame::{self, Decoder, Frame, FrameError, Kind};
use vmoon_protocol::message::{Command, Exec, Exit, Failure, Life, Ready, TerminalSize};
use vmoon_protocol::watch::{Process, Unit, Watch};
use vmoon_protocol::{HEADER_LEN, MAX_PAYLOAD, fields};

fn kind() -> impl Strategy<Value = Kind> {
    any::<u8>().prop_filter_map("known kinds", |value| Kind::from_value(value.into()))
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..300),
        1 => (MAX_PAYLOAD - 3..=MAX_PAYLOAD).prop_map(|length| vec![0x5a; length]),
    ]
}

fn frames() -> impl Strategy<Value = Vec<(Kind, u64, Vec<u8>)>> {
    prop::collection::vec((kind(), any::<u64>(), payload()), 0..12)
}

fn bytes(longest: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..longest)
}

/// Names of variables: no `=`, which ends them.
fn name() -> impl Strategy<Value = Vec<u8>> {
    "[A-Z_]{1,8}".prop_map(String::into_bytes)
}

fn terminal() -> impl Strategy<Value = TerminalSize> {
    any::<(u16, u16)>().prop_map(|(rows, columns)| TerminalSize { rows, columns })
}

fn exec() -> impl Strategy<Value = Exec> {
    let command = prop_oneof![
        prop::collection::vec(bytes(20), 0..6).prop_map(Command::Arguments),
        bytes(40).prop_map(Command::Shell),
    ];
    (
        command,
        prop::collection::vec((name(), bytes(20)), 0..4),
        prop::option::of(bytes(20)),
        prop::option::of("[a-z0-9]{0,8}"),
        prop::option::of(any::<u64>()),
        any::<bool>(),
        prop::option::of(terminal()),
    )
        .prop_map(|(command, environment, directory, user, timeout_ms, stdin, terminal)| {
            Exec { command, environment, directory, user, timeout_ms, stdin, terminal }
        })
}

fn entry() -> impl Strategy<Value = Entry> {
    let node =
        prop_oneof![Just(Node::File), Just(Node::Directory), bytes(60).prop_map(Node::Symlink)];
    (bytes(40), node, prop::option::of(any::<u32>()), prop::option::of(any::<i64>()), any::<u64>())
        .prop_map(|(name, node, mode, modified_ns, size)| Entry {
            name,
            node,
            mode,
            modified_ns,
            size,
        })
}

proptest! {
    #[test]
    fn frames_survive_any_cuts(frames in frames(), cuts in prop::collection::vec(1_usize..5000, 1..40)) {
        let mut stream = Vec::new();
        for (kind, id, payload) in &frames {
            frame::encode(&mut stream, *kind, *id, payload);
        }
        let mut decoder = Decoder::new();
        let mut read = Vec::new();
        let mut rest = stream.as_slice();
        for cut in cuts.iter().cycle() {
            let (piece, tail) = rest.split_at(rest.len().min(*cut));
            decoder.push(piece);
            while let Some(frame) = decoder.next_frame().unwrap() {
                read.push(frame);
            }
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert!(decoder.is_empty());
        let expected: Vec<Frame> = frames
            .into_iter()
            .map(|(kind, id, payload)| Frame { kind: kind as u16, id, payload })
            .collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn a_cut_frame_is_awaited(kind in kind(), id in any::<u64>(), payload in bytes(100), cut in any::<prop::sample::Index>()) {
        let mut stream = Vec::new();
        frame::encode(&mut stream, kind, id, &payload);
        let cut = cut.index(stream.len());
        let mut decoder = Decoder::new();
        decoder.push(&stream[..cut]);
        prop_assert_eq!(decoder.next_frame(), Ok(None));
        prop_assert_eq!(decoder.is_empty(), cut == 0);
        decoder.push(&stream[cut..]);
        prop_assert!(decoder.next_frame().unwrap().is_some());
    }

    #[test]
    fn garbage_is_refused_or_awaited(garbage in bytes(2000)) {
        let mut decoder = Decoder::new();
        decoder.push(&garbage);
        let mut total = 0;
        while let Ok(Some(frame)) = decoder.next_frame() {
            total += HEADER_LEN + frame.payload.len();
        }
        prop_assert!(total <= garbage.len());
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_before_it_arrives(length in 65_537_u32.., kind in any::<u16>()) {
        let mut header = [0; HEADER_LEN];
        header[..4].copy_from_slice(&length.to_le_bytes());
        header[4..6].copy_from_slice(&kind.to_le_bytes());
        let mut decoder = Decoder::new();
        decoder.push(&header);
        prop_assert_eq!(decoder.next_frame(), Err(FrameError::TooLong(length)));
    }

    #[test]
    fn unknown_flags_are_refused(flags in 1_u16..) {
        let mut header = [0; HEADER_LEN];
        header[6..8].copy_from_slice(&flags.to_le_bytes());
        let mut decoder = Decoder::new();
        decoder.push(&header);
        prop_assert_eq!(decoder.next_frame(), Err(FrameError::Flags(flags)));
    }

    #[test]
    fn commands_read_back(exec in exec()) {
        prop_assert_eq!(Exec::decode(&exec.encode()).unwrap(), exec);
    }

    #[test]
    fn unknown_fields_of_a_newer_host_are_skipped(exec in exec(), tag in 100_u16.., value in bytes(30)) {
        let mut payload = Vec::new();
        fields::put(&mut payload, tag, &value);
        payload.extend_from_slice(&exec.encode());
        fields::put(&mut payload, tag, &value);
        prop_assert_eq!(Exec::decode(&payload).unwrap(), exec);
    }

    #[test]
    fn ends_read_back(code in any::<i32>(), signal in any::<i32>(), duration_ns in any::<u64>()) {
        let exit = Exit { code, signal, duration_ns };
        prop_assert_eq!(Exit::decode(&exit.encode()).unwrap(), exit);
    }

    #[test]
    fn sizes_read_back(size in terminal()) {
        prop_assert_eq!(TerminalSize::decode(&size.encode()).unwrap(), size);
    }

    #[test]
    fn lives_read_back(epoch in any::<u64>(), unix_ns in any::<u64>(), entropy in any::<[u8; 32]>()) {
        let life = Life { epoch, unix_ns, entropy };
        prop_assert_eq!(life.encode().len(), Life::LEN);
        prop_assert_eq!(Life::decode(&life.encode()).unwrap(), life);
    }

    #[test]
    fn announcements_and_failures_read_back(version in any::<u32>(), guest in ".{0,20}", code in "[a-z._]{0,20}", message in ".{0,80}") {
        let ready = Ready { version, guest };
        prop_assert_eq!(Ready::decode(&ready.encode()).unwrap(), ready);
        let failure = Failure { code, message };
        prop_assert_eq!(Failure::decode(&failure.encode()), failure);
    }

    #[test]
    fn waits_read_back(
        port in prop_oneof![any::<u32>(), 0_u32..65_536],
        path in bytes(60),
        name in "[a-z@.-]{0,30}",
        state in prop_oneof![Just(Unit::ACTIVE.to_owned()), "[a-z]{0,9}"],
    ) {
        for watch in [
            Watch::Port(port),
            Watch::File(path.clone()),
            Watch::Gone(path.clone()),
            Watch::Socket(path.clone()),
            Watch::Exit(Process::Id(port)),
            Watch::Exit(Process::Name(path)),
            Watch::Unit(Unit { name: name.clone(), state }),
            Watch::Ready(name),
        ] {
            prop_assert_eq!(Watch::decode(&watch.encode()), Some(watch));
        }
    }

    #[test]
    fn requests_for_files_read_back(path in bytes(60), name in prop::option::of(bytes(20)), parents in any::<bool>(), contents in any::<bool>()) {
        let store = Store { path: path.clone(), name, parents };
        prop_assert_eq!(Store::decode(&store.encode()).unwrap(), store);
        let fetch = Fetch { path, contents };
        prop_assert_eq!(Fetch::decode(&fetch.encode()).unwrap(), fetch);
    }

    #[test]
    fn pieces_of_a_tree_read_back(entry in entry(), offset in any::<u64>(), data in bytes(200), from_host in any::<bool>()) {
        let sender = if from_host { Sender::Host } else { Sender::Guest };
        for piece in [Piece::Entry(entry), Piece::Data { offset, bytes: &data }, Piece::Leave] {
            let mut stream = Vec::new();
            piece.encode(&mut stream, sender, 7);
            let mut decoder = Decoder::new();
            decoder.push(&stream);
            let frame = decoder.next_frame().unwrap().unwrap();
            prop_assert_eq!(frame.kind < 0x80, from_host);
            prop_assert_eq!(Piece::decode(frame.kind, &frame.payload).unwrap(), Some(piece));
        }
    }

    #[test]
    fn no_payload_makes_a_reader_panic(payload in bytes(200)) {
        let _ = Exec::decode(&payload);
        let _ = Exit::decode(&payload);
        let _ = Life::decode(&payload);
        let _ = Ready::decode(&payload);
        let _ = TerminalSize::decode(&payload);
        let _ = Failure::decode(&payload);
        let _ = Watch::decode(&payload);
        let _ = Store::decode(&payload);
        let _ = Fetch::decode(&payload);
        for kind in [Kind::StoreEntry, Kind::FetchData, Kind::StoreLeave] {
            let _ = Piece::decode(kind as u16, &payload);
        }
        let walked = fields::iter(&payload).map(|field| field.map_or(0, |(_, value)| value.len()));
        prop_assert!(walked.sum::<usize>() <= payload.len());
    }
}

#[test]
fn a_decoder_does_not_keep_what_was_taken() {
    // A stream far longer than any buffer should be: the decoder drops what it has given out.
    let mut piece = Vec::new();
    frame::encode(&mut piece, Kind::Stdout, 1, &vec![0; MAX_PAYLOAD]);
    let mut decoder = Decoder::new();
    decoder.push(&piece[..100]);
    for _ in 0..200 {
        decoder.push(&piece[100..]);
        decoder.push(&piece[..100]);
        assert!(decoder.next_frame().unwrap().is_some());
        assert!(decoder.next_frame().unwrap().is_none());
    }
}
