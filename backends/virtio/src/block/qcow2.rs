//! Images in QEMU's format (QEMU docs/interop/qcow2.rst), to be read: `imago` knows the format.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use imago::file::File as Storage;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder, Mapping};
use vmoon_core::disk::extents::append;
use vmoon_core::disk::format::Head;
use vmoon_core::error::{Code, Error, Result};

type Format = imago::qcow2::Qcow2<Storage>;

/// An open image, all of which is in its file.
#[derive(Debug)]
pub(super) struct Qcow2(FormatAccess<Storage>);

impl Qcow2 {
    /// Opens the image in `file`, of which `head` was read. No other file is opened, whatever the
    /// image asks for.
    ///
    /// # Errors
    /// `vm.spec`.
    pub(super) fn open(path: &Path, file: &File, head: &Head) -> Result<Self> {
        let wrong = |what: &str| {
            Error::new(Code::VmSpec, format!("disk {} {what}", path.display()))
                .with_hint(format!("qemu-img convert -O raw {0} {0}.raw", path.display()))
                .with_detail("path", path.display().to_string())
        };
        if let Some(reason) = head.qcow2_refusal() {
            return Err(wrong(&format!("is in the format qcow2 and {reason}")));
        }
        let image = file
            .try_clone()
            .and_then(Storage::try_from)
            .and_then(|file| Format::builder(file).open(DenyImplicitOpenGate::default()))
            .map_err(|error| wrong("is no qcow2 image that can be read").with_source(error))?;
        Ok(Self(FormatAccess::new(image)))
    }

    pub(super) fn length(&self) -> u64 {
        self.0.size()
    }

    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.0.read(bytes, offset)
    }

    /// The ranges outside of which all is zero.
    pub(super) fn data(&self) -> io::Result<Vec<Range<u64>>> {
        let mut ranges = Vec::new();
        let mut offset = 0;
        while offset < self.length() {
            let (mapping, length) = self.0.get_mapping(offset, self.length() - offset)?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if !matches!(mapping, Mapping::Zero { .. }) {
                append(&mut ranges, offset..offset + length);
            }
            offset += length;
        }
        Ok(ranges)
    }
}
