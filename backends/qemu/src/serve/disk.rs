//! A disk, by the network block device protocol (NBD, doc/proto.md): the overlay in memory that
//! belongs to snapshots is this process's, and QEMU holds nothing of the disk.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

use vmoon_virtio::block::Disk;

const SECTOR: u64 = 512;

const GREETING: &[u8; 16] = b"NBDMAGICIHAVEOPT";
const FIXED_NEWSTYLE: u16 = 1;
const NO_ZEROES: u16 = 2;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const OPTION_GO: u32 = 7;
const OPTION_ABORT: u32 = 2;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_UNSUPPORTED: u32 = 0x8000_0001;
const INFO_EXPORT: u16 = 0;
const LONGEST_OPTION: u32 = 4096;

const HAS_FLAGS: u16 = 1;
const READ_ONLY: u16 = 2;
const SEND_FLUSH: u16 = 4;

const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
/// What QEMU asks for at once at most.
const LONGEST_REQUEST: u32 = 32 << 20;

/// One disk on its socket.
#[derive(Debug)]
pub(super) struct Server<'a> {
    disk: &'a Mutex<Disk>,
    ready: bool,
}

impl<'a> Server<'a> {
    /// Greets the client.
    pub(super) fn new(disk: &'a Mutex<Disk>, socket: &mut UnixStream) -> io::Result<Self> {
        socket.write_all(GREETING)?;
        socket.write_all(&(FIXED_NEWSTYLE | NO_ZEROES).to_be_bytes())?;
        Ok(Self { disk, ready: false })
    }

    /// Serves what has begun to arrive: the client's options, or one request.
    pub(super) fn serve(&mut self, socket: &mut UnixStream) -> io::Result<()> {
        if self.ready {
            return self.request(socket);
        }
        read::<4>(socket)?; // The client's flags.
        while !self.option(socket)? {}
        self.ready = true;
        Ok(())
    }

