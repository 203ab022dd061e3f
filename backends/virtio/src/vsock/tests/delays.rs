//! Connections that are slow on purpose.

use std::io::ErrorKind;
use std::pin::pin;
use std::time::{Duration, Instant};

use vmoon_core::faults::{FaultId, VsockEffect, VsockRule};
use vmoon_core::units::VsockPort;

use super::guest::{Guest, now, poll, read, shutdown, write};
use crate::device::RestoreMode;
use crate::vsock::packet::{Operation, SHUTDOWN_SEND};
use crate::vsock::pipe::CAPACITY;

const HOUR: Duration = Duration::from_hours(1);

fn slow(guest: &Guest, port: u32, after: u64, delay: Duration) -> FaultId {
    let id = FaultId::new();
    let effect = VsockEffect::Delay(delay);
    guest.device.faults().insert(id, VsockRule { port: Some(VsockPort(port)), after, effect });
    id
}

#[test]
fn a_slow_connection_holds_both_directions_and_no_other_connection() {
    let mut guest = Guest::new(32);
    let (mut late, ports) = guest.accept(5000);
    let (mut quick, other) = guest.accept(5001);
    let id = slow(&guest, 5000, 0, HOUR);
    write(&mut late, b"one ").unwrap().unwrap();
    write(&mut quick, b"quick").unwrap().unwrap();
    assert_eq!(guest.take_data(), b"quick");
    guest.send_data(ports, b"from ", 0);
    guest.send_data(other, b"at once", 5);
    assert!(read(&mut late).is_none());
    assert_eq!(read(&mut quick).unwrap().unwrap(), b"at once");
    write(&mut late, b"two").unwrap().unwrap();
    guest.send_data(ports, b"the guest", 0);
    guest.run().unwrap();
    assert_eq!(guest.device.faults().active()[0].hits, 4);
    // Without the rule it all arrives, in order.
    guest.device.faults().remove(id);
    assert_eq!(guest.take_data(), b"one two");
    assert_eq!(read(&mut late).unwrap().unwrap(), b"from the guest");
}

