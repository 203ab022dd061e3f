//! Exit statuses: a contract with scripts and CI.

use vmoon_lua::{Ending, Report};

/// All went well.
pub(crate) const DONE: i32 = 0;
/// The script raised.
pub(crate) const RAISED: i32 = 1;
/// vmoon was called wrongly.
pub(crate) const USAGE: i32 = 2;
/// No backend can do this here.
pub(crate) const NO_BACKEND: i32 = 3;
/// The deadline was reached, as with timeout(1).
pub(crate) const TIMEOUT: i32 = 124;
/// Ended by SIGINT: 128 + the signal, as shells have it.
pub(crate) const INTERRUPTED: i32 = 130;
/// Ended by SIGTERM.
pub(crate) const TERMINATED: i32 = 143;

/// The status of a script that ended like this.
pub(crate) fn of(ending: &Ending) -> i32 {
    match ending {
        Ending::Done => DONE,
        Ending::Exited(status) => *status,
        Ending::Raised(reports) if reports.iter().any(lacks_backend) => NO_BACKEND,
        Ending::Raised(_) => RAISED,
        Ending::TimedOut(_) => TIMEOUT,
        Ending::Interrupted => INTERRUPTED,
        Ending::Terminated => TERMINATED,
    }
}

/// Whether nothing here can run what was asked for.
pub(crate) fn lacks_backend(report: &Report) -> bool {
    report.code.as_deref() == Some(vmoon_core::Code::BackendUnavailable.as_str())
}
