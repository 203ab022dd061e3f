//! What a snapshot remembers of the connections to the agent.

use vmoon_protocol::message::Ready;

use crate::vsock::{ConnectionId, VsockStream};

/// A connection at a moment when no frame was under way on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) id: ConnectionId,
    /// Which stream of this process it was: ports are used again, serials are not.
    pub(super) serial: u64,
    pub(super) activity: u64,
}

/// The connections that lay idle when a snapshot began.
#[derive(Debug)]
pub(crate) struct Before {
    pub(super) control: Option<Mark>,
    pub(super) idle: Vec<Mark>,
}

/// The agent as it was in a snapshot: which connections lay idle, and whether it served.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memo {
    pub(super) control: Option<Mark>,
    pub(super) idle: Vec<Mark>,
    pub(super) ready: Option<Ready>,
    /// Ids and epochs that the guest in the snapshot knows are below these.
    pub(super) next_id: u64,
    pub(super) next_epoch: u64,
}

impl Memo {
    /// Whether the agent had announced itself.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.is_some()
    }

    /// What lay idle both when the snapshot began and when it was done, untouched in between.
    pub(super) fn unite(before: &Before, after: Before) -> Self {
        Self {
            control: after.control.filter(|mark| before.control == Some(*mark)),
            idle: after.idle.into_iter().filter(|mark| before.idle.contains(mark)).collect(),
            ..Self::default()
        }
    }

    /// Sorts the connections that live on in a fork into control and command connections;
    /// the others are dropped, and so reset.
    pub(super) fn sort(
        &self,
        streams: Vec<VsockStream>,
    ) -> (Option<VsockStream>, Vec<VsockStream>) {
        let mut control = None;
        let mut idle = Vec::new();
        for stream in streams {
            let id = stream.id();
            if self.control.is_some_and(|mark| mark.id == id) {
                control = Some(stream);
            } else if self.idle.iter().any(|mark| mark.id == id) {
                idle.push(stream);
            }
        }
        (control, idle)
    }
}
