//! What a disk's file is: a raw image, or one of another program's format, which a guest that is
//! given its bytes would see as garbage.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// A format, told by the first bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFormat {
    /// The bytes of the disk, one by one; so is all that is nothing else.
    Raw,
    /// QEMU's format (QEMU docs/interop/qcow2.rst), which can be read beneath an overlay.
    Qcow2,
    /// Another format, by the name that `qemu-img` has for it.
    Other(&'static str),
}

const QCOW2: &[u8] = b"QFI\xfb";

/// Names and magic numbers at the start of the file.
const OTHERS: &[(&str, &[u8])] = &[
    ("vmdk", b"KDMV"),
    ("vmdk", b"# Disk DescriptorFile"),
    ("vhdx", b"vhdxfile"),
    ("vpc", b"conectix"),
];

/// How many bytes of a file tell all there is to know: the fields of qcow2's header.
const HEAD: usize = 80;

/// The first bytes of a file.
#[derive(Debug)]
pub struct Head(Vec<u8>);

impl Head {
    /// Reads them.
    ///
    /// # Errors
    /// Those of opening and reading.
    pub fn of(path: &Path) -> io::Result<Self> {
        Self::read(&File::open(path)?)
    }

    /// Reads them from the start of a file that has not been read.
    ///
    /// # Errors
    /// Those of reading.
    pub fn read(file: &File) -> io::Result<Self> {
        let mut bytes = Vec::with_capacity(HEAD);
        file.take(HEAD as u64).read_to_end(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The format.
    pub fn format(&self) -> ImageFormat {
        let other = OTHERS.iter().find(|(_, magic)| self.0.starts_with(magic));
        match other {
            Some((name, _)) => ImageFormat::Other(name),
            None if self.0.starts_with(QCOW2) => ImageFormat::Qcow2,
            None => ImageFormat::Raw,
        }
    }

    /// Why a qcow2 image is not whole in its file, or cannot be read, if so.
    pub fn qcow2_refusal(&self) -> Option<&'static str> {
        /// Bit "external data file" of `incompatible_features`.
        const EXTERNAL_DATA_FILE: u64 = 1 << 2;
        let (Some(version), Some(backing), Some(encryption)) =
            (self.number::<4>(4), self.number::<8>(8), self.number::<4>(32))
        else {
            return Some("is cut off");
        };
        let features = if version >= 3 { self.number::<8>(72).unwrap_or(0) } else { 0 };
        if backing != 0 {
            Some("has a backing file")
        } else if encryption != 0 {
            Some("is encrypted")
        } else if features & EXTERNAL_DATA_FILE != 0 {
            Some("has its data in another file")
        } else {
            None
        }
    }

    /// A big-endian number of `N` bytes.
    fn number<const N: usize>(&self, at: usize) -> Option<u64> {
        let bytes = self.0.get(at..at + N)?;
        Some(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn qcow2(backing: u8, encryption: u8, features: u8) -> Head {
        let mut bytes = vec![0; HEAD];
        bytes[..4].copy_from_slice(QCOW2);
        (bytes[7], bytes[15], bytes[35], bytes[79]) = (3, backing, encryption, features);
        Head(bytes)
    }

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        let format = |bytes: &[u8]| Head(bytes.to_vec()).format();
        assert_eq!(format(b"QFI\xfb\0\0\0\x03"), ImageFormat::Qcow2);
        assert_eq!(format(b"vhdxfileMicrosoft"), ImageFormat::Other("vhdx"));
        assert_eq!(format(&[0; HEAD]), ImageFormat::Raw);
        assert_eq!(format(b"QFI"), ImageFormat::Raw);
    }

    #[test]
    fn what_of_a_qcow2_image_is_elsewhere_is_refused() {
        assert_eq!(qcow2(0, 0, 0).qcow2_refusal(), None);
        assert_eq!(qcow2(0, 0, 1).qcow2_refusal(), None, "it was not closed: nothing is lost");
        assert!(qcow2(1, 0, 0).qcow2_refusal().unwrap().contains("backing"));
        assert!(qcow2(0, 2, 0).qcow2_refusal().unwrap().contains("encrypted"));
        assert!(qcow2(0, 0, 4).qcow2_refusal().unwrap().contains("another file"));
        assert!(Head(QCOW2.to_vec()).qcow2_refusal().unwrap().contains("cut off"));
    }
}
