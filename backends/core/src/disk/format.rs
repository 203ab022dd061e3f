//! Tells raw images from those of other programs, which a guest would see as garbage.

/// Names and magic numbers at the start of the file.
const FORMATS: &[(&str, &[u8])] = &[
    ("qcow2", b"QFI\xfb"),
    ("vmdk", b"KDMV"),
    ("vmdk", b"# Disk DescriptorFile"),
    ("vhdx", b"vhdxfile"),
    ("vpc", b"conectix"),
];

/// How many bytes of a file [`foreign`] wants to see.
pub const HEAD: usize = 32;

/// The name of the format, as `qemu-img` spells it, if these first bytes of a file are not those
/// of a raw image.
pub fn foreign(head: &[u8]) -> Option<&'static str> {
    FORMATS.iter().find(|(_, magic)| head.starts_with(magic)).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        assert_eq!(foreign(b"QFI\xfb\0\0\0\x03"), Some("qcow2"));
        assert_eq!(foreign(b"vhdxfileMicrosoft"), Some("vhdx"));
        assert_eq!(foreign(&[0; HEAD]), None);
        assert_eq!(foreign(b"QFI"), None);
    }
}