#[test]
fn what_is_late_arrives_when_it_is_due_and_the_device_is_woken_for_it() {
    const DELAY: Duration = Duration::from_millis(30);
    let mut guest = Guest::new(32);
    slow(&guest, 5000, 0, DELAY);
    let begun = Instant::now();
    let host = guest.host.clone();
    let mut connecting = pin!(host.connect(VsockPort(5000)));
    assert!(poll(connecting.as_mut()).is_none());
    assert_eq!(guest.take(), []);
    let until = |guest: &mut Guest, begun: Instant, arrived: &mut dyn FnMut(&mut Guest) -> bool| {
        let wakes = guest.wakes();
        while !arrived(guest) {
            assert!(begun.elapsed() < Duration::from_mins(1));
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(begun.elapsed() >= DELAY, "{:?}", begun.elapsed());
        assert!(guest.wakes() > wakes || wakes > 0);
    };
    let mut request = None;
    until(&mut guest, begun, &mut |guest| {
        request = guest.take().pop();
        request.is_some()
    });
    let ports = (request.unwrap().host_port, 5000);
    guest.send(Operation::Response, ports.0, ports.1);
    let mut stream = poll(connecting.as_mut()).unwrap().unwrap();

    let begun = Instant::now();
    write(&mut stream, b"to the guest").unwrap().unwrap();
    guest.send_data(ports, b"to the host", 0);
    guest.send_flags(Operation::Shutdown, ports, SHUTDOWN_SEND);
    let mut heard = Vec::new();
    until(&mut guest, begun, &mut |guest| {
        guest.run().unwrap();
        heard.extend(read(&mut stream).map(Result::unwrap).unwrap_or_default());
        !heard.is_empty()
    });
    assert_eq!(heard, b"to the host");
    assert_eq!(guest.take_data(), b"to the guest");
    assert_eq!(read(&mut stream).unwrap().unwrap(), b"", "the guest's end");
}

#[test]
fn a_writer_has_no_more_room_than_ever() {
    let mut guest = Guest::new(32);
    let (mut stream, ports) = guest.accept(5000);
    slow(&guest, 5000, 0, HOUR);
    let block = vec![7; CAPACITY + 1];
    assert_eq!(write(&mut stream, &block).unwrap().unwrap(), CAPACITY);
    guest.run().unwrap();
    assert!(write(&mut stream, &block).is_none());
    // The guest's credit is used up by what is under way.
    for _ in 0..CAPACITY >> 16 {
        guest.send_data(ports, &block[..1 << 16], 0);
    }
    assert_eq!(guest.take(), []);
    guest.send_data(ports, b"x", 0);
    assert_eq!(guest.take_operations(), [Operation::Reset]);
}

#[test]
fn ends_and_cuts_come_behind_the_bytes_before_them() {
    let mut guest = Guest::new(32);
    let (mut closed, ports) = guest.accept(5000);
    let (mut cut, other) = guest.accept(5000);
    let id = slow(&guest, 5000, 0, HOUR);
    write(&mut closed, b"last").unwrap().unwrap();
    shutdown(&mut closed);
    guest.send_data(ports, b"words", 0);
    guest.send_flags(Operation::Shutdown, ports, SHUTDOWN_SEND);
    guest.send_data(other, b"cut", 0);
    guest.send(Operation::Reset, other.0, other.1);
    assert!(read(&mut closed).is_none() && read(&mut cut).is_none());
    assert_eq!(guest.take(), []);
    guest.device.faults().remove(id);
    assert_eq!(guest.take_operations(), [Operation::Data, Operation::Shutdown]);
    assert_eq!(read(&mut closed).unwrap().unwrap(), b"words");
    assert_eq!(read(&mut closed).unwrap().unwrap(), b"");
    assert_eq!(read(&mut cut).unwrap().unwrap(), b"cut");
    assert_eq!(read(&mut cut).unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn the_guests_own_connections_are_slow_too_and_so_is_what_was_not_sent_yet() {
    let mut guest = Guest::new(1);
    let listener = guest.host.listen(VsockPort(6000)).unwrap();
    let mut early = guest.dial(&*listener, 7);
    let id = slow(&guest, 6000, 0, HOUR);
    write(&mut early, b"written").unwrap().unwrap();
    guest.send(Operation::Request, 6000, 8);
    let _stream = now(listener.accept()).unwrap();
    assert_eq!(guest.take(), []);
    guest.device.faults().remove(id);
    let mut operations = guest.take_operations();
    operations.sort_by_key(|operation| *operation as u16);
    assert_eq!(operations, [Operation::Response, Operation::Data]);
}

#[test]
fn a_rule_that_counts_lets_so_many_bytes_pass_first() {
    let mut guest = Guest::new(32);
    let (mut stream, ports) = guest.accept(5000);
    slow(&guest, 5000, 6, HOUR);
    write(&mut stream, b"five5").unwrap().unwrap();
    assert_eq!(guest.take_data(), b"five5");
    guest.send_data(ports, b"six", 5);
    assert_eq!(read(&mut stream).unwrap().unwrap(), b"six");
    guest.send_data(ports, b"late", 5);
    write(&mut stream, b"late").unwrap().unwrap();
    assert!(read(&mut stream).is_none());
    assert_eq!(guest.take(), []);
}

#[test]
fn a_restore_undoes_a_delay_and_brings_back_that_of_its_snapshot() {
    let mut guest = Guest::new(32);
    let (mut stream, ports) = guest.accept(5000);
    let quick = guest.freeze();
    slow(&guest, 5000, 0, HOUR);
    guest.run().unwrap();
    let slow = guest.freeze();
    write(&mut stream, b"lost").unwrap().unwrap();
    guest.send_data(ports, b"lost", 0);
    guest.thaw(&quick, RestoreMode::InPlace);
    write(&mut stream, b"quick").unwrap().unwrap();
    assert_eq!(guest.take_data(), b"quick");
    guest.send_data(ports, b"too", 5);
    assert_eq!(read(&mut stream).unwrap().unwrap(), b"too");
    guest.thaw(&slow, RestoreMode::InPlace);
    write(&mut stream, b"late").unwrap().unwrap();
    guest.send_data(ports, b"too", 0);
    assert_eq!(guest.take(), []);
    assert!(read(&mut stream).is_none());
    // One that is busy is cut, at once.
    guest.thaw(&slow, RestoreMode::InPlace);
    guest.send_data(ports, b"under way", 0);
    let busy = guest.freeze();
    guest.thaw(&busy, RestoreMode::InPlace);
    assert_eq!(read(&mut stream).unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn who_waits_for_late_bytes_outlives_the_device() {
    let mut guest = Guest::new(32);
    let (mut stream, ports) = guest.accept(5000);
    slow(&guest, 5000, 0, HOUR);
    guest.send_data(ports, b"last", 0);
    assert!(read(&mut stream).is_none());
    drop(guest);
    assert_eq!(read(&mut stream).unwrap().unwrap(), b"last");
    assert_eq!(read(&mut stream).unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
}
