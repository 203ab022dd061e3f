//! Which pages became dirty: KVM's log united with what the VMM wrote.

use std::os::fd::AsRawFd;

use kvm_bindings::{KVMIO, kvm_dirty_log, kvm_dirty_log__bindgen_ty_1};
use kvm_ioctls::VmFd;
use rustix::io;
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;

use super::PAGE_SIZE;
use super::index::PageIndex;
use super::ram::Ram;

// KVM API section 4.8. kvm-ioctls has this call but allocates the bitmap each time.
ioctl_iow_nr!(KVM_GET_DIRTY_LOG, KVMIO, 0x42, kvm_dirty_log);

/// A set of pages, one bit each, allocated once for a machine.
#[derive(Debug)]
pub(crate) struct DirtyPages {
    words: Vec<u64>,
    /// Bits that were read from KVM, which forgets them, but not yet used up.
    carried: Vec<u64>,
    any_carried: bool,
}

impl DirtyPages {
    /// An empty set for memory of `pages` pages.
    pub(crate) fn new(pages: usize) -> Self {
        let words = pages.div_ceil(64);
        Self { words: vec![0; words], carried: vec![0; words], any_carried: false }
    }

    /// Reads all that became dirty since the last call of [`DirtyPages::take`], and starts
    /// afresh. The cost in KVM follows the dirty pages; the bitmap itself has one bit a page.
    ///
    /// No vCPU runs and no device writes during the call.
    pub(crate) fn collect(&mut self, vm: &VmFd, ram: &Ram) -> io::Result<()> {
        for (slot, region) in ram.regions().iter().enumerate() {
            let first_word = region.offset / PAGE_SIZE / 64;
            let words = &mut self.words[first_word..];
            assert!(words.len() * 64 * PAGE_SIZE >= region.length, "one bit a page");
            let log = kvm_dirty_log {
                slot: u32::try_from(slot).expect("few slots"),
                padding1: 0,
                __bindgen_anon_1: kvm_dirty_log__bindgen_ty_1 {
                    dirty_bitmap: words.as_mut_ptr().cast(),
                },
            };
            // SAFETY: the assertion shows that KVM's bitmap, rounded up to 64 pages, fits.
            let result = unsafe { ioctl_with_ref(vm, KVM_GET_DIRTY_LOG(), &log) };
            if result < 0 {
                let error = std::io::Error::last_os_error();
                return Err(io::Errno::from_io_error(&error).unwrap_or(io::Errno::IO));
            }
        }
        self.add_written(ram);
        tracing::trace!(fd = vm.as_raw_fd(), pages = self.count(), "dirty pages collected");
        Ok(())
    }

    fn add_written(&mut self, ram: &Ram) {
        ram.written().drain(|word, bits| self.words[word] |= bits);
        if self.any_carried {
            for (word, carried) in self.words.iter_mut().zip(&mut self.carried) {
                *word |= std::mem::take(carried);
            }
            self.any_carried = false;
        }
    }

    /// As [`DirtyPages::collect`], of memory that no KVM knows.
    #[cfg(test)]
    pub(super) fn collect_written(&mut self, ram: &Ram) {
        self.words.fill(0);
        self.add_written(ram);
    }

    /// Adds the pages in which two images differ.
    pub(crate) fn add_differences(&mut self, one: &PageIndex, other: &PageIndex) {
        one.for_each_difference(other, |word, bits| self.words[word] |= bits);
    }

    /// The number of pages in the set.
    pub(crate) fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Keeps what was collected for the next [`DirtyPages::collect`]: somebody only looked, or
    /// the operation failed.
    pub(crate) fn put_back(&mut self) {
        self.carried.copy_from_slice(&self.words);
        self.any_carried = true;
    }

    /// The pages in order, each once.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        set_bits(&self.words)
    }
}

/// Words looked at together: most of a large bitmap is zero.
const BLOCK: usize = 16;

/// The numbers of the bits that are set, in order.
pub(super) fn set_bits(words: &[u64]) -> impl Iterator<Item = usize> {
    let blocks = words.chunks(BLOCK).enumerate();
    let marked = blocks.filter(|(_, block)| block.iter().fold(0, |any, word| any | word) != 0);
    marked.flat_map(|(block, words)| {
        words.iter().enumerate().flat_map(move |(word, bits)| {
            let mut bits = *bits;
            std::iter::from_fn(move || {
                let bit = bits.trailing_zeros() as usize;
                bits &= bits.wrapping_sub(1);
                (bit < 64).then_some((block * BLOCK + word) * 64 + bit)
            })
        })
    })
}
