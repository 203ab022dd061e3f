//! Mapped files that somebody cuts short.
//!
//! To touch a page beyond the end of a mapped file raises SIGBUS, which ends the process without a
//! word. The pages of a loaded snapshot are mapped, and whoever may write to its directory may cut
//! them. Here the signal puts a page of zeroes in place and leaves a note, so that the machine
//! above can end in words and the others go on. (A vCPU that touches such a page gets EFAULT from
//! `KVM_RUN` instead.)

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use super::PAGE_SIZE;

/// `si_code`: nothing lies behind the address (`asm-generic/siginfo.h`). Other codes tell of
/// broken hardware.
const BUS_ADRERR: libc::c_int = 2;

/// A range of addresses behind which a file of others lies; forgotten when this is dropped.
#[derive(Debug)]
pub(crate) struct Watched(&'static Slot);

/// Slots are used again and never freed: the handler may be looking.
#[derive(Debug, Default)]
struct Slot {
    taken: AtomicBool,
    start: AtomicUsize,
    end: AtomicUsize,
    broken: AtomicBool,
    next: AtomicPtr<Slot>,
}

/// The slot made last; the others hang off it.
static NEWEST: AtomicPtr<Slot> = AtomicPtr::new(std::ptr::null_mut());

impl Watched {
    /// Watches a range of whole pages, which stays mapped for longer than the result lives.
    pub(crate) fn new(range: &Range<usize>) -> std::io::Result<Self> {
        install()?;
        let slot = slots().find(|slot| !slot.taken.swap(true, Ordering::AcqRel));
        let slot = slot.unwrap_or_else(Slot::push);
        slot.broken.store(false, Ordering::Relaxed);
        slot.start.store(range.start, Ordering::Relaxed);
        slot.end.store(range.end, Ordering::Release);
        Ok(Self(slot))
    }

    /// Whether something was missing in the range when it was touched.
    pub(crate) fn is_broken(&self) -> bool {
        self.0.broken.load(Ordering::Acquire)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.end.store(0, Ordering::Release);
        self.0.taken.store(false, Ordering::Release);
    }
}

impl Slot {
    fn push() -> &'static Self {
        let slot: &'static Self =
            Box::leak(Box::new(Self { taken: AtomicBool::new(true), ..Self::default() }));
        let mut newest = NEWEST.load(Ordering::Acquire);
        loop {
            slot.next.store(newest, Ordering::Relaxed);
            let pushed = NEWEST.compare_exchange(
                newest,
                std::ptr::from_ref(slot).cast_mut(),
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            match pushed {
                Ok(_) => return slot,
                Err(now) => newest = now,
            }
        }
    }

    fn holds(&self, address: usize) -> bool {
        let end = self.end.load(Ordering::Acquire);
        (self.start.load(Ordering::Relaxed)..end).contains(&address)
    }
}

fn slots() -> impl Iterator<Item = &'static Slot> {
    // SAFETY: a slot that was published is never freed or moved.
    let at = |slot: &AtomicPtr<Slot>| unsafe { slot.load(Ordering::Acquire).as_ref() };
    std::iter::successors(at(&NEWEST), move |slot| at(&slot.next))
}

/// What handled the signal before; std's own handler tells of overflowed stacks.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

fn install() -> std::io::Result<()> {
    if PREVIOUS.get().is_some() {
        return Ok(());
    }
    // SAFETY: zeroed `sigaction`s are valid, and both pointers are to local values.
    let previous = unsafe {
        let mut previous: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut previous) != 0 {
            return Err(std::io::Error::last_os_error());
        }
        previous
    };
    if PREVIOUS.set(previous).is_err() {
        // Another thread is at it.
        return Ok(());
    }
    // SAFETY: as above; the handler calls nothing that a signal may not interrupt.
    let status = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let handler: extern "C" fn(_, _, _) = handle;
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut())
    };
    if status == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid structure, and SIGBUS has an address.
    let (address, code) = unsafe { ((*info).si_addr() as usize, (*info).si_code) };
    let slot = slots().find(|slot| code == BUS_ADRERR && slot.holds(address));
    if slot.is_some_and(|slot| cover(slot, address)) {
        return;
    }
    let previous = PREVIOUS.get();
    // SAFETY: what was installed before us is called as it was to be called; where that was
    // nothing, the default action comes back, and the same access ends the process.
    unsafe {
        match previous {
            Some(previous) if previous.sa_sigaction > libc::SIG_IGN => {
                let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                    std::mem::transmute(previous.sa_sigaction);
                handler(signal, info, context);
            }
            _ => {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
}

/// Puts zeroes where nothing is any more; false when the kernel has no memory for them.
fn cover(slot: &Slot, address: usize) -> bool {
    let page = address & !(PAGE_SIZE - 1);
    // SAFETY: the page lies in a range of ours that stays mapped while it is watched, and its
    // contents are lost already.
    let covered = unsafe {
        libc::mmap(
            page as *mut libc::c_void,
            PAGE_SIZE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    } != libc::MAP_FAILED;
    if covered {
        slot.broken.store(true, Ordering::Release);
    }
    covered
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::mm::{MapFlags, ProtFlags};

    use super::*;
    use crate::memory::mapping::Mapping;

    #[test]
    fn a_file_that_is_cut_reads_as_zeroes_and_leaves_a_note() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4 * PAGE_SIZE as u64).unwrap();
        let length = 4 * PAGE_SIZE;
        let mapping =
            Mapping::file(file.as_fd(), length, ProtFlags::READ, MapFlags::SHARED).unwrap();
        let start = mapping.start() as usize;
        for _ in 0..2 {
            let watched = Watched::new(&(start..start + length)).unwrap();
            assert!(!watched.is_broken());
            file.set_len(PAGE_SIZE as u64).unwrap();
            // SAFETY: inside the mapping; the handler puts zeroes where the file has ended.
            let read =
                |page: usize| unsafe { mapping.start().add(page * PAGE_SIZE).read_volatile() };
            assert_eq!((read(0), watched.is_broken()), (0, false));
            assert_eq!((read(2), watched.is_broken()), (0, true));
            drop(watched);
            file.set_len(length as u64).unwrap();
            // SAFETY: the range is ours and nobody looks at it.
            let fresh = unsafe {
                libc::mmap(
                    mapping.start().cast(),
                    length,
                    libc::PROT_READ,
                    libc::MAP_SHARED | libc::MAP_FIXED,
                    std::os::fd::AsRawFd::as_raw_fd(&file),
                    0,
                )
            };
            assert_ne!(fresh, libc::MAP_FAILED);
        }
    }
}
