//! Failures of the host.

use std::io;

use vmoon_core::{Code, Error};

/// Something of the host's failed that has nothing to do with the guest.
pub(crate) fn cannot(what: &str, error: io::Error) -> Error {
    let hint = match error.raw_os_error() {
        Some(libc::ENOMEM) => Some("free memory on the host, or give machines less"),
        Some(libc::EMFILE) => Some("raise the limit of open files (ulimit -n)"),
        _ => None,
    };
    let shown = Error::new(Code::BackendUnavailable, format!("cannot {what}"))
        .with_source(error)
        .with_detail("backend", "qemu");
    match hint {
        Some(hint) => shown.with_hint(hint),
        None => shown,
    }
}
