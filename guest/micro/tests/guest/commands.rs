//! The built-in commands.

use vmoon_protocol::Kind;
use vmoon_protocol::message::{Command, Exec, Life};

use crate::host::{Host, bytes_of, exec_frame, shell};

#[test]
fn words_and_codes() {
    let Some(mut host) = Host::boot() else { return };
    let mut stream = host.command();
    let cases = [
        ("true", 0, ""),
        ("false", 1, ""),
        ("exit 42", 42, ""),
        ("exit 256", 0, ""),
        ("  echo   a  b\n", 0, "a b\n"),
        ("", 0, ""),
    ];
    for (command, code, stdout) in cases {
        let outcome = host.exec(&mut stream, command);
        assert_eq!((outcome.exit.code, outcome.stdout.as_str()), (code, stdout), "{command:?}");
        assert_eq!(outcome.stderr, "");
        assert!(outcome.exit.duration_ns < 10_000_000_000);
    }
    for command in ["nosuch", "a-rather-long-name x", "echo-serve"] {
        let outcome = host.exec(&mut stream, command);
        assert_eq!(outcome.exit.code, 127);
        assert!(outcome.stderr.ends_with("command not found\n"), "{}", outcome.stderr);
    }
    for command in ["sleep", "exit x", "dirty", "put k", "get", "random -1", "blk read 1"] {
        let outcome = host.exec(&mut stream, command);
        assert_eq!(outcome.exit.code, 2, "{command}");
        assert!(outcome.stderr.starts_with("usage: "), "{}", outcome.stderr);
    }
}

#[test]
fn arguments_keep_their_spaces() {
    let Some(mut host) = Host::boot() else { return };
    let mut stream = host.command();
    let arguments = ["echo", "a  b", "", "c"].map(|word| word.as_bytes().to_vec());
    let exec = Exec { command: Command::Arguments(arguments.to_vec()), ..Exec::default() };
    host.send(&stream, exec_frame(1, &exec));
    assert_eq!(host.outcome(&mut stream, 1).stdout, "a  b  c\n");
}

#[test]
fn the_store_keeps_what_was_put() {
    let Some(mut host) = Host::boot() else { return };
    let mut stream = host.command();
    assert_eq!(host.exec(&mut stream, "get a").exit.code, 1);
    let empty = host.succeed(&mut stream, "checksum");
    host.succeed(&mut stream, "put a one");
    host.succeed(&mut stream, "put b two words");
    let two = host.succeed(&mut stream, "checksum");
    assert_ne!(empty, two);
    assert_eq!(host.succeed(&mut stream, "get a"), "one\n");
    assert_eq!(host.succeed(&mut stream, "get b"), "two words\n");
    assert_eq!(host.succeed(&mut stream, "keys"), "a\nb\n");
    let long = "x".repeat(20_000);
    host.succeed(&mut stream, &format!("put a {long}"));
    assert_eq!(host.succeed(&mut stream, "get a"), format!("{long}\n"));
    assert_eq!(host.succeed(&mut stream, "get b"), "two words\n");
    for index in 1..50 {
        host.succeed(&mut stream, &format!("put key{index} {}", "v".repeat(index)));
    }
    for index in 1..50 {
        let value = host.succeed(&mut stream, &format!("get key{index}"));
        assert_eq!(value, format!("{}\n", "v".repeat(index)));
    }
    assert_eq!(host.succeed(&mut stream, "keys").lines().count(), 51);
    // Full, not corrupt.
    let mut codes = (0..60).map(|index| {
        host.exec(&mut stream, &format!("put big{index} {}", "y".repeat(60_000))).exit.code
    });
    assert!(codes.any(|code| code == 1));
    assert_eq!(host.succeed(&mut stream, "get b"), "two words\n");
}

#[test]
fn the_checksum_sees_what_was_dirtied() {
    let Some(mut host) = Host::boot() else { return };
    let mut stream = host.command();
    let mut sums = vec![host.succeed(&mut stream, "checksum")];
    for command in ["dirty 10", "dirty 10", "dirty 100 7", "dirty 100 8", "dirty 0"] {
        host.succeed(&mut stream, command);
        sums.push(host.succeed(&mut stream, "checksum"));
    }
    assert!(sums[..5].windows(2).all(|pair| pair[0] != pair[1]), "{sums:?}");
    assert_eq!(sums[4], sums[5]);
    host.succeed(&mut stream, "dirty 100 8");
    assert_eq!(host.succeed(&mut stream, "checksum"), sums[5], "the same seed, the same memory");
    assert_eq!(sums[0].len(), 17);
    assert_eq!(host.exec(&mut stream, "dirty 1000000").exit.code, 1);
}

