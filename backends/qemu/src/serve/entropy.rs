//! Random bytes, by the protocol of the entropy gathering daemon (EGD), which QEMU speaks: so a
//! deterministic run draws the same bytes every time.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::net::{RecvFlags, recv};
use vmoon_virtio::entropy::EntropyHost;

/// The command for this many bytes, which are waited for.
const READ_BLOCKING: u8 = 2;

/// Where QEMU asks for entropy, and where that comes from.
#[derive(Debug)]
pub(crate) struct EntropyServer {
    socket: Mutex<UnixStream>,
    source: EntropyHost,
}

impl EntropyServer {
    pub(crate) const fn new(socket: UnixStream, source: EntropyHost) -> Self {
        Self { socket: Mutex::new(socket), source }
    }

    fn socket(&self) -> MutexGuard<'_, UnixStream> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers all requests that have arrived. When this returns, whoever calls, none of them is
    /// half answered.
    ///
    /// # Errors
    /// When QEMU has closed its end, or asks for what there is not.
    pub(super) fn serve(&self) -> io::Result<()> {
        let socket = &mut *self.socket();
        let mut ahead = [0; 1];
        loop {
            match recv(&mut *socket, &mut ahead[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => answer(socket, &self.source)?,
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsRawFd for EntropyServer {
    fn as_raw_fd(&self) -> RawFd {
        self.socket().as_raw_fd()
    }
}

fn answer(socket: &mut UnixStream, source: &EntropyHost) -> io::Result<()> {
    let mut request = [0; 2];
    socket.read_exact(&mut request)?;
    let [command, length] = request;
    if command != READ_BLOCKING {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length.into()];
    source.fill(&mut bytes)?;
    socket.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use vmoon_virtio::entropy::EntropySource;

    use super::*;

    #[test]
    fn requests_are_answered_from_the_source() {
        let (mut asker, socket) = UnixStream::pair().unwrap();
        let source = EntropyHost::default();
        let server = EntropyServer::new(socket, source.clone());
        let mut draw = |lengths: &[u8]| {
            for length in lengths {
                asker.write_all(&[READ_BLOCKING, *length]).unwrap();
            }
            // All that have arrived, at once.
            server.serve().unwrap();
            let mut bytes = vec![0; lengths.iter().map(|length| usize::from(*length)).sum()];
            asker.read_exact(&mut bytes).unwrap();
            bytes
        };
        let seeded = EntropySource::Seeded { seed: 3, position: 0 };
        source.set(seeded);
        let first = draw(&[64]);
        assert_ne!(first, draw(&[64]));
        source.set(seeded);
        assert_eq!(draw(&[24, 40]), first);
        assert!(draw(&[]).is_empty());
        asker.write_all(&[9, 9]).unwrap();
        assert!(server.serve().is_err());
    }

    #[test]
    fn an_asker_that_is_gone_is_noticed() {
        let (asker, socket) = UnixStream::pair().unwrap();
        let server = EntropyServer::new(socket, EntropyHost::default());
        drop(asker);
        assert_eq!(server.serve().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
