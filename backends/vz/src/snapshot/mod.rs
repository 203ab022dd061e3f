//! Saved states, in a machine's folder and in a directory of the user's.

pub(crate) mod image;
pub(crate) mod saved;

pub(crate) use image::{Frozen, VzSnapshot};
