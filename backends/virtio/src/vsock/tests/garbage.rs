//! Whatever a guest puts into its rings and packets, the host stays whole.

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};
use vmoon_core::units::{Cid, VsockPort};

use super::guest::{GUEST_CID, Guest, write};
use crate::device::{Device, RestoreMode};
use crate::ring::driver::RAM;
use crate::vsock::packet::Header;

proptest! {
    #[test]
    fn any_packets_do_no_harm(
        packets in prop::collection::vec(
            (0_u32..4, 0_u32..4, 0_u16..10, any::<u32>(), 0_u32..3, prop_oneof![Just(0_u32), 0..5000_u32, any::<u32>()], 0_usize..5000, any::<bool>()),
            0..60),
    ) {
        let mut guest = Guest::new(8);
        let listeners = [0, 1].map(|port| guest.host.listen(VsockPort(port)).unwrap());
        let mut streams = Vec::new();
        let frozen = guest.freeze();
        for (host_port, guest_port, operation, buffer, flags, length, actual, odd) in packets {
            let mut bytes = Header {
                source_cid: GUEST_CID,
                destination_cid: if odd && flags == 0 { Cid(length.into()) } else { Cid::HOST },
                source_port: guest_port,
                destination_port: host_port,
                length,
                kind: if odd { 2 } else { 1 },
                operation: None,
                flags,
                buffer,
                forwarded: buffer ^ length,
            };
            bytes.kind = 1;
            let mut encoded = bytes.encode();
            encoded[30..32].copy_from_slice(&operation.to_le_bytes());
            let header = Header::decode(&encoded);
            guest.send_raw(&header, &vec![5; actual], &[actual / 2]);
            guest.run().unwrap();
            for listener in &listeners {
                if let Some(Ok(stream)) = super::guest::poll(std::pin::pin!(listener.accept())) {
                    streams.push(stream);
                }
            }
            for stream in &mut streams {
                let _ = write(stream, &[1; 100]);
                if odd {
                    let _ = super::guest::read(stream);
                }
            }
            if length == 7 {
                streams.pop();
            }
            if length == 8 {
                guest.thaw(&frozen, RestoreMode::InPlace);
            }
            guest.take();
            prop_assert!(guest.device.table.connections.len() <= 16);
        }
    }

    #[test]
    fn any_rings_do_no_harm(
        table in prop::collection::vec(
            (0..RAM + 0x2000, prop_oneof![0_u32..200, any::<u32>()], 0_u16..8, 0_u16..18), 16),
        heads in prop::collection::vec((0_usize..3, 0_u16..20), 1..30),
        noise in prop::collection::vec(any::<u8>(), 2048),
    ) {
        let mut guest = Guest::new(0);
        let listener = guest.host.listen(VsockPort(0)).unwrap();
        guest.memory.write_slice(&noise, GuestAddress(0x20_0000)).unwrap();
        for (queue, head) in heads {
            for (index, &fields) in table.iter().enumerate() {
                let index = u16::try_from(index).unwrap();
                let queue = [&guest.receive, &guest.transmit, &guest.event][queue];
                queue.write_descriptor(&guest.memory, index, fields);
            }
            let queues = [&mut guest.receive, &mut guest.transmit, &mut guest.event];
            queues.into_iter().nth(queue).unwrap().offer(&guest.memory, head);
            if guest.run().is_err() {
                guest.device.reset();
                break;
            }
        }
        drop(listener);
    }
}
