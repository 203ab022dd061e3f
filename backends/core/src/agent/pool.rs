//! Command connections that wait for the next command.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::connection::Connection;
use super::memory::Mark;

/// How many connections are kept; those beyond are closed after their command.
const MAX_IDLE: usize = 8;

/// The idle command connections of one machine. The last one put back is the first one out: its
/// buffers are warm in both caches.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<Vec<Connection>>);

impl Pool {
    pub(super) fn new(connections: Vec<Connection>) -> Self {
        Self(Mutex::new(connections))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An open connection, if one is idle.
    pub(super) fn take(&self) -> Option<Connection> {
        let mut idle = self.lock();
        while let Some(mut connection) = idle.pop() {
            if connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose command has ended, unless it is in the middle of a frame.
    pub(super) fn put(&self, connection: Connection) {
        let mut idle = self.lock();
        if connection.is_idle() && idle.len() < MAX_IDLE {
            idle.push(connection);
        }
    }

    pub(super) fn marks(&self) -> Vec<Mark> {
        self.lock().iter().filter_map(Connection::mark).collect()
    }

    /// After a restore: keeps exactly the connections that lay idle in the snapshot.
    pub(super) fn rewind(&self, kept: &[Mark]) {
        let mut idle = self.lock();
        idle.retain(|connection| kept.iter().any(|mark| mark.serial == connection.serial()));
        idle.iter_mut().for_each(Connection::rewind);
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }
}
