//! The control connection: lives, waits, shutdown, and a host that forgets the agent.

mod common;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use common::Agent;
use vmoon_protocol::frame::Kind;
use vmoon_protocol::message::{Failure, Life, Watch};

#[test]
fn a_life_is_confirmed_with_its_epoch() {
    let mut agent = Agent::start();
    let life = Life { epoch: 5, unix_ns: 1, entropy: [7; 32] };
    agent.control.send(Kind::Life, 3, &life.encode());
    let frame = agent.control.next_frame();
    assert_eq!((frame.kind, frame.id), (Kind::LifeDone as u16, 3));
    assert_eq!(frame.payload, 5_u64.to_le_bytes());
    agent.control.send(Kind::Life, 4, b"short");
    let frame = agent.control.next_frame();
    assert_eq!((frame.kind, frame.id), (Kind::Error as u16, 4));
    assert_eq!(Failure::decode(&frame.payload).code, "snapshot.entropy");
}

#[test]
fn a_port_is_announced_when_somebody_listens() {
    let mut agent = Agent::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    agent.control.send(Kind::Watch, 1, &Watch::Port(port).encode());
    assert_eq!(agent.control.next_frame().id, 1);
    drop(listener);
    agent.control.send(Kind::Watch, 2, &Watch::Port(port).encode());
    assert!(agent.control.is_silent(Duration::from_millis(100)));
    let _listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let frame = agent.control.next_frame();
    assert_eq!((frame.kind, frame.id), (Kind::Done as u16, 2));
}

#[test]
fn a_file_is_announced_though_its_directories_come_later() {
    let mut agent = Agent::start();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b/file");
    let watch = Watch::File(path.as_os_str().as_encoded_bytes().to_vec());
    agent.control.send(Kind::Watch, 1, &watch.encode());
    assert!(agent.control.is_silent(Duration::from_millis(50)));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    assert!(agent.control.is_silent(Duration::from_millis(50)));
    let began = Instant::now();
    std::fs::write(&path, "").unwrap();
    assert_eq!(agent.control.next_frame().id, 1);
    assert!(began.elapsed() < Duration::from_millis(200), "inotify, not the look every 250 ms");
    agent.control.send(Kind::Watch, 2, &watch.encode());
    assert_eq!(agent.control.next_frame().id, 2, "it exists already");
}

#[test]
fn a_wait_that_is_given_up_is_not_answered() {
    let mut agent = Agent::start();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let watch = Watch::File(path.as_os_str().as_encoded_bytes().to_vec());
    agent.control.send(Kind::Watch, 1, &watch.encode());
    agent.control.send(Kind::Unwatch, 1, &[]);
    assert!(agent.control.is_silent(Duration::from_millis(50)));
    std::fs::write(&path, "").unwrap();
    assert!(agent.control.is_silent(Duration::from_millis(100)));
}

#[test]
fn what_cannot_be_awaited_is_an_error() {
    let mut agent = Agent::start();
    agent.control.send(Kind::Watch, 1, &[99, 1, 2]);
    let frame = agent.control.next_frame();
    assert_eq!(Failure::decode(&frame.payload).code, "backend.unsupported");
    if !std::path::Path::new("/run/systemd/system").exists() {
        agent.control.send(Kind::Watch, 2, &Watch::Unit("ssh.service".to_owned()).encode());
        let failure = Failure::decode(&agent.control.next_frame().payload);
        assert_eq!(failure.code, "backend.unsupported");
        assert!(failure.message.contains("systemd"), "{failure:?}");
    }
}

#[test]
fn a_host_that_drops_the_connection_is_dialled_again() {
    let mut agent = Agent::start();
    for _ in 0..3 {
        agent.drop_control_and_wait_ready();
    }
    let life = Life { epoch: 9, unix_ns: 1, entropy: [7; 32] };
    agent.control.send(Kind::Life, 1, &life.encode());
    assert_eq!(agent.control.next_frame().kind, Kind::LifeDone as u16);
}

#[test]
fn shutdown_is_confirmed() {
    let mut agent = Agent::start();
    agent.control.send(Kind::Shutdown, 8, &[0]);
    let frame = agent.control.next_frame();
    assert_eq!((frame.kind, frame.id), (Kind::Done as u16, 8));
    assert!(agent.has_ended(Duration::from_secs(5)));
}
