//! The methods that connect the host with programs in the guest.

use std::time::Duration;

use super::Machine;
use crate::class::{Class, Results};
use crate::forward::Forward;
use crate::listener::Listener;
use crate::stream::Stream;

/// How long `vm:connect` waits for a guest that neither accepts nor refuses.
const CONNECT: Duration = Duration::from_secs(10);

pub(super) fn define(class: &mut Class<Machine>) -> mlua::Result<()> {
    class.waiting("vm:connect", Results::One, async |_, this: Machine, arguments| {
        let port = arguments.port(0)?;
        let options = arguments.options(1, &["timeout"])?;
        let timeout = options.duration("timeout")?.unwrap_or(CONNECT);
        let stream = this.vm().connect(port, Some(timeout)).await?;
        Ok(Stream::new(this.vm(), stream))
    })?;
    class.waiting("vm:listen", Results::One, async |_, this: Machine, arguments| {
        let port = arguments.port(0)?;
        Ok(Listener::new(this.vm(), this.vm().listen(port).await?))
    })?;
    class.waiting("vm:forward", Results::One, async |_, this: Machine, arguments| {
        Forward::open(this.vm(), &arguments).await
    })
}
