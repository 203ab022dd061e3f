//! Ctrl-C and its like: the first asks the script to end, the second ends the process.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use vmoon_lua::Signals;

use crate::status;

/// Sets flags when signals arrive. The runtime listens to the same signals, to wake.
pub(crate) fn catch() -> std::io::Result<Signals> {
    let signals = Signals::default();
    register(SIGINT, status::INTERRUPTED, &signals.interrupted)?;
    register(SIGTERM, status::TERMINATED, &signals.terminated)?;
    register(SIGHUP, status::TERMINATED, &signals.terminated)?;
    Ok(signals)
}

/// The same for a conversation: SIGINT ends a call of its, any number of times, and never the
/// process.
pub(crate) fn catch_for_conversation() -> std::io::Result<Signals> {
    let signals = Signals::default();
    flag::register(SIGINT, signals.interrupted.clone())?;
    register(SIGTERM, status::TERMINATED, &signals.terminated)?;
    register(SIGHUP, status::TERMINATED, &signals.terminated)?;
    Ok(signals)
}

fn register(signal: i32, status: i32, seen: &Arc<AtomicBool>) -> std::io::Result<()> {
    // Called in this order: the first signal finds the flag unset.
    flag::register_conditional_shutdown(signal, status, seen.clone())?;
    flag::register(signal, seen.clone())?;
    Ok(())
}
