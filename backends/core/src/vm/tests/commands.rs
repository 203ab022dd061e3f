use std::time::Duration;

use vmoon_protocol::MAX_PAYLOAD;
use vmoon_protocol::watch::Watch;

use crate::error::Code;
use crate::units::{Bytes, VsockPort};
use crate::vm::fake::{Behaviour, booted, output};
use crate::vm::{ExecRequest, Output};

#[tokio::test]
async fn commands_share_a_connection_and_codes_are_data() {
    let (_host, vm, machine) = booted(Behaviour::default()).await;
    for _ in 0..5 {
        assert_eq!(output(&vm, "echo hello").await, "hello\n");
    }
    let result = vm.exec(ExecRequest::shell("false")).await.unwrap();
    assert_eq!((result.code, result.signal, result.ok()), (1, None, false));
    assert_eq!(result.stderr, b"no\n");
    assert_eq!(result.duration, Duration::from_nanos(1500));
    let missing = vm.exec(ExecRequest::shell("frobnicate")).await.unwrap_err();
    assert_eq!(missing.code(), Code::ExecNotFound);
    assert_eq!(missing.details()["command"], "frobnicate");
    assert_eq!(output(&vm, "echo hello").await, "hello\n");
    assert_eq!(machine.connects(), 1);
    let (one, two) = tokio::join!(output(&vm, "echo one"), output(&vm, "echo two"));
    assert_eq!((one.as_str(), two.as_str()), ("one\n", "two\n"));
    assert_eq!(machine.connects(), 2);
    assert!(!machine.log().iter().any(|line| line.starts_with("life")));
}

#[tokio::test]
async fn long_input_and_output_flow_at_the_same_time() {
    let (_host, vm, machine) = booted(Behaviour::default()).await;
    let input: Vec<u8> = (0..u32::try_from(MAX_PAYLOAD * 5).unwrap())
        .map(|index| u8::try_from(index % 251).unwrap())
        .collect();
    let request = ExecRequest { stdin: Some(input.clone()), ..ExecRequest::shell("cat") };
    let result = vm.exec(request).await.unwrap();
    assert!(result.stdout == input);
    let empty = ExecRequest { stdin: Some(Vec::new()), ..ExecRequest::shell("cat") };
    assert!(vm.exec(empty).await.unwrap().ok());
    assert_eq!(machine.connects(), 1);
    let long = vm.exec(ExecRequest::shell(vec![b'x'; MAX_PAYLOAD])).await.unwrap_err();
    assert_eq!(long.code(), Code::VmSpec);
}

#[tokio::test(start_paused = true)]
async fn timeouts_are_the_guests_and_after_a_grace_the_hosts() {
    let (_host, vm, machine) = booted(Behaviour::default()).await;
    let timeout = Some(Duration::from_millis(300));
    let killed = vm.exec(ExecRequest { timeout, ..ExecRequest::shell("sleep") }).await.unwrap_err();
    assert_eq!(killed.code(), Code::ExecTimeout);
    assert_eq!(killed.details()["command"], "sleep");
    assert_eq!(killed.details()["output"], "sleeping\n");
    assert!(killed.message().contains("300ms"), "{killed}");
    assert_eq!(output(&vm, "echo same").await, "same\n");
    assert_eq!(machine.connects(), 1, "the guest ended it: the connection is free");
    let hung = vm.exec(ExecRequest { timeout, ..ExecRequest::shell("hang") }).await.unwrap_err();
    assert_eq!(hung.code(), Code::ExecTimeout);
    assert_eq!(output(&vm, "echo new").await, "new\n");
    assert_eq!(machine.connects(), 2, "the host gave up: the connection was reset");
}

#[tokio::test]
async fn a_dropped_command_is_killed() {
    let (_host, vm, machine) = booted(Behaviour::default()).await;
    let exec = vm.exec(ExecRequest::shell("sleep"));
    assert!(tokio::time::timeout(Duration::from_millis(30), exec).await.is_err());
    let process = vm.spawn(ExecRequest::shell("sleep")).await.unwrap();
    let input = process.input();
    drop(process);
    tokio::time::sleep(Duration::from_millis(5)).await;
    let cut = machine.log().iter().filter(|line| *line == "sleep was cut off").count();
    assert_eq!(cut, 2);
    assert_eq!(input.write(b"late").await.unwrap_err().code(), Code::VsockReset);
}

#[tokio::test]
async fn a_process_streams_both_ways() {
    let (_host, vm, machine) = booted(Behaviour::default()).await;
    let request = ExecRequest {
        stdin: Some(b"first ".to_vec()),
        keep_stdin_open: true,
        ..ExecRequest::shell("cat")
    };
    let mut process = vm.spawn(request).await.unwrap();
    let input = process.input();
    assert_eq!(process.next().await.unwrap(), Output::Stdout(b"first ".to_vec()));
    let big = vec![b'y'; MAX_PAYLOAD * 4];
    let write = async {
        input.write(&big).await.unwrap();
        input.close().await.unwrap();
    };
    let read = async {
        let mut received = Vec::new();
        loop {
            match process.next().await.unwrap() {
                Output::Stdout(bytes) => received.extend(bytes),
                Output::Exit(result) => break (received, result),
                Output::Stderr(bytes) => panic!("{bytes:?}"),
            }
        }
    };
    let ((), (received, result)) = tokio::join!(write, read);
    assert!(received == big);
    assert!(result.ok());
    assert_eq!(process.next().await.unwrap(), Output::Exit(result), "the end stays the end");
    assert!(input.close().await.is_err());

    let request = ExecRequest { keep_stdin_open: true, ..ExecRequest::shell("cat") };
    let mut process = vm.spawn(request).await.unwrap();
    process.input().signal(15).await.unwrap();
    let Output::Exit(result) = process.next().await.unwrap() else { panic!() };
    assert_eq!((result.code, result.signal), (143, Some(15)));
    assert_eq!(machine.connects(), 1);
}

