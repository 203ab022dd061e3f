//! Random bytes, by the protocol of the entropy gathering daemon (EGD), which QEMU speaks: so a
//! deterministic run draws the same bytes every time.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use vmoon_virtio::entropy::EntropyHost;

/// The command for this many bytes, which are waited for.
const READ_BLOCKING: u8 = 2;

/// Answers one request that has arrived.
pub(super) fn serve(socket: &mut UnixStream, source: &EntropyHost) -> io::Result<()> {
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
        let (mut asker, mut server) = UnixStream::pair().unwrap();
        let source = EntropyHost::default();
        let mut draw = |length: u8| {
            asker.write_all(&[READ_BLOCKING, length]).unwrap();
            serve(&mut server, &source).unwrap();
            let mut bytes = vec![0; length.into()];
            asker.read_exact(&mut bytes).unwrap();
            bytes
        };
        let seeded = EntropySource::Seeded { seed: 3, position: 0 };
        source.set(seeded);
        let first = draw(64);
        assert_ne!(first, draw(64));
        source.set(seeded);
        assert_eq!(first, draw(64));
        asker.write_all(&[9, 9]).unwrap();
        assert!(serve(&mut server, &source).is_err());
    }
}
