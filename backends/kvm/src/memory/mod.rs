//! Guest memory: one mapping, frozen layers beneath it, and the log of what became dirty.
//!
//! # How a snapshot costs only what was written
//! RAM begins as a memfd mapped shared. The **first** snapshot freezes that memfd: it becomes the
//! [`base::Base`], and RAM is mapped again over it, privately, so that later writes make private
//! copies. Nothing is copied. Every **later** snapshot copies the pages dirtied since the previous
//! one into a [`layer::Layer`] and enters them into a persistent [`index::PageIndex`]. An
//! [`image::MemoryImage`] is a base and an index: all that is needed to tell what any page held.
//!
//! # How a restore costs only what was written
//! The pages to put back are those dirtied since the last snapshot or restore (KVM's log united
//! with the VMM's own writes, see [`dirty`]) and those in which the two images differ, found by
//! walking the two indexes and skipping every subtree that they share. They are copied, page by
//! page, into the mapping that KVM already knows.
//!
//! # How a fork costs only what was written
//! A new machine maps the same base privately and receives the pages of the index.

pub(crate) mod base;
pub(crate) mod bus_error;
pub(crate) mod dirty;
pub(crate) mod image;
pub(crate) mod index;
pub(crate) mod layer;
pub(crate) mod mapping;
pub(crate) mod ram;
pub(crate) mod reclaim;
pub(crate) mod resident;
pub(crate) mod source;
#[cfg(test)]
mod tests;

/// The size of a page of guest memory in bytes.
pub(crate) const PAGE_SIZE: usize = 4096;
