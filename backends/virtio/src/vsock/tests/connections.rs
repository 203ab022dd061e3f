//! Connections both ways, their bytes, their ends.

use std::io::ErrorKind;
use std::pin::pin;

use vmoon_core::error::Code;
use vmoon_core::units::VsockPort;

use super::guest::{Guest, now, poll, read, shutdown, write};
use crate::vsock::packet::{HEADER_SIZE, Header, Operation, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};
use crate::vsock::pipe::CAPACITY;

#[test]
fn the_guest_dials_and_bytes_flow_both_ways() {
    let mut guest = Guest::new(8);
    let listener = guest.host.listen(VsockPort(1024)).unwrap();
    assert_eq!(guest.host.listen(VsockPort(1024)).unwrap_err().code(), Code::VsockRefused);
    let mut stream = guest.dial(&*listener, 7);
    assert_eq!((stream.id().host, stream.id().guest), (VsockPort(1024), VsockPort(7)));
    assert!(read(&mut stream).is_none());
    guest.send_data((1024, 7), b"hello", 0);
    assert_eq!(read(&mut stream).unwrap().unwrap(), b"hello");
    let wakes = guest.wakes();
    assert_eq!(write(&mut stream, b"welcome").unwrap().unwrap(), 7);
    assert!(guest.wakes() > wakes || wakes > 0);
    let packets = guest.take();
    assert_eq!(packets.len(), 1);
    assert_eq!((packets[0].operation, packets[0].forwarded), (Operation::Data, 5));
    assert_eq!(packets[0].payload, b"welcome");
    drop(listener);
    // A listener's end does not touch who was accepted, and frees the port.
    guest.send_data((1024, 7), b"more", 7);
    assert_eq!(read(&mut stream).unwrap().unwrap(), b"more");
    drop(guest.host.listen(VsockPort(1024)).unwrap());
}

#[test]
fn nobody_listens_in_the_host() {
    let mut guest = Guest::new(8);
    guest.send(Operation::Request, 99, 7);
    assert_eq!(guest.take_operations(), [Operation::Reset]);
}

#[test]
fn the_host_dials_and_is_refused_or_answered() {
    let mut guest = Guest::new(8);
    let (mut stream, ports) = guest.accept(5000);
    write(&mut stream, b"x").unwrap().unwrap();
    assert_eq!(guest.take_data(), b"x");
    let host = guest.host.clone();
    let mut refused = pin!(host.connect(VsockPort(5001)));
    assert!(poll(refused.as_mut()).is_none());
    let request = guest.take().pop().unwrap();
    assert_ne!(request.host_port, ports.0);
    guest.send(Operation::Reset, request.host_port, 5001);
    let error = poll(refused.as_mut()).unwrap().unwrap_err();
    assert_eq!(error.code(), Code::VsockRefused);
}

#[test]
fn a_caller_that_gives_up_is_forgotten() {
    let mut guest = Guest::new(8);
    let host = guest.host.clone();
    // Before the device looked: the guest never hears of it.
    assert!(poll(pin!(host.connect(VsockPort(1)))).is_none());
    assert!(guest.take().is_empty());
    // After the guest was asked: it is told.
    {
        let mut connecting = pin!(host.connect(VsockPort(2)));
        assert!(poll(connecting.as_mut()).is_none());
        assert_eq!(guest.take_operations(), [Operation::Request]);
    }
    assert_eq!(guest.take_operations(), [Operation::Reset]);
    assert!(guest.device.table.connections.is_empty());
}

#[test]
fn a_packet_may_be_cut_anywhere_into_descriptors() {
    let mut guest = Guest::new(8);
    let listener = guest.host.listen(VsockPort(1024)).unwrap();
    let mut stream = guest.dial(&*listener, 7);
    let payload: Vec<u8> = (0..=255).cycle().take(60_000).collect();
    for cuts in [
        &[][..],
        &[1, 43, 44, 45, 50_000],
        &[10, 10, 60_000],
        &[44 + 32_768],
        &[4096, 8192, 20_000],
    ] {
        let header = Header { length: 60_000, ..Guest::header(Operation::Data, 1024, 7) };
        guest.send_raw(&header, &payload, cuts);
        guest.run().unwrap();
        assert_eq!(read(&mut stream).unwrap().unwrap(), payload, "{cuts:?}");
    }
}

