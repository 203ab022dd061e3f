//! Ends a script at its deadline that cannot be asked to: one that is lost in a single call of
//! Lua's library, such as a pattern that never ends.

use std::thread;
use std::time::Duration;

use vmoon_core::{Code, Error};
use vmoon_lua::Report;

use crate::status;

/// How long a script may take to end after its deadline.
const GRACE: Duration = Duration::from_secs(2);

/// Ends the process some time after `timeout`. A script that has ended by then takes the thread
/// with it.
/// `close` closes every machine.
pub(crate) fn start(
    timeout: Duration,
    close: impl FnOnce() + Send + 'static,
    color: bool,
) -> std::io::Result<()> {
    let watch = move || {
        thread::sleep(timeout.saturating_add(GRACE));
        close();
        let message =
            format!("the script did not end within {timeout:?}, nor when it was asked to");
        let error = Error::new(Code::VmTimeout, message)
            .with_hint("it is lost in one call of Lua's library, or in a `<close>`");
        eprintln!("{}", Report::of_error(&error).paint(color));
        signal_hook::low_level::exit(status::TIMEOUT);
    };
    thread::Builder::new().name("watchdog".to_owned()).spawn(watch)?;
    Ok(())
}