    /// Answers an option; whether transmission begins.
    fn option(&self, socket: &mut UnixStream) -> io::Result<bool> {
        if u64::from_be_bytes(read(socket)?) != OPTION_MAGIC {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let option = u32::from_be_bytes(read(socket)?);
        let length = u32::from_be_bytes(read(socket)?);
        if length > LONGEST_OPTION {
            return Err(io::ErrorKind::InvalidData.into());
        }
        socket.read_exact(&mut vec![0; length as usize])?;
        let mut reply = |kind: u32, data: &[u8]| -> io::Result<()> {
            let mut bytes = OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
            bytes.extend(option.to_be_bytes());
            bytes.extend(kind.to_be_bytes());
            bytes.extend(u32::try_from(data.len()).unwrap_or(0).to_be_bytes());
            bytes.extend(data);
            socket.write_all(&bytes)
        };
        match option {
            OPTION_GO => {
                let disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
                let writing = if disk.is_readonly() { READ_ONLY } else { 0 };
                let mut info = INFO_EXPORT.to_be_bytes().to_vec();
                info.extend((disk.sectors() * SECTOR).to_be_bytes());
                info.extend((HAS_FLAGS | SEND_FLUSH | writing).to_be_bytes());
                reply(REPLY_INFO, &info)?;
                reply(REPLY_ACK, &[])?;
                Ok(true)
            }
            OPTION_ABORT => {
                reply(REPLY_ACK, &[])?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            _ => reply(REPLY_UNSUPPORTED, &[]).map(|()| false),
        }
    }

    fn request(&self, socket: &mut UnixStream) -> io::Result<()> {
        let header: [u8; 28] = read(socket)?;
        let word = |at: usize| u32::from_be_bytes(std::array::from_fn(|index| header[at + index]));
        let kind = u16::from_be_bytes([header[6], header[7]]);
        let offset = u64::from(word(16)) << 32 | u64::from(word(20));
        let length = word(24);
        if word(0) != REQUEST_MAGIC || length > LONGEST_REQUEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; if matches!(kind, READ | WRITE) { length as usize } else { 0 }];
        if kind == WRITE {
            socket.read_exact(&mut bytes)?;
        }
        if kind == DISCONNECT {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let outcome = self.transfer(kind, offset, &mut bytes);
        if let Err(error) = &outcome {
            tracing::warn!(%error, "a disk's image failed");
            let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
            disk.failures_mut().note(error);
        }
        let mut reply = REPLY_MAGIC.to_be_bytes().to_vec();
        reply.extend(outcome.as_ref().err().map_or(0_u32, |_| libc::EIO as u32).to_be_bytes());
        reply.extend(&header[8..16]);
        socket.write_all(&reply)?;
        if kind == READ && outcome.is_ok() { socket.write_all(&bytes) } else { Ok(()) }
    }

    fn transfer(&self, kind: u16, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        let end = offset.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > disk.sectors() * SECTOR) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match kind {
            READ => disk.read(offset, bytes),
            WRITE if disk.is_readonly() => Err(io::ErrorKind::PermissionDenied.into()),
            WRITE => disk.write(offset, bytes),
            FLUSH => disk.flush(),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

fn read<const N: usize>(socket: &mut UnixStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    socket.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use vmoon_core::spec::{Disk as DiskSpec, DiskMode};

    use super::*;

    fn ask(socket: &mut UnixStream, kind: u16, offset: u64, length: u32, data: &[u8]) {
        let mut request = REQUEST_MAGIC.to_be_bytes().to_vec();
        request.extend([0, 0]);
        request.extend(kind.to_be_bytes());
        request.extend(7_u64.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(length.to_be_bytes());
        request.extend(data);
        socket.write_all(&request).unwrap();
    }

    fn status(socket: &mut UnixStream) -> u32 {
        let reply: [u8; 16] = read(socket).unwrap();
        u32::from_be_bytes(std::array::from_fn(|index| reply[4 + index]))
    }

    #[test]
    fn a_client_reads_and_writes_within_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.img");
        fs::write(&path, vec![5; 4096]).unwrap();
        let spec = DiskSpec { path: path.clone(), readonly: false, mode: DiskMode::Overlay };
        let disk = Mutex::new(Disk::open(&spec).unwrap());
        let (mut client, mut socket) = UnixStream::pair().unwrap();
        let mut server = Server::new(&disk, &mut socket).unwrap();
        assert_eq!(&read::<18>(&mut client).unwrap()[..16], GREETING);
        client.write_all(&[0, 0, 0, 3]).unwrap();
        for (option, data) in [(8_u32, &[][..]), (OPTION_GO, &[0; 6][..])] {
            client.write_all(&OPTION_MAGIC.to_be_bytes()).unwrap();
            client.write_all(&option.to_be_bytes()).unwrap();
            client.write_all(&u32::try_from(data.len()).unwrap().to_be_bytes()).unwrap();
            client.write_all(data).unwrap();
        }
        server.serve(&mut socket).unwrap();
        read::<20>(&mut client).unwrap(); // Unsupported.
        let export: [u8; 32] = read(&mut client).unwrap();
        assert_eq!(export[22..30], 4096_u64.to_be_bytes());
        read::<20>(&mut client).unwrap();

        ask(&mut client, WRITE, 512, 3, b"abc");
        server.serve(&mut socket).unwrap();
        assert_eq!(status(&mut client), 0);
        ask(&mut client, READ, 511, 5, b"");
        server.serve(&mut socket).unwrap();
        assert_eq!(status(&mut client), 0);
        assert_eq!(&read::<5>(&mut client).unwrap(), b"\x05abc\x05");
        assert_eq!(fs::read(&path).unwrap(), vec![5; 4096]);
        for (offset, length) in [(4095, 2), (u64::MAX, 1)] {
            ask(&mut client, READ, offset, length, b"");
            server.serve(&mut socket).unwrap();
            assert_eq!(status(&mut client), libc::EIO as u32);
        }
        ask(&mut client, READ, 0, u32::MAX, b"");
        assert!(server.serve(&mut socket).is_err());
    }
}
