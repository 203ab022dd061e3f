//! What a snapshot remembers of the connections to the agent.

use serde::{Deserialize, Serialize};
use vmoon_protocol::VERSION;
use vmoon_protocol::message::Ready;

use crate::units::VsockPort;
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
    /// Those of commands that run, but say nothing.
    pub(super) running: Vec<Mark>,
}

/// The agent as it was in a snapshot: which connections lay idle, and whether it served.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "SavedMemo", into = "SavedMemo")]
pub(crate) struct Memo {
    pub(super) control: Option<Mark>,
    pub(super) idle: Vec<Mark>,
    /// Of commands that ran and said nothing: they run on after a restore and in each fork.
    pub(super) running: Vec<Mark>,
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

    /// Checks that the agent in the snapshot, if it served, can be spoken to.
    ///
    /// # Errors
    /// The version that it speaks.
    pub(crate) fn check_version(&self) -> Result<(), u32> {
        match &self.ready {
            Some(ready) if ready.version != VERSION => Err(ready.version),
            _ => Ok(()),
        }
    }

    /// What lay idle both when the snapshot began and when it was done, untouched in between.
    pub(super) fn unite(before: &Before, after: Before) -> Self {
        Self {
            control: after.control.filter(|mark| before.control == Some(*mark)),
            idle: after.idle.into_iter().filter(|mark| before.idle.contains(mark)).collect(),
            running: after.running.into_iter().filter(|it| before.running.contains(it)).collect(),
            ..Self::default()
        }
    }

    /// Sorts the connections that live on in a fork into control, idle command connections and
    /// those of running commands; the others are dropped, and so reset.
    pub(super) fn sort(
        &self,
        streams: Vec<VsockStream>,
    ) -> (Option<VsockStream>, Vec<VsockStream>, Vec<VsockStream>) {
        let mut control = None;
        let (mut idle, mut running) = (Vec::new(), Vec::new());
        for stream in streams {
            let id = stream.id();
            if self.control.is_some_and(|mark| mark.id == id) {
                control = Some(stream);
            } else if self.idle.iter().any(|mark| mark.id == id) {
                idle.push(stream);
            } else if self.running.iter().any(|mark| mark.id == id) {
                running.push(stream);
            }
        }
        (control, idle, running)
    }
}

/// A memo on disk. Connections are known by their ports: their streams are gone.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedMemo {
    control: Option<SavedConnection>,
    idle: Vec<SavedConnection>,
    running: Vec<SavedConnection>,
    /// The version that the agent announced, and what it called its guest.
    ready: Option<(u32, String)>,
    next_id: u64,
    next_epoch: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedConnection {
    host_port: u32,
    guest_port: u32,
}

impl From<Mark> for SavedConnection {
    fn from(mark: Mark) -> Self {
        Self { host_port: mark.id.host.0, guest_port: mark.id.guest.0 }
    }
}

impl From<SavedConnection> for Mark {
    /// A mark that fits no stream of this process.
    fn from(saved: SavedConnection) -> Self {
        let id =
            ConnectionId { host: VsockPort(saved.host_port), guest: VsockPort(saved.guest_port) };
        Self { id, serial: 0, activity: 0 }
    }
}

impl From<Memo> for SavedMemo {
    fn from(memo: Memo) -> Self {
        Self {
            control: memo.control.map(Into::into),
            idle: memo.idle.into_iter().map(Into::into).collect(),
            running: memo.running.into_iter().map(Into::into).collect(),
            ready: memo.ready.map(|ready| (ready.version, ready.guest)),
            next_id: memo.next_id,
            next_epoch: memo.next_epoch,
        }
    }
}

impl From<SavedMemo> for Memo {
    fn from(saved: SavedMemo) -> Self {
        Self {
            control: saved.control.map(Into::into),
            idle: saved.idle.into_iter().map(Into::into).collect(),
            running: saved.running.into_iter().map(Into::into).collect(),
            ready: saved.ready.map(|(version, guest)| Ready { version, guest }),
            next_id: saved.next_id,
            next_epoch: saved.next_epoch,
        }
    }
}