#[tokio::test]
async fn a_reader_that_does_not_read_stops_the_writer() {
    let (_host, vm, machine) = booted(Behaviour::default()).await;
    let mut process = vm.spawn(ExecRequest::shell("flood")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(30)).await;
    let before = machine.log().len();
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(machine.log().len(), before, "the guest goes on writing");
    for _ in 0..8 {
        assert!(matches!(process.next().await.unwrap(), Output::Stdout(_)));
    }
    assert!(machine.log().len() > before);
}

#[tokio::test]
async fn a_crash_or_a_stop_ends_what_waits() {
    let (_host, vm, machine) = booted(Behaviour::default()).await;
    let mut process = vm.spawn(ExecRequest::shell("sleep")).await.unwrap();
    process.next().await.unwrap();
    let error = vm.exec(ExecRequest::shell("crash")).await.unwrap_err();
    assert_eq!(error.code(), Code::GuestPanic);
    assert!(error.message().contains("the test asked for it"), "{error}");
    assert_eq!(process.next().await.unwrap_err().code(), Code::GuestPanic);
    let refused = vm.exec(ExecRequest::shell("echo x")).await.unwrap_err();
    assert_eq!(refused.code(), Code::VmState);
    assert_eq!(refused.details()["state"], "crashed");
    drop(machine);

    let (_host, vm, machine) = booted(Behaviour::default()).await;
    let error = vm.exec(ExecRequest::shell("poweroff")).await.unwrap_err();
    assert_eq!(error.code(), Code::GuestStopped);
    drop(machine);

    // The reset may come before the change of state.
    let (_host, vm, machine) = booted(Behaviour::default()).await;
    let ending = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        machine.reset_connections();
        tokio::time::sleep(Duration::from_millis(10)).await;
        machine.end(crate::State::Crashed, "late news");
    };
    let (error, ()) = tokio::join!(vm.exec(ExecRequest::shell("sleep")), ending);
    assert_eq!(error.unwrap_err().code(), Code::GuestPanic);
}

#[tokio::test]
async fn a_paused_machine_runs_no_commands() {
    let (_host, vm, _machine) = booted(Behaviour::default()).await;
    vm.pause().await.unwrap();
    let error = vm.exec(ExecRequest::shell("echo x")).await.unwrap_err();
    assert_eq!(error.code(), Code::VmState);
    assert!(error.hint().unwrap().contains("resume"));
    vm.resume().await.unwrap();
    output(&vm, "echo x").await;
}

#[tokio::test(start_paused = true)]
async fn watches_are_pushed_and_withdrawn() {
    let (_host, vm, machine) = booted(Behaviour::default()).await;
    vm.watch_guest(Watch::Port(80), None).await.unwrap();
    let error = vm.watch_guest(Watch::Port(81), Some(Duration::from_secs(1))).await.unwrap_err();
    assert_eq!(error.code(), Code::VmTimeout);
    assert!(error.message().contains("port 81"), "{error}");
    assert!(error.message().ends_with(": only port 80 is listened on"), "{error}");
    assert_eq!(error.details()["observed"], "only port 80 is listened on");
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(machine.log(), ["unwatch"]);
}

#[tokio::test(start_paused = true)]
async fn connections_are_refused_or_time_out_with_what_to_do() {
    let (_host, vm, _machine) = booted(Behaviour::default()).await;
    let refused = vm.connect(VsockPort(5), None).await.unwrap_err();
    assert_eq!(refused.code(), Code::VsockRefused);
    assert!(refused.hint().unwrap().contains("listen"), "{:?}", refused.hint());
    let late = vm.connect(VsockPort(9), Some(Duration::from_secs(1))).await.unwrap_err();
    assert_eq!(late.code(), Code::VsockTimeout);
    assert_eq!(late.details()["port"], 9);
}

#[tokio::test(start_paused = true)]
async fn the_balloon_is_awaited() {
    let (_host, vm, _machine) = booted(Behaviour::default()).await;
    let wait = Some(Duration::from_secs(1));
    vm.set_balloon(Bytes::mib(128), wait).await.unwrap();
    assert_eq!(vm.balloon().await.unwrap().actual, Bytes::mib(128));
    assert_eq!(vm.set_balloon(Bytes::gib(1), None).await.unwrap_err().code(), Code::VmSpec);

    let stubborn = Behaviour { balloon_moves: false, ..Behaviour::default() };
    let (_host, vm, _machine) = booted(stubborn).await;
    let error = vm.set_balloon(Bytes::mib(64), wait).await.unwrap_err();
    assert_eq!(error.code(), Code::BalloonTimeout);
    assert_eq!(error.details()["target"], Bytes::mib(64).get());
    assert_eq!(error.details()["actual"], Bytes::mib(256).get());
}
