//! The vsock device.

use std::cell::Cell;
use std::os::fd::BorrowedFd;

use block2::RcBlock;
use objc2::rc::Retained;
use objc2_foundation::NSError;
use objc2_virtualization::{VZVirtioSocketConnection, VZVirtioSocketDevice};

use super::completion::words;
use super::engine::Objects;
use super::queue::Confined;
use crate::framework::{Answer, RawConnection, Sockets};

/// The vsock device of a machine.
#[derive(Debug)]
pub(super) struct MachineSockets(pub(super) Confined<Objects>);

/// A connection's descriptor belongs to its object, and is closed with it: this one is ours.
/// `dialled` when the host opened the connection.
pub(super) fn duplicate(
    connection: &VZVirtioSocketConnection,
    dialled: bool,
) -> Result<RawConnection, String> {
    // SAFETY: properties of a connection that is valid during the call.
    let (descriptor, source, destination) = unsafe {
        (connection.fileDescriptor(), connection.sourcePort(), connection.destinationPort())
    };
    if descriptor < 0 {
        return Err("the connection was closed at once".to_owned());
    }
    // SAFETY: the descriptor is open for as long as its object, which outlives this borrow.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let socket = borrowed.try_clone_to_owned().map_err(|error| error.to_string())?;
    let (host_port, guest_port) =
        if dialled { (source, destination) } else { (destination, source) };
    Ok(RawConnection { socket, host_port, guest_port })
}

/// The device, if the machine has it.
fn device(objects: &Objects) -> Option<Retained<VZVirtioSocketDevice>> {
    // SAFETY: read on the machine's queue.
    let devices = unsafe { objects.machine.socketDevices() };
    devices.firstObject()?.downcast::<VZVirtioSocketDevice>().ok()
}

impl Sockets for MachineSockets {
    fn connect(&self, port: u32, answer: Answer) {
        self.0.spawn(move |objects| {
            let Some(device) = device(objects) else {
                return answer(Err("the machine has no vsock device".to_owned()));
            };
            let answer = Cell::new(Some(answer));
            let handler = RcBlock::new(
                move |connection: *mut VZVirtioSocketConnection, error: *mut NSError| {
                    let Some(answer) = answer.take() else { return };
                    // SAFETY: the framework passes nil or what is valid during the call.
                    let (connection, error) = unsafe { (connection.as_ref(), error.as_ref()) };
                    answer(match (connection, error) {
                        (Some(connection), None) => duplicate(connection, true),
                        (_, Some(error)) => Err(words(error)),
                        (None, None) => Err("the framework gave no connection".to_owned()),
                    });
                },
            );
            // SAFETY: called on the machine's queue; the framework copies the handler.
            unsafe { device.connectToPort_completionHandler(port, &handler) };
        });
    }

    fn listen(&self, port: u32) {
        self.0.spawn(move |objects| {
            if let Some(device) = device(objects) {
                // SAFETY: called on the machine's queue; `objects` keeps listener and delegate.
                unsafe { device.setSocketListener_forPort(&objects.listener.0, port) };
            }
        });
    }

    fn unlisten(&self, port: u32) {
        self.0.spawn(move |objects| {
            if let Some(device) = device(objects) {
                // SAFETY: called on the machine's queue.
                unsafe { device.removeSocketListenerForPort(port) };
            }
        });
    }
}
