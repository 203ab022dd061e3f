//! Ports of the host on which guests are answered.

use std::rc::Rc;
use std::sync::{Arc, Weak};

use mlua::{UserData, UserDataRegistry};
use vmoon_core::vsock::VsockListener;
use vmoon_core::{Code, Error, Vm, VsockPort};

use crate::class::{self, Class, Handle, Results, iterator};
use crate::fault::Outcome;
use crate::slot::Slot;
use crate::stream::{Stream, limited};

/// A listening port.
#[derive(Clone, Debug)]
pub(crate) struct Listener(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    vm: Weak<Vm>,
    port: VsockPort,
    listener: Slot<Box<dyn VsockListener>>,
}

impl Listener {
    pub(crate) fn new(vm: &Arc<Vm>, listener: Box<dyn VsockListener>) -> Self {
        let port = listener.port();
        Self(Rc::new(Inner { vm: Arc::downgrade(vm), port, listener: Slot::new(listener) }))
    }

    /// The next connection; none once the listener is closed.
    async fn accept(&self) -> Outcome<Option<Stream>> {
        let Some(stream) = self.0.listener.with(async |listener| listener.accept().await).await
        else {
            return Ok(None);
        };
        let stream = stream?;
        let vm = self.0.vm.upgrade().ok_or_else(|| self.closed())?;
        Ok(Some(Stream::new(&vm, stream)))
    }

    fn closed(&self) -> Error {
        Error::new(Code::VsockReset, format!("the listener on port {} was closed", self.0.port))
            .with_detail("port", self.0.port.0)
    }
}

impl UserData for Listener {
    fn register(registry: &mut UserDataRegistry<Self>) {
        class::register(registry);
    }
}

impl Handle for Listener {
    const NAME: &'static str = "listener";

    fn machine(&self) -> Option<Arc<Vm>> {
        self.0.vm.upgrade()
    }

    fn title(&self) -> String {
        format!("listener (port {})", self.0.port)
    }

    fn close(&self) {
        self.0.listener.close();
    }

    fn define(class: &mut Class<Self>) -> mlua::Result<()> {
        class.field("port", |_, this| Ok(this.0.port.0))?;
        class.waiting("listener:accept", Results::One, async |_, this: Self, arguments| {
            let timeout = arguments.options(0, &["timeout"])?.duration("timeout")?;
            let what = format!("nobody connected to port {}", this.0.port);
            let accepted = async { this.accept().await?.ok_or_else(|| this.closed().into()) };
            limited(timeout, &what, accepted).await
        })?;
        class
            .waiting("listener:next", Results::One, async |_, this: Self, _| this.accept().await)?;
        class.method("listener:incoming", Results::All, |lua, this, _| {
            iterator(lua, this, "next", false)
        })?;
        class.method("listener:close", Results::None, |_, this, _| {
            this.close();
            Ok(())
        })
    }
}
