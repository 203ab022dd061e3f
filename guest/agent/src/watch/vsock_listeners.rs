//! Who listens on vsock: Linux has no table of it in `/proc`, but answers by netlink
//! (`NETLINK_SOCK_DIAG`, with the module `vsock_diag`).

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

/// Whether somebody listens on this port. A kernel that cannot tell knows of nobody.
pub(crate) fn listens(port: u32) -> io::Result<bool> {
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
    loop {
        let length = receive(&socket, &mut buffer)?;
        match find(&buffer[..length], port) {
            Found::Yes => return Ok(true),
            Found::End => return Ok(false),
            Found::NotYet => {}
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

/// What a part of the answer says.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Yes,
    NotYet,
    /// The answer is over, or is a refusal.
    End,
}

/// Walks over the messages of one part.
fn find(mut messages: &[u8], port: u32) -> Found {
    while let Some((header, _)) = messages.split_first_chunk::<16>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = i32::from(u16::from_ne_bytes([header[4], header[5]]));
        let Some(message) = messages.get(..length).filter(|message| message.len() >= 16) else {
            return Found::End;
        };
        if kind == libc::NLMSG_DONE || kind == libc::NLMSG_ERROR {
            return Found::End;
        }
        if message.get(PORT_OFFSET..PORT_OFFSET + 4) == Some(&port.to_ne_bytes()) {
            return Found::Yes;
        }
        messages = messages.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    if messages.is_empty() { Found::NotYet } else { Found::End }
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

    #[test]
    fn ports_are_found_in_any_message() {
        let mut answer = message(i32::from(BY_FAMILY), 1024);
        answer.extend(message(i32::from(BY_FAMILY), 5000));
        assert_eq!(find(&answer, 5000), Found::Yes);
        assert_eq!(find(&answer, 5001), Found::NotYet);
        answer.extend(message(libc::NLMSG_DONE, 0));
        assert_eq!(find(&answer, 5001), Found::End);
        assert_eq!(find(&message(libc::NLMSG_ERROR, 5000), 5000), Found::End);
        assert_eq!(find(&answer[..50], 1), Found::End);
        assert_eq!(find(&[], 1), Found::NotYet);
    }

    #[test]
    fn a_kernel_that_cannot_tell_knows_of_nobody() {
        assert!(!listens(u32::MAX - 7).unwrap_or(false));
    }
}
