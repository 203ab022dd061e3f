//! From files to a vCPU that is about to execute its first instruction.
//!
//! | module | holds |
//! | --- | --- |
//! | [`layout`] | the physical address space |
//! | `recognise`, `bzimage`, `elf`, `initrd` | checks of the files, each a fixed set of bounds-checked reads |
//! | [`load`] | places everything in guest memory |
//! | `zero_page`, `pvh`, `tables` | what the kernel and the vCPU find there |
//! | [`registers`], [`cpuid`], [`msrs`] | the state of the vCPUs |
//!
//! A bzImage unpacks itself, as guest code. Unpacking it on the host instead was measured in a
//! nested, emulated machine and was slower there (3 s for 1 s); it would also forgo the kernel's
//! address randomisation.

mod bytes;
mod bzimage;
pub(crate) mod cpuid;
mod elf;
mod initrd;
pub(crate) mod layout;
mod load;
pub(crate) mod msrs;
mod pvh;
mod recognise;
pub(crate) mod registers;
mod tables;
#[cfg(test)]
mod tests;
mod zero_page;

pub(crate) use load::{EntryProtocol, LoadOptions, load};
pub(crate) use registers::{Entry, initial_fpu, initial_registers, set_special_registers};
