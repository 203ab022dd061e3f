//! How a vCPU thread is made to leave `KVM_RUN`.

use std::io;
use std::sync::Once;
use std::sync::atomic::{AtomicU8, Ordering};

use kvm_ioctls::VcpuFd;

/// The signal that interrupts `KVM_RUN`; its handler does nothing.
fn signal() -> libc::c_int {
    libc::SIGRTMIN()
}

extern "C" fn ignore(_signal: libc::c_int) {}

/// Installs the handler, once for the process. Without `SA_RESTART`: the call must return.
pub(crate) fn install_handler() -> io::Result<()> {
    static INSTALLED: Once = Once::new();
    let mut result = Ok(());
    INSTALLED.call_once(|| {
        // SAFETY: a zeroed `sigaction` is valid, and the handler touches nothing.
        let status = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = ignore as extern "C" fn(libc::c_int) as usize;
            libc::sigaction(signal(), &raw const action, std::ptr::null_mut())
        };
        if status != 0 {
            result = Err(io::Error::last_os_error());
        }
    });
    result
}

/// Interrupts the thread.
pub(crate) fn interrupt(thread: libc::pthread_t) {
    // SAFETY: the vCPU's owner joins the thread only after the last call, so the id is valid.
    unsafe { libc::pthread_kill(thread, signal()) };
}

/// The `immediate_exit` byte of a vCPU's `kvm_run` (KVM API section 5): while it is set, `KVM_RUN`
/// completes what the last exit left open and returns, without running guest code. It closes the
/// gap between the decision to run and the call.
#[derive(Debug)]
pub(crate) struct ImmediateExit(*const AtomicU8);

// SAFETY: the byte is only ever accessed atomically by us; the kernel reads it once per call.
unsafe impl Send for ImmediateExit {}
// SAFETY: as above.
unsafe impl Sync for ImmediateExit {}

impl ImmediateExit {
    /// The byte of `vcpu`.
    ///
    /// # Safety
    /// `vcpu` outlives the result.
    pub(crate) unsafe fn of(vcpu: &mut VcpuFd) -> Self {
        Self((&raw mut vcpu.get_kvm_run().immediate_exit).cast::<AtomicU8>().cast_const())
    }

    /// Sets or clears it.
    pub(crate) fn set(&self, on: bool) {
        // SAFETY: `of` demands that the mapping outlives us; a byte is always aligned.
        unsafe { &*self.0 }.store(u8::from(on), Ordering::SeqCst);
    }
}
