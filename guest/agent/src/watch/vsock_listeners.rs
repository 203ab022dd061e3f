//! Who listens on vsock: Linux has no table of it in `/proc`, but answers by netlink
//! (`NETLINK_SOCK_DIAG`, with the module `vsock_diag`).

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::sys;

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// The state of a socket that listens, one bit each in a request (`TCP_LISTEN`).
const LISTEN: u32 = 10;

/// A netlink header and a `vsock_diag_req`, in the order and sizes of the kernel's structures.
const REQUEST_LENGTH: usize = 16 + 24;
/// Where `vsock_diag_msg` has its source port, behind a netlink header of 16 bytes: family, type,
/// state and shutdown take a byte each, the source CID four.
const PORT_OFFSET: usize = 16 + 8;

/// The ports on which somebody listens.
///
/// # Errors
/// Where the kernel cannot tell: it lacks `vsock_diag`.
pub(super) fn ports() -> io::Result<BTreeSet<u32>> {
    // SAFETY: the call takes plain numbers.
    let socket = sys::owned(unsafe {
        libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_DGRAM | libc::SOCK_CLOEXEC,
            libc::NETLINK_SOCK_DIAG,
        )
    })?;
    send(&socket)?;
    let mut buffer = [0; 16 << 10];
    let mut ports = BTreeSet::new();
    loop {
        let length = receive(&socket, &mut buffer)?;
        if collect(&buffer[..length], &mut ports) {
            return Ok(ports);
        }
    }
}

fn request() -> [u8; REQUEST_LENGTH] {
    let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_DUMP).unwrap_or_default();
    let mut bytes = [0; REQUEST_LENGTH];
    bytes[0..4].copy_from_slice(&40_u32.to_ne_bytes());
    bytes[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    bytes[16] = u8::try_from(libc::AF_VSOCK).unwrap_or_default();
    bytes[20..24].copy_from_slice(&(1_u32 << LISTEN).to_ne_bytes());
    bytes
}

fn send(socket: &OwnedFd) -> io::Result<()> {
    let bytes = request();
    // SAFETY: the buffer outlives the call, which reads as many bytes as it has.
    let sent = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    sys::retry(|| {
        // SAFETY: the buffer outlives the call, which writes at most as many bytes as it has.
        let length =
            unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        usize::try_from(length).map_err(|_| io::Error::last_os_error())
    })
}

/// Collects the ports of one part of the answer; whether the answer is over, or is a refusal.
fn collect(mut messages: &[u8], ports: &mut BTreeSet<u32>) -> bool {
    while let Some((header, _)) = messages.split_first_chunk::<16>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = i32::from(u16::from_ne_bytes([header[4], header[5]]));
        let Some(message) = messages.get(..length).filter(|message| message.len() >= 16) else {
            return true;
        };
        if kind == libc::NLMSG_DONE || kind == libc::NLMSG_ERROR {
            return true;
        }
        if let Some(&[a, b, c, d]) = message.get(PORT_OFFSET..PORT_OFFSET + 4) {
            ports.insert(u32::from_ne_bytes([a, b, c, d]));
        }
        messages = messages.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    !messages.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: i32, port: u32) -> Vec<u8> {
        let mut bytes = vec![0; 44];
        bytes[0..4].copy_from_slice(&44_u32.to_ne_bytes());
        bytes[4..6].copy_from_slice(&u16::try_from(kind).unwrap().to_ne_bytes());
        bytes[24..28].copy_from_slice(&port.to_ne_bytes());
        bytes
    }

    fn collected(answer: &[u8]) -> (Vec<u32>, bool) {
        let mut ports = BTreeSet::new();
        let over = collect(answer, &mut ports);
        (ports.into_iter().collect(), over)
    }

    #[test]
    fn ports_are_found_in_any_message() {
        let mut answer = message(i32::from(BY_FAMILY), 1024);
        answer.extend(message(i32::from(BY_FAMILY), 5000));
        assert_eq!(collected(&answer), (vec![1024, 5000], false));
        assert_eq!(collected(&answer[..50]), (vec![1024], true));
        answer.extend(message(libc::NLMSG_DONE, 0));
        assert_eq!(collected(&answer), (vec![1024, 5000], true));
        assert_eq!(collected(&message(libc::NLMSG_ERROR, 5000)), (vec![], true));
        assert_eq!(collected(&[]), (vec![], false));
    }

    #[test]
    fn a_kernel_that_cannot_tell_knows_of_nobody() {
        assert!(!ports().unwrap_or_default().contains(&(u32::MAX - 7)));
    }
}
