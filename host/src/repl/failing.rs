//! The conversation about a test that failed.

use std::io::IsTerminal;

use vmoon_lua::Session;

use super::{piped, talk};
use crate::color::Color;
use crate::status;

const GREETING: &str = "\n`vm` is the machine as the test left it, `machines` are all of them. \
    Ctrl-D goes on with the tests.";

/// Lets somebody look at the machines of a test, until they have seen enough.
pub(crate) async fn about_failure(session: Session, color: Color) {
    if !std::io::stdin().is_terminal() {
        piped::talk(session, color.on_stderr(), status::DONE).await;
        return;
    }
    let greeting = GREETING.to_owned();
    if let Err(error) = talk::talk(session, talk::Talk { color, console: true, greeting }).await {
        eprintln!("{}", crate::color::failure(&error, color.on_stderr()));
    }
}
