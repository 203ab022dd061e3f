//! Guest RAM in a memfd that QEMU maps too, and frozen images of it.

mod extents;
mod image;
mod ram;

pub(crate) use image::MemoryImage;
pub(crate) use ram::{BELOW_4_GIB, Ram};

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;
