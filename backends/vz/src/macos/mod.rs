//! Virtualization.framework: the only module that touches Objective-C.
//!
//! # Threads
//! Every object of a machine is made, used and released on the machine's own serial dispatch
//! queue ([`queue::Confined`] sees to it), on which the framework calls its handlers too. Whoever
//! waits for a handler waits on another thread, within a deadline.
//!
//! # Ownership
//! The framework holds delegates weakly, so they are kept beside the machine. A connection's
//! descriptor belongs to its object: it is duplicated in the handler, and what comes too late is
//! closed by being dropped.

mod completion;
mod configuration;
mod delegate;
mod engine;
mod facts;
mod queue;
mod sockets;

use std::sync::Arc;

use objc2::AnyThread;
use objc2_virtualization::VZVirtualMachine;
use vmoon_core::Result;

use self::delegate::{Delegate, ListenerDelegate};
use self::engine::{Machine, Objects};
use self::queue::Confined;
use self::sockets::MachineSockets;
use crate::framework::{Created, Framework, Wiring};
use crate::host::HostFacts;
use crate::plan::{Files, Plan};

/// The framework of this Mac.
#[derive(Debug)]
pub(crate) struct Virtualization;

impl Framework for Virtualization {
    fn facts(&self) -> HostFacts {
        facts::of_this_mac()
    }

    fn create(
        &self,
        plan: &Plan,
        files: &Files,
        identifier: Option<&[u8]>,
        wiring: Wiring,
    ) -> Result<Created> {
        let (plan, files) = (plan.clone(), files.clone());
        let identifier = identifier.map(<[u8]>::to_owned);
        let has_vsock = plan.vsock;
        let saves = self.facts().capabilities().save.is_yes();
        let queue = queue::serial("vmoon.vz.machine");
        let (confined, (identifier, unsaveable)) = Confined::make(&queue.clone(), move || {
            let Wiring { console, ended, incoming } = wiring;
            let built = configuration::build(&plan, &files, identifier.as_deref(), console)?;
            let unsaveable = saves.then(|| configuration::why_unsaveable(&built.configuration));
            // SAFETY: the configuration was validated, and `queue` is serial.
            let machine = unsafe {
                VZVirtualMachine::initWithConfiguration_queue(
                    VZVirtualMachine::alloc(),
                    &built.configuration,
                    &queue,
                )
            };
            let delegate = Delegate::new(ended);
            delegate.observe(&machine);
            let listener = ListenerDelegate::new(incoming);
            let objects = Objects { machine, _delegate: delegate, listener };
            Ok((objects, (built.identifier, unsaveable.flatten())))
        })?;
        let sockets = || Arc::new(MachineSockets(confined.clone())) as Arc<_>;
        Ok(Created {
            sockets: has_vsock.then(sockets),
            engine: Box::new(Machine(confined)),
            identifier,
            unsaveable,
        })
    }
}
