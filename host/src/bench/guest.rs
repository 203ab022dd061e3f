//! Guests in the state in which they are measured.

use std::sync::Arc;
use std::time::Duration;

use vmoon_core::vm::{ExecRequest, Host, Vm};
use vmoon_core::{Bytes, Code, Error, Result};

use super::plan::Plan;
use crate::cli::BenchGuest;

/// How long a guest is left alone after a command, whose reply comes before the guest is idle.
const IDLE: Duration = Duration::from_millis(2);

/// A machine that has run commands and is idle.
pub(super) async fn boot(host: &Arc<Host>, plan: &Plan, memory: Bytes) -> Result<Arc<Vm>> {
    let vm = host.boot(None, plan.spec(memory)).await?;
    settle(&vm).await?;
    Ok(vm)
}

/// Runs commands until all that the first ones set up is there; then the guest is idle.
pub(super) async fn settle(vm: &Vm) -> Result<()> {
    for _ in 0..3 {
        succeed(vm, "true").await?;
    }
    idle().await;
    Ok(())
}

/// Waits until the guest has nothing more to do.
pub(super) async fn idle() {
    tokio::time::sleep(IDLE).await;
}

/// Writes to as many pages as the plan says; then the guest is idle. None of this is timed: a
/// KVM that emulates takes milliseconds for it.
pub(super) async fn dirty(vm: &Vm, plan: &Plan) -> Result<()> {
    let pages = plan.dirty;
    if pages > 0 {
        let command = match plan.guest {
            BenchGuest::Micro => format!("dirty {pages} 1"),
            BenchGuest::Linux => format!(
                "dd if=/dev/urandom of=/vmoon-bench bs=4096 count={pages} conv=notrunc 2>&1"
            ),
        };
        succeed(vm, &command).await?;
    }
    idle().await;
    Ok(())
}

/// Runs a command that must not fail.
pub(super) async fn succeed(vm: &Vm, command: &str) -> Result<()> {
    let result = vm.exec(ExecRequest::shell(command)).await?;
    if result.ok() {
        return Ok(());
    }
    let said = [result.stdout, result.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    Err(Error::new(
        Code::ExecStatus,
        format!("{command:?} exited with code {}: {}", result.code, said.trim()),
    ))
}
