//! Guest RAM as the devices see it, and the record of what they wrote to it.

mod dirty;
mod guest;

pub use dirty::{DirtyBitmap, DirtySlice};
pub use guest::{GuestMemory, MappedRam, PAGE_SIZE, guest_memory};