#[test]
fn randomness_follows_the_lives() {
    let Some(mut host) = Host::boot() else { return };
    let mut stream = host.command();
    let first = host.succeed(&mut stream, "random 8");
    assert_eq!(first.len(), 17);
    assert_ne!(host.succeed(&mut stream, "random 8"), first);
    assert_eq!(host.succeed(&mut stream, "random 0"), "\n");
    assert_eq!(host.succeed(&mut stream, "random 100001").len(), 200_003);
    // In one packet, ahead of the command, and not answered.
    let life = Life { epoch: 2, unix_ns: 1, entropy: [3; 32] };
    let mut bytes = bytes_of(Kind::Life, 8, &life.encode());
    bytes.extend(exec_frame(9, &shell("random 4")));
    host.send(&stream, bytes);
    assert_eq!(host.outcome(&mut stream, 9).stdout.len(), 9);
}

#[test]
fn lines_are_whole_however_the_credit_goes() {
    let Some(mut host) = Host::boot() else { return };
    let mut stream = host.command();
    let line = format!("{}\n", "x".repeat(63));
    for bytes in [0, 1, 64, 70_000, 300_000] {
        let text = host.succeed(&mut stream, &format!("lines {bytes}"));
        assert_eq!(text.len(), bytes);
        assert!(line.repeat(bytes / 64 + 1).starts_with(&text), "{bytes}");
    }
    assert_eq!(host.exec(&mut stream, "lines").exit.code, 2);
}

#[test]
fn figures() {
    let Some(mut host) = Host::boot() else { return };
    let mut stream = host.command();
    let text = host.succeed(&mut stream, "meminfo");
    let figure = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    assert!((31_000..=32_768).contains(&figure("MemTotal:")), "{text}");
    assert!((20_000..30_000).contains(&figure("MemAvailable:")), "{text}");
    let first: f64 = host.succeed(&mut stream, "uptime").trim().parse().unwrap();
    host.succeed(&mut stream, "sleep 50");
    let second: f64 = host.succeed(&mut stream, "uptime").trim().parse().unwrap();
    assert!(second >= first + 0.04, "{first} {second}");
    assert_eq!(host.exec(&mut stream, "date").exit.code, 1, "no life has told the time yet");
}

#[test]
fn commands_sleep_side_by_side() {
    let Some(mut host) = Host::boot() else { return };
    let mut streams: Vec<_> = (0..300).map(|_| host.command()).collect();
    for (id, stream) in streams.iter().enumerate() {
        host.send(stream, exec_frame(id as u64, &shell("sleep 300")));
    }
    for (id, stream) in streams.iter_mut().enumerate() {
        let outcome = host.outcome(stream, id as u64);
        assert_eq!(outcome.exit.code, 0);
        assert!(outcome.exit.duration_ns >= 300_000_000, "{:?}", outcome.exit);
    }
    assert_eq!(host.succeed(&mut streams[17], "echo again"), "again\n");
}

#[test]
fn a_deadline_kills() {
    let Some(mut host) = Host::boot() else { return };
    let mut stream = host.command();
    for command in ["sleep 60000", "echo-server 9"] {
        let exec = Exec { timeout_ms: Some(30), ..shell(command) };
        host.send(&stream, exec_frame(4, &exec));
        let exit = host.outcome(&mut stream, 4).exit;
        assert_eq!((exit.code, exit.signal), (137, 9), "{command}");
        assert!(exit.duration_ns >= 30_000_000);
    }
    let exec = Exec { timeout_ms: Some(u64::MAX), ..shell("sleep 1") };
    host.send(&stream, exec_frame(5, &exec));
    assert_eq!(host.outcome(&mut stream, 5).exit.code, 0);
}

#[test]
fn a_signal_ends_a_command() {
    let Some(mut host) = Host::boot() else { return };
    let mut stream = host.command();
    host.send(&stream, exec_frame(4, &shell("sleep 60000")));
    host.send(&stream, bytes_of(Kind::Signal, 3, &9i32.to_le_bytes())); // another's
    host.send(&stream, bytes_of(Kind::Signal, 4, &15i32.to_le_bytes()));
    let exit = host.outcome(&mut stream, 4).exit;
    assert_eq!((exit.code, exit.signal), (143, 15));
    assert_eq!(host.succeed(&mut stream, "echo next"), "next\n");
}
