//! The client of the guest's agent: exec, readiness, shutdown.
