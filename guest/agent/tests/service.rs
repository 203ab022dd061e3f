//! The service over Unix sockets: commands as the host runs them.

mod common;

use std::time::{Duration, Instant};

use common::{Agent, Reply};
use vmoon_protocol::frame::Kind;
use vmoon_protocol::message::{Command, Exec, Life, TerminalSize};

fn shell(text: &str) -> Exec {
    Exec { command: Command::Shell(text.as_bytes().to_vec()), ..Exec::default() }
}

fn program(words: &[&str]) -> Exec {
    let words = words.iter().map(|word| word.as_bytes().to_vec()).collect();
    Exec { command: Command::Arguments(words), ..Exec::default() }
}

#[test]
fn it_announces_itself() {
    let agent = Agent::start();
    assert_eq!(
        (agent.ready.version, agent.ready.guest.as_str()),
        (vmoon_protocol::VERSION, "linux")
    );
}

#[test]
fn output_and_errors_are_apart_and_the_code_is_exact() {
    let agent = Agent::start();
    let reply = agent.connect().exec(&shell("echo out; echo err >&2; exit 3"));
    assert_eq!(reply.text(), ("out\n", "err\n"));
    let exit = reply.exit();
    assert_eq!((exit.code, exit.signal), (3, 0));
    assert!(exit.duration_ns > 0);
}

#[test]
fn a_connection_serves_one_command_after_another() {
    let agent = Agent::start();
    let mut connection = agent.connect();
    for number in 0..50 {
        let reply = connection.exec(&program(&["printf", "%s", &number.to_string()]));
        assert_eq!(reply.text(), (number.to_string().as_str(), ""));
        assert_eq!(reply.exit().code, 0);
    }
}

#[test]
fn arguments_are_not_the_shells() {
    let agent = Agent::start();
    let reply = agent.connect().exec(&program(&["printf", "%s|", "a b", "$HOME", ""]));
    assert_eq!(reply.text(), ("a b|$HOME||", ""));
}

#[test]
fn what_cannot_start_is_an_error_with_a_code() {
    let agent = Agent::start();
    let mut connection = agent.connect();
    for (exec, code, words) in [
        (program(&["/no/such/program"]), "exec.not_found", "/no/such/program"),
        (program(&["no-such-program"]), "exec.not_found", "no-such-program"),
        (program(&["/etc/passwd"]), "file.permission", "/etc/passwd"),
        (program(&[]), "vm.spec", "no program"),
        (
            Exec { directory: Some(b"/no/dir".to_vec()), ..shell("true") },
            "file.not_found",
            "/no/dir",
        ),
        (
            Exec { directory: Some(b"/etc/passwd".to_vec()), ..shell("true") },
            "file.not_found",
            "not a directory",
        ),
        (Exec { user: Some("ghost".to_owned()), ..shell("true") }, "exec.not_found", "ghost"),
        (
            Exec { environment: vec![(Vec::new(), b"x".to_vec())], ..shell("true") },
            "vm.spec",
            "environment",
        ),
    ] {
        let failure = connection.exec(&exec).failure();
        assert_eq!(failure.code, code, "{failure:?}");
        assert!(failure.message.contains(words), "{failure:?}");
    }
    // In a shell, a program that does not exist is the shell's status.
    assert_eq!(connection.exec(&shell("no-such-program")).exit().code, 127);
}

#[test]
fn environment_and_directory_are_set() {
    let agent = Agent::start();
    let exec = Exec {
        environment: vec![(b"GREETING".to_vec(), b"a=b c".to_vec())],
        directory: Some(b"/usr".to_vec()),
        ..shell("echo $GREETING; pwd; test -n \"$PATH\"")
    };
    let reply = agent.connect().exec(&exec);
    assert_eq!(reply.text(), ("a=b c\n/usr\n", ""));
    assert_eq!(reply.exit().code, 0);
}

#[test]
fn a_user_is_taken_by_name_and_by_number() {
    // SAFETY: takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("skipped: only root can become somebody else");
        return;
    }
    let agent = Agent::start();
    let mut connection = agent.connect();
    for user in ["nobody", "65534"] {
        let exec =
            Exec { user: Some(user.to_owned()), ..shell("id -un; id -u; id -G; echo $USER") };
        let reply = connection.exec(&exec);
        assert_eq!(reply.text(), ("nobody\n65534\n65534\nnobody\n", ""), "{user}");
    }
}

