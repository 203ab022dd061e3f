//! An initramfs: a cpio archive in the "newc" form
//! (Linux, `Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;

/// An archive being written.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    known: BTreeSet<PathBuf>,
}

impl Archive {
    /// Adds a file at an absolute path, and the directories above it. What is there already stays.
    pub fn file(&mut self, path: &Path, content: &[u8]) {
        if let Some(parent) = path.parent() {
            self.directory(parent);
        }
        self.entry(path, EXECUTABLE, content);
    }

    /// Adds a directory, and those above it.
    pub fn directory(&mut self, path: &Path) {
        let above: Vec<&Path> = path.ancestors().collect();
        for directory in above.into_iter().rev().filter(|directory| directory.parent().is_some()) {
            self.entry(directory, DIRECTORY, &[]);
        }
    }

    /// Copies a file of the host to the same path.
    pub fn copy(&mut self, path: &Path) -> std::io::Result<()> {
        if self.known.contains(path) {
            return Ok(());
        }
        self.file(path, &std::fs::read(path)?);
        Ok(())
    }

    /// Copies a tree of the host to the same path: regular files of at most `limit` bytes.
    pub fn copy_tree(&mut self, path: &Path, limit: u64) -> std::io::Result<()> {
        self.directory(path);
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let metadata = std::fs::metadata(entry.path())?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            if metadata.is_dir() {
                self.copy_tree(&entry.path(), limit)?;
            } else if metadata.is_file() && metadata.len() <= limit {
                self.copy(&entry.path())?;
            }
        }
        Ok(())
    }

    /// The archive, complete.
    pub fn finish(mut self) -> Vec<u8> {
        self.known.clear();
        self.entry(Path::new("TRAILER!!!"), 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &Path, mode: u32, content: &[u8]) {
        if !self.known.insert(path.to_owned()) {
            return;
        }
        let name = path.strip_prefix("/").unwrap_or(path).as_os_str().as_encoded_bytes();
        self.entries += 1;
        let links = 1;
        let fields = [
            self.entries,
            mode,
            0,
            0,
            links,
            0,
            u32::try_from(content.len()).expect("a file of an initramfs is smaller than 4 GiB"),
            0,
            0,
            0,
            0,
            u32::try_from(name.len() + 1).expect("a path is short"),
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_holds_each_path_once_and_its_directories_first() {
        let mut archive = Archive::default();
        archive.file(Path::new("/a/b/c"), b"12345");
        archive.file(Path::new("/a/b/c"), b"again");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        let places: Vec<_> = ["a\0", "a/b\0", "a/b/c\0", "12345\0", "TRAILER!!!\0"]
            .map(|part| text.find(part))
            .into();
        assert!(places.iter().all(Option::is_some), "{places:?}");
        assert!(places.is_sorted(), "{places:?}");
        assert!(!text.contains("again"));
        assert_eq!(bytes.len() % 4, 0);
    }
}
