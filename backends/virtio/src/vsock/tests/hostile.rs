//! Guests that break the rules of packets are answered with resets; guests that break the rules
//! of rings lose the device.

use vmoon_core::units::{Cid, VsockPort};

use super::guest::{Guest, read};
use crate::device::DeviceError;
use crate::vsock::packet::{HEADER_SIZE, Header, Operation};
use crate::vsock::table::MAX_RESETS;

#[test]
fn malformed_packets_are_reset() {
    let mut guest = Guest::new(8);
    let listener = guest.host.listen(VsockPort(1024)).unwrap();
    let request = Guest::header(Operation::Request, 1024, 7);
    for wrong in [
        Header { destination_cid: Cid(5), ..request },
        Header { kind: 2, ..request },
        Header { operation: None, ..request },
        Header { operation: Some(Operation::Data), ..request },
        Header { operation: Some(Operation::Response), ..request },
        Header { operation: Some(Operation::Shutdown), ..request },
    ] {
        guest.send_raw(&wrong, &[], &[]);
        guest.run().unwrap();
        assert_eq!(guest.take_operations(), [Operation::Reset], "{wrong:?}");
    }
    // A reset is not answered, and neither is who is not the guest.
    guest.send(Operation::Reset, 1024, 7);
    guest.send_raw(&Header { source_cid: Cid(9), ..request }, &[], &[]);
    assert!(guest.take().is_empty());
    drop(listener);
}

#[test]
fn illegal_packets_end_their_connection_only() {
    let mut guest = Guest::new(8);
    let listener = guest.host.listen(VsockPort(1024)).unwrap();
    let mut bystander = guest.dial(&*listener, 1);
    for operation in [Operation::Request, Operation::Response, Operation::Data] {
        let mut stream = guest.dial(&*listener, 7);
        // Data that says it is longer than it is.
        let header = Header { length: 10, ..Guest::header(operation, 1024, 7) };
        guest.send_raw(&header, b"short", &[]);
        assert_eq!(guest.take_operations(), [Operation::Reset], "{operation:?}");
        assert!(read(&mut stream).unwrap().is_err());
    }
    let mut stream = guest.dial(&*listener, 8);
    guest.send_flags(Operation::Shutdown, (1024, 8), 2);
    guest.send_data((1024, 8), b"more after the end", 0);
    assert_eq!(guest.take_operations(), [Operation::Reset]);
    assert_eq!(read(&mut stream).unwrap().unwrap(), b"");
    guest.send_data((1024, 1), b"fine", 0);
    assert_eq!(read(&mut bystander).unwrap().unwrap(), b"fine");
}

#[test]
fn bad_buffers_break_the_device() {
    let mut guest = Guest::new(0);
    let listener = guest.host.listen(VsockPort(1024)).unwrap();
    guest.transmit.add(&guest.memory, &[(0x20_0000, 43, false)]);
    assert!(matches!(guest.run(), Err(DeviceError::Request { queue: 1, .. })));

    let mut guest = Guest::with_buffers(1, 43);
    guest.send_raw(&Guest::header(Operation::Request, 9, 9), &[], &[]);
    assert!(matches!(guest.run(), Err(DeviceError::Request { queue: 0, .. })));

    // Room for a header, but never for data.
    let mut guest = Guest::with_buffers(4, 44);
    let listener_two = guest.host.listen(VsockPort(1024)).unwrap();
    let mut stream = guest.dial(&*listener_two, 7);
    super::guest::write(&mut stream, b"x").unwrap().unwrap();
    assert!(matches!(guest.run(), Err(DeviceError::Request { queue: 0, .. })));
    drop(listener);
}

#[test]
fn a_guest_that_takes_nothing_is_not_listened_to() {
    let mut guest = Guest::new(0);
    let request = Guest::header(Operation::Request, 9, 9);
    let mut sent = 0;
    for _ in 0..MAX_RESETS + 200 {
        guest.send_raw(&request, &[], &[HEADER_SIZE]);
        sent += 1;
        guest.run().unwrap();
        if guest.device.stalled {
            break;
        }
    }
    assert!(guest.device.stalled);
    for _ in 0..50 {
        guest.send_raw(&request, &[], &[HEADER_SIZE]);
        sent += 1;
        guest.run().unwrap();
    }
    assert_eq!(guest.device.table.resets.len(), MAX_RESETS);
    // It takes its answers, and all that it sent is answered.
    for _ in 0..16 {
        guest.add_buffer();
    }
    let answers = guest.take_operations();
    assert_eq!(answers.len(), sent);
    assert!(!guest.device.stalled);
}

#[test]
fn connections_wait_to_be_accepted_in_bounded_numbers() {
    let mut guest = Guest::new(64);
    let listener = guest.host.listen(VsockPort(1024)).unwrap();
    let mut refused = 0;
    for port in 0..600 {
        guest.send(Operation::Request, 1024, port);
        refused += guest.take_operations().iter().filter(|&&it| it == Operation::Reset).count();
    }
    assert_eq!(refused, 600 - 512);
    // Who gave up makes room.
    guest.send(Operation::Reset, 1024, 0);
    guest.send(Operation::Request, 1024, 1000);
    assert_eq!(guest.take_operations(), [Operation::Response]);
    // The listener's end resets all that nobody accepted.
    drop(listener);
    assert_eq!(guest.take().len(), 512);
}