#[test]
fn input_reaches_the_program_and_ends() {
    let agent = Agent::start();
    let mut connection = agent.connect();
    let id = connection.start(&Exec { stdin: true, ..shell("cat; echo done") });
    // Far more than the pipes hold: input must flow while output does.
    let input: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut writer = connection.writer();
    let sent = input.clone();
    let thread = std::thread::spawn(move || {
        for chunk in sent.chunks(vmoon_protocol::MAX_PAYLOAD) {
            writer.send(Kind::Stdin, id, chunk);
        }
        writer.send(Kind::Stdin, id, &[]);
    });
    let reply = connection.collect(id);
    thread.join().unwrap();
    assert_eq!(reply.exit().code, 0);
    assert_eq!(reply.stdout.len(), input.len() + 5);
    assert!(reply.stdout.starts_with(&input) && reply.stdout.ends_with(b"done\n"));
}

#[test]
fn a_program_that_ignores_its_input_does_not_hang() {
    let agent = Agent::start();
    let mut connection = agent.connect();
    let id = connection.start(&Exec { stdin: true, ..shell("exec <&-; sleep 0.1; echo done") });
    for _ in 0..4 {
        connection.send(Kind::Stdin, id, &vec![7; 60_000]);
    }
    assert_eq!(connection.collect(id).text(), ("done\n", ""));
    // The same connection goes on, whatever of the input was left.
    assert_eq!(connection.exec(&shell("echo next")).text(), ("next\n", ""));
}

#[test]
fn without_input_standard_input_is_empty() {
    let agent = Agent::start();
    assert_eq!(agent.connect().exec(&shell("cat; echo done")).text(), ("done\n", ""));
}

#[test]
fn a_signal_reaches_the_whole_group() {
    let agent = Agent::start();
    let mut connection = agent.connect();
    let id = connection.start(&shell("echo up; sleep 60 | sleep 60"));
    assert_eq!(connection.next_frame().payload, b"up\n");
    connection.send(Kind::Signal, id, &libc::SIGTERM.to_le_bytes());
    let exit = connection.collect(id).exit();
    assert_eq!((exit.code, exit.signal), (128 + libc::SIGTERM, libc::SIGTERM));
}

#[test]
fn a_timeout_kills_and_keeps_what_was_printed() {
    let agent = Agent::start();
    let began = Instant::now();
    let exec = Exec { timeout_ms: Some(200), ..shell("echo early; sleep 60; echo late") };
    let reply = agent.connect().exec(&exec);
    assert_eq!(reply.text(), ("early\n", ""));
    assert_eq!((reply.exit().code, reply.exit().signal), (137, libc::SIGKILL));
    let taken = began.elapsed();
    assert!(taken >= Duration::from_millis(200) && taken < Duration::from_secs(5), "{taken:?}");
}

#[test]
fn a_timeout_fires_though_the_host_does_not_read() {
    let agent = Agent::start();
    let mut connection = agent.connect();
    let id = connection.start(&Exec { timeout_ms: Some(200), ..shell("yes") });
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(connection.collect(id).exit().signal, libc::SIGKILL);
}

#[test]
fn a_slow_host_stops_the_program() {
    let agent = Agent::start();
    let directory = tempfile::tempdir().unwrap();
    let count = directory.path().join("count");
    let text = format!(
        "for n in $(seq 400); do head -c 65536 /dev/zero; echo $n >{}; done",
        count.display()
    );
    let mut connection = agent.connect();
    let id = connection.start(&shell(&text));
    std::thread::sleep(Duration::from_millis(700));
    let reached: u32 = std::fs::read_to_string(&count).unwrap().trim().parse().unwrap();
    assert!(reached < 50, "{reached} of 400 blocks went into somebody's memory");
    assert_eq!(connection.collect(id).stdout.len(), 400 * 65536);
}

