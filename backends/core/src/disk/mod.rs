//! Disks as files of the host.
//!
//! | module | holds |
//! | --- | --- |
//! | [`contents`] | [`DiskContents`]: what a guest sees as a disk, at one moment |
//! | [`commit`] | writes such a disk to an image |
//! | [`extents`] | where a sparse file holds data |
//! | [`format`] | tells raw images from those of other programs |

pub mod commit;
pub mod contents;
pub mod extents;
pub mod format;

pub use contents::DiskContents;
