use std::time::Duration;

use crate::error::Code;
use crate::lifecycle::State;
use crate::vm::StopOutcome;
use crate::vm::fake::{Behaviour, booted};

const TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::test(start_paused = true)]
async fn the_agent_is_asked_first() {
    let (_host, vm, machine) = booted(Behaviour::default()).await;
    assert_eq!(vm.remove().unwrap_err().code(), Code::VmState);
    assert_eq!(vm.stop(TIMEOUT).await.unwrap(), StopOutcome::Graceful);
    assert_eq!(machine.log(), ["shutdown"]);
    assert_eq!(vm.state(), State::Stopped);
    assert_eq!(vm.stop(TIMEOUT).await.unwrap_err().code(), Code::VmState);
    vm.remove().unwrap();
    assert!(machine.is_closed());
}

#[tokio::test(start_paused = true)]
async fn then_the_power_button_is_pressed() {
    let deaf = Behaviour { heeds_shutdown: false, ..Behaviour::default() };
    let (_host, vm, machine) = booted(deaf).await;
    vm.pause().await.unwrap();
    let start = tokio::time::Instant::now();
    assert_eq!(vm.stop(TIMEOUT).await.unwrap(), StopOutcome::Graceful);
    assert_eq!(machine.log(), ["power button"]);
    assert!(start.elapsed() < TIMEOUT / 2);
}

#[tokio::test(start_paused = true)]
async fn at_the_timeout_the_machine_is_killed() {
    let deaf =
        Behaviour { heeds_shutdown: false, heeds_power_button: false, ..Behaviour::default() };
    let (_host, vm, machine) = booted(deaf).await;
    let start = tokio::time::Instant::now();
    assert_eq!(vm.stop(TIMEOUT).await.unwrap(), StopOutcome::Forced);
    assert!(start.elapsed() >= TIMEOUT);
    assert_eq!(machine.log(), ["power button"]);
    assert_eq!(vm.status().reason.as_deref(), Some("killed"));
    assert_eq!(vm.state(), State::Stopped);
}

#[tokio::test(start_paused = true)]
async fn waits_for_states_end_when_they_cannot_come_true() {
    let (_host, vm, machine) = booted(Behaviour::default()).await;
    vm.wait_state(State::Running, None).await.unwrap();
    let late = vm.wait_state(State::Stopped, Some(TIMEOUT)).await.unwrap_err();
    assert_eq!(late.code(), Code::VmTimeout);
    assert!(late.message().contains("stopped"), "{late}");
    machine.end(State::Crashed, "panic");
    let crashed = vm.wait_state(State::Stopped, None).await.unwrap_err();
    assert_eq!(crashed.code(), Code::GuestPanic);
    vm.wait_state(State::Crashed, None).await.unwrap();
    vm.kill().await.unwrap();
    let stopped = vm.wait_state(State::Running, None).await.unwrap_err();
    assert_eq!(stopped.code(), Code::GuestStopped);
    vm.close();
    vm.wait_state(State::Stopped, None).await.unwrap();
}
