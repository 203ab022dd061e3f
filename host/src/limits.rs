//! The limit of open files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Enough for thousands of machines, each of which has some twenty files open. Some systems refuse
/// to lift the limit without a bound.
const ENOUGH: u64 = 65_536;

/// Lifts the soft limit towards the hard one: a script that forks a hundred machines opens more
/// files than the 1,024 that most shells allow. Where that fails, running out of files says so.
pub(crate) fn lift() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(ENOUGH, |maximum| maximum.min(ENOUGH));
    if current.is_some_and(|current| current < wanted) {
        // The error that matters comes when files run out, and names the limit.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
}