#[test]
fn closing_the_connection_kills_the_group() {
    let agent = Agent::start();
    let mut connection = agent.connect();
    connection.start(&shell("sleep 61 & echo $! $$; wait"));
    let printed = String::from_utf8(connection.next_frame().payload).unwrap();
    drop(connection);
    for pid in printed.split_whitespace() {
        let path = format!("/proc/{pid}/stat");
        let until = Instant::now() + Duration::from_secs(5);
        // A zombie is as dead: on this machine PID 1 may not reap.
        while std::fs::read_to_string(&path).is_ok_and(|text| !text.contains(") Z ")) {
            assert!(Instant::now() < until, "{pid} outlives its connection");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_grandchild_that_keeps_the_pipes_does_not_hold_the_exit() {
    let agent = Agent::start();
    let mut connection = agent.connect();
    for text in ["echo out; sleep 5 &", "echo out; yes >&2 &"] {
        let began = Instant::now();
        let id = connection.start(&shell(text));
        let reply = connection.collect(id);
        assert_eq!(reply.stdout, b"out\n");
        assert_eq!(reply.exit().code, 0);
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }
}

#[test]
fn output_right_before_the_end_is_whole() {
    let agent = Agent::start();
    let mut connection = agent.connect();
    for _ in 0..10 {
        let reply =
            connection.exec(&shell("head -c 200000 /dev/zero; head -c 70000 /dev/zero >&2"));
        assert_eq!((reply.stdout.len(), reply.stderr.len()), (200_000, 70_000));
    }
}

#[test]
fn a_life_ahead_of_a_command_is_not_answered() {
    let agent = Agent::start();
    let mut connection = agent.connect();
    let life = Life { epoch: 2, unix_ns: 1, entropy: [7; 32] };
    connection.send(Kind::Life, 1, &life.encode());
    assert_eq!(connection.exec(&shell("echo hi")).text(), ("hi\n", ""));
}

#[test]
fn frames_of_another_life_are_ignored() {
    let agent = Agent::start();
    let mut connection = agent.connect();
    connection.send(Kind::Stdin, 99, b"old");
    connection.send(Kind::Signal, 99, &libc::SIGKILL.to_le_bytes());
    let id = connection.start(&Exec { stdin: true, ..shell("cat") });
    connection.send(Kind::Stdin, id + 1000, b"foreign");
    connection.send(Kind::Signal, id + 1000, &libc::SIGKILL.to_le_bytes());
    connection.send(Kind::Stdin, id, b"mine");
    connection.send(Kind::Stdin, id, &[]);
    assert_eq!(connection.collect(id).text(), ("mine", ""));
}

#[test]
fn commands_run_side_by_side() {
    let agent = Agent::start();
    let began = Instant::now();
    let mut running: Vec<_> = (0..8)
        .map(|_| {
            let mut connection = agent.connect();
            let id = connection.start(&shell("sleep 0.3; echo done"));
            (connection, id)
        })
        .collect();
    for (connection, id) in &mut running {
        assert_eq!(connection.collect(*id).text(), ("done\n", ""));
    }
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
}

#[test]
fn bytes_that_are_no_frames_end_the_connection_alone() {
    let agent = Agent::start();
    let mut broken = agent.connect();
    broken.send_raw(&[0xff; 64]);
    assert!(broken.is_closed());
    let reply: Reply = agent.connect().exec(&shell("echo fine"));
    assert_eq!(reply.text(), ("fine\n", ""));
}

fn on_terminal(text: &str) -> Exec {
    let terminal = Some(TerminalSize { rows: 33, columns: 111 });
    Exec { terminal, stdin: true, ..shell(text) }
}

#[test]
fn a_terminal_has_a_size_and_is_the_programs_own() {
    let agent = Agent::start();
    let reply = agent.connect().exec(&on_terminal(
        "stty size; tty >/dev/null && echo a tty >/dev/tty; echo err >&2; exit 3",
    ));
    assert_eq!(reply.text(), ("33 111\r\na tty\r\nerr\r\n", ""));
    assert_eq!(reply.exit().code, 3);
}

#[test]
fn a_terminal_is_resized_typed_on_and_hung_up() {
    let agent = Agent::start();
    let mut connection = agent.connect();
    let id = connection.start(&on_terminal(
        "stty -echo; trap 'stty size' WINCH; echo up; \
         until read line; do :; done; echo got $line; cat; echo end",
    ));
    assert_eq!(connection.next_frame().payload, b"up\r\n");
    let size = TerminalSize { rows: 5, columns: 6 };
    connection.send(Kind::Resize, id, &size.encode());
    // Shells run a trap between two commands, and a read that it interrupts fails in some of them.
    connection.send(Kind::Stdin, id, b"one\n");
    connection.send(Kind::Stdin, id, &[]);
    let reply = connection.collect(id);
    let (out, _) = reply.text();
    assert!(out.contains("5 6\r\n") && out.contains("got one\r\n"), "{out:?}");
    assert!(out.ends_with("end\r\n"), "{out:?}");
    // Ctrl-C is typed, not sent. What the terminal and then the program say shows that it runs: a
    // shell that is interrupted while it starts a program waits for that program to its end.
    let id = connection.start(&on_terminal("exec cat"));
    connection.send(Kind::Stdin, id, b"hi\n");
    let mut said = Vec::new();
    while said != b"hi\r\nhi\r\n" {
        said.extend(connection.next_frame().payload);
    }
    connection.send(Kind::Stdin, id, &[3]);
    let exit = connection.collect(id).exit();
    assert_eq!(exit.signal, libc::SIGINT);
    // Closing the connection hangs up what runs in the foreground, whatever its group.
    connection.start(&on_terminal("echo $$; sleep 62"));
    let printed = String::from_utf8(connection.next_frame().payload).unwrap();
    drop(connection);
    let path = format!("/proc/{}/stat", printed.trim());
    let until = Instant::now() + Duration::from_secs(5);
    while std::fs::read_to_string(&path).is_ok_and(|text| !text.contains(") Z ")) {
        assert!(Instant::now() < until, "{printed} outlives its terminal");
        std::thread::sleep(Duration::from_millis(5));
    }
}
