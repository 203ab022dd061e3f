//! What becomes of connections when a snapshot is restored.

use std::io::ErrorKind;
use std::pin::pin;

use vmoon_core::units::{Cid, VsockPort};

use super::guest::{Guest, poll, read, shutdown, write};
use crate::device::{Device, RestoreMode};
use crate::state::DeviceState;
use crate::vsock::packet::{Operation, SHUTDOWN_SEND};

fn reset_error(stream: &mut vmoon_core::vsock::VsockStream) {
    assert_eq!(read(stream).unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(write(stream, b"x").unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn idle_connections_live_on_with_their_counters_rewound() {
    let mut guest = Guest::new(8);
    let listener = guest.host.listen(VsockPort(1024)).unwrap();
    let mut stream = guest.dial(&*listener, 7);
    guest.send_data((1024, 7), b"ready", 0);
    assert_eq!(read(&mut stream).unwrap().unwrap(), b"ready");
    write(&mut stream, b"hi").unwrap().unwrap();
    assert_eq!(guest.take_data(), b"hi");
    guest.send_credit((1024, 7), 1000, 2);
    let frozen = guest.freeze();
    for _ in 0..3 {
        // Use up all credit, leave bytes in both directions, and go back.
        write(&mut stream, &[9; 5000]).unwrap().unwrap();
        assert_eq!(guest.take()[0].payload.len(), 1000);
        guest.send_data((1024, 7), b"unread", 500);
        guest.thaw(&frozen, RestoreMode::InPlace);
        assert!(read(&mut stream).is_none());
        assert!(guest.take().is_empty());
        write(&mut stream, b"again").unwrap().unwrap();
        let packets = guest.take();
        assert_eq!((&packets[0].payload[..], packets[0].forwarded), (&b"again"[..], 5));
        guest.send_data((1024, 7), b"answer", 7);
        assert_eq!(read(&mut stream).unwrap().unwrap(), b"answer");
        guest.thaw(&frozen, RestoreMode::InPlace);
    }
}

#[test]
fn a_writer_that_waited_is_woken() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        use tokio::io::AsyncWriteExt;
        let mut guest = Guest::new(8);
        let listener = guest.host.listen(VsockPort(1024)).unwrap();
        let mut stream = guest.dial(&*listener, 7);
        guest.send_credit((1024, 7), 0, 0);
        let frozen = guest.freeze();
        let task = tokio::spawn(async move {
            stream.write_all(&vec![1; 300_000]).await.unwrap();
            stream
        });
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        guest.thaw(&frozen, RestoreMode::InPlace);
        drop(task.await.unwrap());
    });
}

#[test]
fn what_was_not_idle_is_cut_on_both_sides() {
    let mut guest = Guest::new(32);
    let listener = guest.host.listen(VsockPort(1024)).unwrap();
    let mut unread_by_host = guest.dial(&*listener, 1);
    let mut unread_by_guest = guest.dial(&*listener, 2);
    let mut unsent = guest.dial(&*listener, 3);
    let mut half_closed = guest.dial(&*listener, 4);
    let mut idle = guest.dial(&*listener, 5);
    guest.send_data((1024, 1), b"x", 0);
    write(&mut unread_by_guest, b"x").unwrap().unwrap();
    guest.take();
    guest.send_credit((1024, 3), 0, 0);
    write(&mut unsent, b"x").unwrap().unwrap();
    guest.send_flags(Operation::Shutdown, (1024, 4), SHUTDOWN_SEND);
    guest.take();
    let frozen = guest.freeze();
    let mut later = guest.dial(&*listener, 6);
    guest.thaw(&frozen, RestoreMode::InPlace);
    for stream in [&mut unread_by_host, &mut unsent, &mut half_closed, &mut later] {
        reset_error(stream);
    }
    let mut resets: Vec<_> =
        guest.take().into_iter().map(|packet| (packet.operation, packet.guest_port)).collect();
    resets.sort_by_key(|&(_, port)| port);
    assert_eq!(resets, [1, 3, 4].map(|port| (Operation::Reset, port)));
    // What the guest's application has not taken lies in the guest's memory.
    guest.send_data((1024, 2), b"taken", 1);
    assert_eq!(read(&mut unread_by_guest).unwrap().unwrap(), b"taken");
    write(&mut idle, b"fine").unwrap().unwrap();
    assert_eq!(guest.take_data(), b"fine");
    // The listener is still there.
    drop(guest.dial(&*listener, 1));
}

