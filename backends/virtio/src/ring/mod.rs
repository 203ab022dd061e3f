//! The rings, with every check on what the guest wrote (virtio 1.3 section 2.7).

mod chain;
mod cursor;
#[cfg(test)]
pub(crate) mod driver;
mod queue;

pub use chain::Chain;
pub use cursor::Cursor;
pub use queue::Ring;
