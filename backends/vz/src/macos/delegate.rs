//! The objects that the framework tells of endings and of connections.

use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2::{AnyThread, DefinedClass, define_class, msg_send};
use objc2_foundation::{NSError, NSObject, NSObjectProtocol};
use objc2_virtualization::{
    VZNetworkDevice, VZVirtioSocketConnection, VZVirtioSocketDevice, VZVirtioSocketListener,
    VZVirtioSocketListenerDelegate, VZVirtualMachine, VZVirtualMachineDelegate,
};

use super::completion::words;
use super::sockets;
use crate::framework::{Ended, Incoming};

/// Hears how a machine ended.
pub(super) struct DelegateState {
    ended: Box<dyn Fn(Ended) + Send + Sync>,
}

define_class!(
    // SAFETY: NSObject asks nothing of subclasses, and the class implements no `Drop`.
    #[unsafe(super(NSObject))]
    #[ivars = DelegateState]
    pub(super) struct Delegate;

    // SAFETY: the protocol adds nothing.
    unsafe impl NSObjectProtocol for Delegate {}

    // SAFETY: the methods have the selectors and the signatures of the protocol.
    unsafe impl VZVirtualMachineDelegate for Delegate {
        #[unsafe(method(guestDidStopVirtualMachine:))]
        fn guest_did_stop(&self, _: &VZVirtualMachine) {
            (self.ivars().ended)(Ended::PoweredOff);
        }

        #[unsafe(method(virtualMachine:didStopWithError:))]
        fn did_stop_with_error(&self, _: &VZVirtualMachine, error: &NSError) {
            (self.ivars().ended)(Ended::Failed(words(error)));
        }

        #[unsafe(method(virtualMachine:networkDevice:attachmentWasDisconnectedWithError:))]
        fn network_was_disconnected(
            &self,
            _: &VZVirtualMachine,
            _: &VZNetworkDevice,
            error: &NSError,
        ) {
            tracing::warn!(reason = words(error), "the guest's network was disconnected");
        }
    }
);

impl Delegate {
    pub(super) fn new(ended: Box<dyn Fn(Ended) + Send + Sync>) -> Retained<Self> {
        let this = Self::alloc().set_ivars(DelegateState { ended });
        // SAFETY: `init` of NSObject takes no arguments and returns the object.
        unsafe { msg_send![super(this), init] }
    }

    /// Hears of this machine, for as long as it is kept.
    pub(super) fn observe(&self, machine: &VZVirtualMachine) {
        // SAFETY: the property is weak; the machine has not started, and this is its queue.
        unsafe { machine.setDelegate(Some(ProtocolObject::from_ref(self))) };
    }
}

/// Takes connections that a guest opens.
pub(super) struct ListenerState {
    incoming: Incoming,
}

define_class!(
    // SAFETY: NSObject asks nothing of subclasses, and the class implements no `Drop`.
    #[unsafe(super(NSObject))]
    #[ivars = ListenerState]
    pub(super) struct ListenerDelegate;

    // SAFETY: the protocol adds nothing.
    unsafe impl NSObjectProtocol for ListenerDelegate {}

    // SAFETY: the method has the selector and the signature of the protocol.
    unsafe impl VZVirtioSocketListenerDelegate for ListenerDelegate {
        #[unsafe(method(listener:shouldAcceptNewConnection:fromSocketDevice:))]
        fn should_accept(
            &self,
            _: &VZVirtioSocketListener,
            connection: &VZVirtioSocketConnection,
            _: &VZVirtioSocketDevice,
        ) -> bool {
            // SAFETY: a property of a connection that is valid during the call.
            let port = unsafe { connection.destinationPort() };
            match sockets::duplicate(connection, false) {
                Ok(raw) => (self.ivars().incoming)(port, raw),
                Err(error) => {
                    tracing::warn!(port, error, "a connection of the guest's was refused");
                    false
                }
            }
        }
    }
);

impl ListenerDelegate {
    /// A listener for any number of ports, with the delegate that it holds weakly.
    pub(super) fn new(incoming: Incoming) -> (Retained<VZVirtioSocketListener>, Retained<Self>) {
        let this = Self::alloc().set_ivars(ListenerState { incoming });
        // SAFETY: `init` of NSObject takes no arguments and returns the object.
        let this: Retained<Self> = unsafe { msg_send![super(this), init] };
        // SAFETY: a listener is made by `new`; the property is weak, and the caller keeps both.
        let listener = unsafe {
            let listener = VZVirtioSocketListener::new();
            listener.setDelegate(Some(ProtocolObject::from_ref(&*this)));
            listener
        };
        (listener, this)
    }
}
