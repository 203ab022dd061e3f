//! A backend in memory whose guests speak the agent's real protocol; for this crate's tests.

mod backend;
mod disk;
mod guest;
mod image;
mod machine;
mod stream;

pub(super) use backend::{Behaviour, FakeBackend};
pub(super) use machine::FakeMachine;

use std::sync::Arc;
use std::time::Duration;

use super::{ExecRequest, Host, Vm};
use crate::backend::Backend;
use crate::guest::GuestImages;
use crate::spec::MachineSpec;

/// A host whose only backend behaves like this.
pub(super) fn host(behaviour: Behaviour) -> (Arc<Host>, Arc<FakeBackend>) {
    let backend = Arc::new(FakeBackend::new("fake", behaviour));
    (host_of(vec![backend.clone()]), backend)
}

/// A host with these backends.
pub(super) fn host_of(backends: Vec<Arc<dyn Backend>>) -> Arc<Host> {
    Host::new(backends, GuestImages { micro: Some(b"\x7fELF"), agent: b"" })
}

/// The smallest spec, impatient.
pub(super) fn spec() -> MachineSpec {
    MachineSpec { timeout: Duration::from_secs(2), ..MachineSpec::default() }
}

/// A booted machine, with its host and its other side.
pub(super) async fn booted(behaviour: Behaviour) -> (Arc<Host>, Arc<Vm>, Arc<FakeMachine>) {
    let (host, backend) = host(behaviour);
    let vm = host.boot(None, spec()).await.unwrap();
    let machine = backend.machine(0);
    (host, vm, machine)
}

/// The standard output of a command that must succeed.
pub(super) async fn output(vm: &Vm, command: &str) -> String {
    let result = vm.exec(ExecRequest::shell(command)).await.unwrap();
    assert!(result.ok(), "{result:?}");
    String::from_utf8(result.stdout).unwrap()
}
