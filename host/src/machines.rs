//! The backends and the guests that this binary carries.

use std::sync::Arc;

use vmoon_core::Backend;
use vmoon_core::guest::GuestImages;
use vmoon_core::vm::Host;

use crate::progress;

/// The agent for Linux guests.
const AGENT: &[u8] = include_bytes!(env!("VMOON_AGENT_IMAGE"));

/// Makes machines. Costs nothing until one is asked for.
pub(crate) fn host() -> Arc<Host> {
    let host = Host::new(backends(), GuestImages { micro: vmoon_micro::IMAGE, agent: AGENT });
    if let Some(listener) = progress::listener() {
        host.listen_to_progress(listener);
    }
    host
}

/// In the order in which `auto` tries them.
fn backends() -> Vec<Arc<dyn Backend>> {
    vec![
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        Arc::new(vmoon_kvm::KvmBackend::new()),
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        Arc::new(vmoon_qemu::QemuBackend::new()),
        #[cfg(target_os = "macos")]
        Arc::new(vmoon_vz::VzBackend::new()),
    ]
}