#[test]
fn a_slow_host_stops_the_guest_and_gives_credit_when_it_reads() {
    let mut guest = Guest::new(8);
    let listener = guest.host.listen(VsockPort(1024)).unwrap();
    let mut stream = guest.dial(&*listener, 7);
    let chunk = vec![7; CAPACITY / 4];
    for _ in 0..4 {
        guest.send_data((1024, 7), &chunk, 0);
    }
    assert!(guest.take().is_empty());
    assert_eq!(read(&mut stream).unwrap().unwrap().len(), 64 << 10);
    let packets = guest.take();
    assert_eq!(packets.len(), 1);
    assert_eq!((packets[0].operation, packets[0].forwarded), (Operation::CreditUpdate, 64 << 10));
    guest.send_data((1024, 7), &chunk, 0);
    // The guest asks, and is answered.
    guest.send(Operation::CreditRequest, 1024, 7);
    assert_eq!(guest.take_operations(), [Operation::CreditUpdate]);
    // More than it was given credit for ends the connection.
    guest.send_data((1024, 7), b"x", 0);
    assert_eq!(guest.take_operations(), [Operation::Reset]);
    for _ in 0..4 {
        assert_eq!(read(&mut stream).unwrap().unwrap().len(), 64 << 10);
    }
    assert_eq!(read(&mut stream).unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_slow_guest_stops_the_host() {
    let mut guest = Guest::new(8);
    let listener = guest.host.listen(VsockPort(1024)).unwrap();
    let mut stream = guest.dial(&*listener, 7);
    guest.send_credit((1024, 7), 1000, 0);
    let bytes: Vec<u8> = (0..=255).cycle().take(2 * CAPACITY).collect();
    assert_eq!(write(&mut stream, &bytes).unwrap().unwrap(), CAPACITY);
    assert!(write(&mut stream, &bytes).is_none());
    let packets = guest.take();
    assert_eq!(packets[0].payload, bytes[..1000]);
    // Once, however often it is looked at.
    assert_eq!(packets[1].operation, Operation::CreditRequest);
    assert_eq!(packets.len(), 2);
    assert!(guest.take().is_empty());
    guest.send_credit((1024, 7), 1000, 400);
    let packets = guest.take();
    assert_eq!(packets[0].payload, bytes[1000..1400]);
    assert_eq!(write(&mut stream, &bytes[CAPACITY..]).unwrap().unwrap(), 1400);
    guest.send_credit((1024, 7), 1 << 20, 1400);
    assert_eq!(guest.take_data(), bytes[1400..CAPACITY + 1400]);
}

#[test]
fn each_side_closes_its_half() {
    let mut guest = Guest::new(8);
    let listener = guest.host.listen(VsockPort(1024)).unwrap();
    let mut stream = guest.dial(&*listener, 7);
    write(&mut stream, b"last words").unwrap().unwrap();
    shutdown(&mut stream);
    let packets = guest.take();
    assert_eq!(packets[0].payload, b"last words");
    assert_eq!((packets[1].operation, packets[1].flags), (Operation::Shutdown, SHUTDOWN_SEND));
    assert_eq!(write(&mut stream, b"x").unwrap().unwrap_err().kind(), ErrorKind::BrokenPipe);
    guest.send_data((1024, 7), b"reply", 10);
    guest.send_flags(Operation::Shutdown, (1024, 7), SHUTDOWN_SEND);
    assert_eq!(read(&mut stream).unwrap().unwrap(), b"reply");
    assert_eq!(read(&mut stream).unwrap().unwrap(), b"");
    drop(stream);
    let packets = guest.take();
    assert_eq!((packets[0].operation, packets[0].flags), (Operation::Shutdown, 3));
    guest.send(Operation::Reset, 1024, 7);
    assert!(guest.device.table.connections.is_empty());
    assert!(guest.take().is_empty());
}

#[test]
fn a_guest_that_closes_both_halves_is_answered_and_read_to_the_end() {
    let mut guest = Guest::new(8);
    let listener = guest.host.listen(VsockPort(1024)).unwrap();
    let mut stream = guest.dial(&*listener, 7);
    guest.send_data((1024, 7), b"bye", 0);
    guest.send_flags(Operation::Shutdown, (1024, 7), SHUTDOWN_SEND | SHUTDOWN_RECEIVE);
    assert_eq!(guest.take_operations(), [Operation::Reset]);
    assert_eq!(write(&mut stream, b"x").unwrap().unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(read(&mut stream).unwrap().unwrap(), b"bye");
    assert_eq!(read(&mut stream).unwrap().unwrap(), b"");
    drop(stream);
    assert!(guest.take().is_empty());
    // The ports are free again.
    drop(guest.dial(&*listener, 7));
}

#[test]
fn a_dropped_stream_resets_and_a_closed_one_delivers_first() {
    let mut guest = Guest::new(2);
    let listener = guest.host.listen(VsockPort(1024)).unwrap();
    let mut stream = guest.dial(&*listener, 7);
    write(&mut stream, b"lost").unwrap().unwrap();
    drop(stream);
    assert_eq!(guest.take_operations(), [Operation::Reset]);
    let mut stream = guest.dial(&*listener, 8);
    write(&mut stream, &[1; 10_000]).unwrap().unwrap();
    shutdown(&mut stream);
    drop(stream);
    let packets = guest.take();
    let delivered: usize = packets.iter().map(|packet| packet.payload.len()).sum();
    assert_eq!(delivered, 10_000);
    let last = packets.last().unwrap();
    assert_eq!((last.operation, last.flags), (Operation::Shutdown, 3));
    // What the guest still sends to nobody is answered with a reset.
    guest.send_data((1024, 8), b"anybody?", 0);
    assert_eq!(guest.take_operations(), [Operation::Reset]);
    assert!(guest.device.table.connections.is_empty());
}

#[test]
fn thousands_of_connections_share_the_ring() {
    let mut guest = Guest::new(64);
    let listener = guest.host.listen(VsockPort(1024)).unwrap();
    let mut streams: Vec<_> = (0..3000).map(|port| guest.dial(&*listener, port)).collect();
    for stream in &mut streams {
        let port = stream.id().guest.0;
        write(stream, &port.to_le_bytes()).unwrap().unwrap();
    }
    let packets = guest.take();
    assert_eq!(packets.len(), 3000);
    for packet in packets {
        assert_eq!(packet.payload, packet.guest_port.to_le_bytes());
        guest.send_data((1024, packet.guest_port), &packet.payload, 4);
    }
    for stream in &mut streams {
        assert_eq!(read(stream).unwrap().unwrap(), stream.id().guest.0.to_le_bytes());
    }
    drop(streams);
    assert_eq!(guest.take().len(), 3000);
    assert!(guest.device.table.connections.is_empty());
}

#[test]
fn a_reset_of_the_driver_cuts_what_it_knew_and_keeps_what_the_host_waits_for() {
    let mut guest = Guest::new(8);
    let listener = guest.host.listen(VsockPort(1024)).unwrap();
    let mut stream = guest.dial(&*listener, 7);
    guest.send_data((1024, 7), b"before", 0);
    let host = guest.host.clone();
    let mut connecting = pin!(host.connect(VsockPort(9)));
    assert!(poll(connecting.as_mut()).is_none());
    assert_eq!(guest.take_operations(), [Operation::Request]);
    crate::device::Device::reset(&mut guest.device);
    assert_eq!(read(&mut stream).unwrap().unwrap(), b"before");
    assert_eq!(read(&mut stream).unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(poll(connecting.as_mut()).is_none());
    let request = guest.take().pop().unwrap();
    guest.send(Operation::Response, request.host_port, 9);
    let _connected = poll(connecting.as_mut()).unwrap().unwrap();
    drop(guest.dial(&*listener, 7));
}

#[test]
fn the_end_of_the_machine_reaches_everybody() {
    let mut guest = Guest::new(8);
    let listener = guest.host.listen(VsockPort(1024)).unwrap();
    let mut stream = guest.dial(&*listener, 7);
    let host = guest.host.clone();
    let mut connecting = pin!(host.connect(VsockPort(9)));
    assert!(poll(connecting.as_mut()).is_none());
    drop(guest);
    assert_eq!(poll(connecting.as_mut()).unwrap().unwrap_err().code(), Code::VsockReset);
    assert_eq!(now(listener.accept()).unwrap_err().code(), Code::VsockReset);
    assert_eq!(read(&mut stream).unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(now(host.connect(VsockPort(1))).unwrap_err().code(), Code::VsockReset);
    assert!(host.listen(VsockPort(1)).is_err());
}

#[test]
fn tasks_are_woken() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut guest = Guest::new(64);
        let listener = guest.host.listen(VsockPort(1024)).unwrap();
        let task = tokio::spawn(async move {
            let mut stream = listener.accept().await.unwrap();
            let mut bytes = vec![0; 600_000];
            stream.read_exact(&mut bytes).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            stream.shutdown().await.unwrap();
            assert_eq!(stream.read(&mut bytes).await.unwrap(), 0);
        });
        guest.send(Operation::Request, 1024, 7);
        let payload: Vec<u8> = (0..=250).cycle().take(600_000).collect();
        let (mut sent, mut credit, mut echoed) = (0, CAPACITY, Vec::new());
        let mut over = false;
        while !over {
            tokio::task::yield_now().await;
            let count = 30_000.min(credit - sent).min(payload.len() - sent);
            let forwarded = u32::try_from(echoed.len()).unwrap();
            if count > 0 {
                guest.send_data((1024, 7), &payload[sent..sent + count], forwarded);
                sent += count;
            } else {
                guest.send_credit((1024, 7), 100_000, forwarded);
            }
            for packet in guest.take() {
                credit = packet.forwarded as usize + CAPACITY;
                over |= packet.operation == Operation::Shutdown;
                echoed.extend(packet.payload);
            }
        }
        assert_eq!(echoed, payload);
        guest.send_flags(Operation::Shutdown, (1024, 7), SHUTDOWN_SEND);
        task.await.unwrap();
    });
    assert_eq!(HEADER_SIZE, 44);
}