#[test]
fn a_connection_without_its_host_end_is_reset_in_the_guest() {
    let mut guest = Guest::new(8);
    let listener = guest.host.listen(VsockPort(1024)).unwrap();
    let dropped = guest.dial(&*listener, 1);
    let mut closed = guest.dial(&*listener, 2);
    let mut replaced = guest.dial(&*listener, 3);
    let frozen = guest.freeze();
    drop(dropped);
    shutdown(&mut closed);
    guest.send(Operation::Reset, 1024, 3);
    assert_eq!(guest.take().len(), 2);
    // Another connection with the same ports is another connection.
    let mut other = guest.dial(&*listener, 3);
    guest.thaw(&frozen, RestoreMode::InPlace);
    let mut resets: Vec<_> = guest.take().into_iter().map(|packet| packet.guest_port).collect();
    resets.sort_unstable();
    assert_eq!(resets, [1, 2, 3]);
    assert_eq!(read(&mut closed).unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
    reset_error(&mut replaced);
    reset_error(&mut other);
    assert!(guest.device.table.connections.is_empty());
}

#[test]
fn connects_that_wait_are_asked_for_again() {
    let mut guest = Guest::new(8);
    let before = guest.freeze();
    let host = guest.host.clone();
    let mut connecting = pin!(host.connect(VsockPort(9)));
    assert!(poll(connecting.as_mut()).is_none());
    let first = guest.take().pop().unwrap();
    let asked = guest.freeze();
    for frozen in [&asked, &before, &asked] {
        guest.thaw(frozen, RestoreMode::InPlace);
        assert!(poll(connecting.as_mut()).is_none());
        let packets = guest.take();
        let request = packets.last().unwrap();
        assert_eq!(request.operation, Operation::Request);
        assert_ne!(request.host_port, first.host_port);
        if std::ptr::eq(frozen, &raw const asked) {
            // The guest had been asked from another port, which is taken back.
            assert_eq!(
                (packets[0].operation, packets[0].host_port),
                (Operation::Reset, first.host_port)
            );
            guest.send(Operation::Response, first.host_port, 9);
            assert_eq!(guest.take_operations(), [Operation::Reset]);
        }
    }
    guest.thaw(&asked, RestoreMode::InPlace);
    let request = guest.take().pop().unwrap();
    guest.send(Operation::Response, request.host_port, 9);
    let mut stream = poll(connecting.as_mut()).unwrap().unwrap();
    write(&mut stream, b"x").unwrap().unwrap();
    assert_eq!(guest.take_data(), b"x");
}

#[test]
fn packets_under_way_at_the_snapshot_arrive_after_it() {
    let mut guest = Guest::new(8);
    let listener = guest.host.listen(VsockPort(1024)).unwrap();
    let mut stream = guest.dial(&*listener, 7);
    // In the ring, but not taken by the device.
    let header =
        crate::vsock::packet::Header { length: 4, ..Guest::header(Operation::Data, 1024, 7) };
    guest.send_raw(&header, b"late", &[]);
    let frozen = guest.freeze();
    for _ in 0..2 {
        guest.run().unwrap();
        assert_eq!(read(&mut stream).unwrap().unwrap(), b"late");
        guest.thaw(&frozen, RestoreMode::InPlace);
    }
}

#[test]
fn a_fork_gets_host_ends_of_its_own() {
    let mut parent = Guest::new(8);
    let listener = parent.host.listen(VsockPort(1024)).unwrap();
    let mut stream = parent.dial(&*listener, 7);
    parent.send_data((1024, 7), b"up", 0);
    assert_eq!(read(&mut stream).unwrap().unwrap(), b"up");
    let _busy = parent.dial(&*listener, 8);
    parent.send_data((1024, 8), b"not read by the host", 0);
    let mut frozen = parent.freeze();
    frozen.state = serde_json::from_str(&serde_json::to_string(&frozen.state).unwrap()).unwrap();

    let mut fork = Guest::new(8);
    fork.device = crate::vsock::VsockDevice::new(Cid(43), crate::HostWaker::new(|| {}));
    fork.host = fork.device.host();
    fork.thaw(&frozen, RestoreMode::Fresh);
    let mut inherited = fork.host.take_inherited();
    assert!(fork.host.take_inherited().is_empty());
    assert_eq!(inherited.len(), 1);
    let mut heir = inherited.remove(0);
    assert_eq!((heir.id().host, heir.id().guest), (VsockPort(1024), VsockPort(7)));
    assert_eq!(fork.take_operations(), [Operation::Reset]);
    write(&mut heir, b"fork").unwrap().unwrap();
    assert_eq!(fork.take_data(), b"fork");
    fork.send_data((1024, 7), b"answer", 4);
    assert_eq!(read(&mut heir).unwrap().unwrap(), b"answer");
    // The parent is untouched.
    write(&mut stream, b"parent").unwrap().unwrap();
    assert_eq!(parent.take_data(), b"parent");
    // A fork goes back to the snapshot that it came from.
    fork.thaw(&frozen, RestoreMode::InPlace);
    assert_eq!(fork.take_operations(), [Operation::Reset]);
    write(&mut heir, b"once more").unwrap().unwrap();
    assert_eq!(fork.take_data(), b"once more");
}

#[test]
fn a_fork_without_connections_takes_its_own_cid() {
    let parent = Guest::new(8);
    let frozen = parent.freeze();
    let mut fork = Guest::new(8);
    fork.device = crate::vsock::VsockDevice::new(Cid(43), crate::HostWaker::new(|| {}));
    fork.thaw(&frozen, RestoreMode::Fresh);
    fork.run().unwrap();
    let mut cid = [0; 8];
    fork.device.read_config(0, &mut cid);
    assert_eq!(cid, 43_u64.to_le_bytes());
    // The event waits for a buffer, also across a snapshot.
    let waiting = fork.freeze();
    fork.thaw(&waiting, RestoreMode::InPlace);
    assert!(fork.event.add(&fork.memory, &[(0x30_0000, 8, true)]));
    fork.run().unwrap();
    assert_eq!(fork.event.take_used(&fork.memory).map(|(_, written)| written), Some(4));
}

#[test]
fn another_device_s_state_is_refused() {
    let mut guest = Guest::new(0);
    let state = DeviceState::Entropy(crate::entropy::EntropyState {
        version: 1,
        source: crate::entropy::EntropySource::Os,
    });
    assert!(guest.device.restore(&state, RestoreMode::InPlace).is_err());
}
