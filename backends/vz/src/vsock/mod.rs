//! Streams, listeners, and connecting with a deadline.

pub mod connect;
pub mod hub;
pub mod listener;
pub mod stream;
