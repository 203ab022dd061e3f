//! The control connection: lives, shutdown, and a host that forgets the agent.

mod common;

use std::time::Duration;

use common::Agent;
use vmoon_protocol::frame::Kind;
use vmoon_protocol::message::{Failure, Life};

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
