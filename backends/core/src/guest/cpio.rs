//! Writes archives in the "newc" format of cpio, which the kernel unpacks as its first root
//! (Linux Documentation/driver-api/early-userspace/buffer-format.rst).

/// Type bits of a mode (`S_IFMT` and friends of stat(2)).
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive that grows. Directories come before what is in them: the caller's duty.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a directory. Paths are relative to the root, without a leading slash.
    pub(super) fn directory(&mut self, path: &str, permissions: u32) {
        self.entry(path, DIRECTORY | permissions, (0, 0), b"");
    }

    /// Adds a file.
    pub(super) fn file(&mut self, path: &str, permissions: u32, data: &[u8]) {
        self.entry(path, REGULAR | permissions, (0, 0), data);
    }

    /// Adds a symbolic link to `target`.
    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.entry(path, LINK | 0o777, (0, 0), target.as_bytes());
    }

    /// Adds a character device.
    pub(super) fn character_device(&mut self, path: &str, permissions: u32, device: (u32, u32)) {
        self.entry(path, CHARACTER_DEVICE | permissions, device, b"");
    }

    /// The finished archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), b"");
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), data: &[u8]) {
        // The files that get here were checked to be far below 4 GiB.
        let size = u32::try_from(data.len()).expect("a file of an initramfs is below 4 GiB");
        let name_size = u32::try_from(path.len() + 1).expect("a path is short");
        self.entries += 1;
        // Inode, mode, uid, gid, links, time, size, device, device of the node, name, check.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    /// An entry that was read back: path, mode, data.
    pub(crate) type Entry = (String, u32, Vec<u8>);

    /// Reads an archive by the format's description, without this module's writer.
    pub(crate) fn read_back(mut bytes: &[u8]) -> Vec<Entry> {
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |index: usize| {
                let at = 6 + index * 8;
                let text = std::str::from_utf8(&bytes[at..at + 8]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let data_at = (110 + name_size).next_multiple_of(4);
            let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).unwrap();
            assert_eq!(bytes[110 + name_size - 1], 0);
            if name == "TRAILER!!!" {
                return entries;
            }
            let data = bytes[data_at..data_at + size].to_vec();
            entries.push((name, u32::try_from(mode).unwrap(), data));
            bytes = &bytes[(data_at + size).next_multiple_of(4)..];
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            files in prop::collection::vec(
                ("[a-z]{1,12}(/[a-z.]{1,12}){0,2}", 0_u32..0o7777, prop::collection::vec(any::<u8>(), 0..200)),
                0..20,
            )
        ) {
            let mut archive = Archive::default();
            for (path, permissions, data) in &files {
                archive.file(path, *permissions, data);
            }
            let bytes = archive.finish();
            prop_assert_eq!(bytes.len() % 4, 0);
            let expected: Vec<Entry> = files
                .into_iter()
                .map(|(path, permissions, data)| (path, REGULAR | permissions, data))
                .collect();
            prop_assert_eq!(read_back(&bytes), expected);
        }
    }

    #[test]
    fn cpio_extracts_it() {
        let mut archive = Archive::default();
        archive.directory("etc", 0o755);
        archive.file("etc/hostname", 0o644, b"vmoon\n");
        archive.link("etc/name", "hostname");
        let bytes = archive.finish();
        let directory = tempfile::tempdir().unwrap();
        let Ok(mut cpio) = Command::new("cpio")
            .args(["--extract", "--quiet"])
            .current_dir(directory.path())
            .stdin(Stdio::piped())
            .spawn()
        else {
            eprintln!("no cpio here; the property test stands alone");
            return;
        };
        cpio.stdin.take().unwrap().write_all(&bytes).unwrap();
        assert!(cpio.wait().unwrap().success());
        let text = std::fs::read_to_string(directory.path().join("etc/name")).unwrap();
        assert_eq!(text, "vmoon\n");
    }
}
