//! A pair of Unix sockets between two threads: what vsock is measured beside.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

/// A peer that sends back what it receives, byte by byte.
#[derive(Debug)]
pub(super) struct Echo(UnixStream);

impl Echo {
    /// Starts the peer's thread, which ends with this end.
    pub(super) fn start() -> io::Result<Self> {
        let (near, mut far) = UnixStream::pair()?;
        thread::Builder::new().name("echo".to_owned()).spawn(move || {
            let mut byte = [0];
            while far.read_exact(&mut byte).is_ok() && far.write_all(&byte).is_ok() {}
        })?;
        Ok(Self(near))
    }

    /// The time of one byte there and back.
    pub(super) fn round_trip(&mut self) -> io::Result<Duration> {
        let begun = Instant::now();
        self.0.write_all(&[1])?;
        self.0.read_exact(&mut [0])?;
        Ok(begun.elapsed())
    }
}

/// The time in which `length` bytes go one way, in pieces of `piece` bytes.
pub(super) fn one_way(length: usize, piece: usize) -> io::Result<Duration> {
    let (mut near, mut far) = UnixStream::pair()?;
    let begun = Instant::now();
    let sender = thread::spawn(move || {
        let data = vec![0; piece];
        let mut left = length;
        while left > 0 {
            let some = left.min(piece);
            near.write_all(&data[..some])?;
            left -= some;
        }
        Ok(())
    });
    let mut buffer = vec![0; piece];
    while far.read(&mut buffer)? > 0 {}
    let time = begun.elapsed();
    sender.join().unwrap_or_else(|_| Err(io::Error::other("the sender died")))?;
    Ok(time)
}
