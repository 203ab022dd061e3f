//! Waits: announced when they come true, and until then with what is seen instead.

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::Agent;
use vmoon_protocol::frame::Kind;
use vmoon_protocol::message::Failure;
use vmoon_protocol::watch::{Process, Unit, Watch};

const DONE: u16 = Kind::Done as u16;

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

#[test]
fn a_port_is_announced_when_somebody_listens() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(listener) = TcpListener::bind(address) else {
            assert!(address.starts_with('['), "only IPv6 may be missing");
            continue;
        };
        let mut agent = Agent::start();
        let port = listener.local_addr().unwrap().port();
        agent.control.send(Kind::Watch, 1, &Watch::Port(port.into()).encode());
        assert_eq!(agent.control.next_frame().kind, DONE, "it is true at once");
        let address = listener.local_addr().unwrap();
        drop(listener);
        let seen = agent.control.watch(2, &Watch::Port(port.into()));
        assert!(seen.contains("nobody listens"), "{seen}");
        let _listener = TcpListener::bind(address).unwrap();
        assert_eq!(agent.control.answer(2).kind, DONE);
    }
}

#[test]
fn a_file_is_announced_though_its_directories_come_later() {
    let mut agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/file");
    let watch = Watch::File(bytes(&path));
    let seen = agent.control.watch(1, &watch);
    assert_eq!(seen, format!("{} does not exist", folder.path().join("a").display()));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    // Each step that comes nearer may be told.
    while !agent.control.is_silent(Duration::from_millis(50)) {}
    fs::write(&path, "").unwrap();
    assert_eq!(agent.control.answer(1).kind, DONE);
    agent.control.send(Kind::Watch, 2, &watch.encode());
    assert_eq!(agent.control.next_frame().kind, DONE, "it exists already");
}

#[test]
fn a_file_is_announced_behind_a_link_that_led_nowhere() {
    let mut agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink("target/file", &link).unwrap();
    agent.control.watch(1, &Watch::File(bytes(&link)));
    fs::create_dir(folder.path().join("target")).unwrap();
    fs::write(folder.path().join("target/file"), "").unwrap();
    assert_eq!(agent.control.answer(1).kind, DONE);
}

#[test]
fn a_file_is_gone_with_itself_and_with_its_directory() {
    let mut agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/file");
    let watch = Watch::Gone(bytes(&path));
    for end in [0, 1] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "hello").unwrap();
        assert_eq!(agent.control.watch(end, &watch), "there is still a file of 5 bytes");
        if end == 0 {
            fs::remove_file(&path).unwrap();
        } else {
            fs::rename(folder.path().join("a"), folder.path().join("b")).unwrap();
        }
        assert_eq!(agent.control.answer(end).kind, DONE);
    }
}

#[test]
fn a_socket_is_announced_once_it_takes_what_is_sent() {
    let mut agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a socket");
    let watch = Watch::Socket(bytes(&path));
    fs::write(&path, "hello").unwrap();
    assert_eq!(agent.control.watch(1, &watch), "it is a file of 5 bytes");
    fs::remove_file(&path).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    assert_eq!(agent.control.answer(1).kind, DONE);
    // The file stays, and leads nowhere.
    drop(listener);
    assert!(agent.control.watch(2, &watch).contains("nobody listens"));
    fs::remove_file(&path).unwrap();
    let _datagrams = UnixDatagram::bind(&path).unwrap();
    assert_eq!(agent.control.answer(2).kind, DONE);
}

#[test]
fn the_end_of_a_process_is_announced() {
    let mut agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    // A name that no other process has.
    let program = folder.path().join("vmoon-sleeper");
    fs::copy("/bin/sleep", &program).unwrap();
    let mut one = Command::new(&program).arg("1000").spawn().unwrap();
    let mut other = Command::new(&program).arg("1000").spawn().unwrap();
    let seen = agent.control.watch(1, &Watch::Exit(Process::Id(one.id())));
    assert_eq!(seen, format!("process {} (vmoon-sleeper) runs", one.id()));
    let all = Watch::Exit(Process::Name(b"vmoon-sleeper".to_vec()));
    assert!(agent.control.watch(2, &all).starts_with("2 processes run: "));
    one.kill().unwrap();
    let frames = [agent.control.next_frame(), agent.control.next_frame()];
    assert!(frames.iter().any(|frame| (frame.kind, frame.id) == (DONE, 1)), "{frames:?}");
    assert!(frames.iter().any(|frame| frame.id == 2 && frame.kind != DONE), "{frames:?}");
    other.kill().unwrap();
    assert_eq!(agent.control.answer(2).kind, DONE);
    for mut child in [one, other] {
        child.wait().unwrap();
    }
    agent.control.send(Kind::Watch, 3, &all.encode());
    assert_eq!(agent.control.next_frame().kind, DONE, "there is none");
}

#[test]
fn what_the_guest_declares_is_announced_and_stays() {
    let mut agent = Agent::start();
    let directory = agent.directory().to_owned();
    let declare = |name: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmoon-agent"));
        command.args(["ready", "--unix"]).arg(&directory).arg(name).status().unwrap()
    };
    assert!(declare("cache").success());
    assert!(!declare("a/b").success());
    let watch = Watch::Ready("db".to_owned());
    agent.control.send(Kind::Watch, 1, &watch.encode());
    let seen = agent.control.next_frame();
    assert_eq!(seen.payload, b"the guest has declared cache");
    assert!(declare("db").success());
    assert_eq!(agent.control.answer(1).kind, DONE);
    agent.control.send(Kind::Watch, 2, &watch.encode());
    assert_eq!(agent.control.next_frame().kind, DONE, "it stays declared");
}

#[test]
fn a_wait_that_is_given_up_is_not_answered() {
    let mut agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    agent.control.watch(1, &Watch::File(bytes(&path)));
    agent.control.send(Kind::Unwatch, 1, &[]);
    assert!(agent.control.is_silent(Duration::from_millis(50)));
    fs::write(&path, "").unwrap();
    assert!(agent.control.is_silent(Duration::from_millis(100)));
}

#[test]
fn what_cannot_be_awaited_is_an_error() {
    let mut agent = Agent::start();
    agent.control.send(Kind::Watch, 1, &[99, 1, 2]);
    let frame = agent.control.next_frame();
    assert_eq!(Failure::decode(&frame.payload).code, "backend.unsupported");
    let unit = Watch::Unit(Unit { name: "ssh".to_owned(), state: Unit::ACTIVE.to_owned() });
    if !std::path::Path::new("/run/systemd/system").exists() {
        agent.control.send(Kind::Watch, 2, &unit.encode());
        let failure = Failure::decode(&agent.control.next_frame().payload);
        assert_eq!(failure.code, "backend.unsupported");
        assert!(failure.message.contains("systemd"), "{failure:?}");
    }
}
