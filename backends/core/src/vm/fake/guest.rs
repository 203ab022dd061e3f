//! The guest: an agent that speaks the real protocol and runs a few words.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use vmoon_protocol::frame::{self, Decoder, Frame};
use vmoon_protocol::message::{Command, Exec, Exit, Failure, Life, Ready};
use vmoon_protocol::watch::Watch;
use vmoon_protocol::{Kind, MAX_PAYLOAD};

use super::machine::{FakeMachine, GuestEnd};
use crate::lifecycle::State;
use crate::vsock::ConnectionId;

/// Serves a connection until the host closes it.
pub(super) async fn serve(
    machine: Arc<FakeMachine>,
    id: ConnectionId,
    end: GuestEnd,
    announces: bool,
) {
    let mut end = end.lock().await;
    let mut agent = Agent { machine, id, end: &mut end, decoder: Decoder::new() };
    if announces {
        let ready = Ready { version: agent.machine.behaviour.version, guest: "fake".to_owned() };
        agent.send(Kind::Ready, 0, &ready.encode()).await;
    }
    while let Some(frame) = agent.next().await {
        agent.take(frame).await;
    }
}

struct Agent<'a> {
    machine: Arc<FakeMachine>,
    id: ConnectionId,
    end: &'a mut DuplexStream,
    decoder: Decoder,
}

impl Agent<'_> {
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            // A guest that is not running runs nothing.
            let mut status = crate::backend::Machine::watch(self.machine.as_ref());
            let mut buffer = [0; 4096];
            let count = self.end.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
            let runs = |state| matches!(state, State::Running | State::Stopping);
            status.wait_for(|status| runs(status.state)).await.ok()?;
            self.decoder.push(&buffer[..count]);
        }
    }

    async fn send(&mut self, kind: Kind, id: u64, payload: &[u8]) {
        let mut bytes = Vec::new();
        frame::encode(&mut bytes, kind, id, payload);
        // The host may be gone.
        let _ = self.end.write_all(&bytes).await;
    }

    async fn exit(&mut self, id: u64, exit: Exit) {
        self.send(Kind::Exit, id, &exit.encode()).await;
    }

    async fn take(&mut self, frame: Frame) {
        match Kind::from_value(frame.kind) {
            Some(Kind::Life) => {
                let life = Life::decode(&frame.payload).unwrap();
                assert_ne!(life.entropy, [0; 32]);
                self.machine.note(format!("life {}", life.epoch));
                let is_control = self.id.host == crate::units::VsockPort::AGENT;
                if is_control && self.machine.behaviour.confirms_life {
                    self.send(Kind::LifeDone, frame.id, &life.epoch.to_le_bytes()).await;
                }
            }
            Some(Kind::Shutdown) if self.machine.behaviour.heeds_shutdown => {
                self.machine.note("shutdown".to_owned());
                self.send(Kind::Done, frame.id, &[]).await;
                self.machine.end(State::Stopped, "powered off");
            }
            Some(Kind::Watch) if Watch::decode(&frame.payload) == Some(Watch::Port(80)) => {
                self.send(Kind::Done, frame.id, &[]).await;
            }
            Some(Kind::Watch) => {
                self.send(Kind::Observed, frame.id, b"nobody listens").await;
                self.send(Kind::Observed, frame.id, b"only port 80 is listened on").await;
            }
            Some(Kind::Unwatch) => self.machine.note("unwatch".to_owned()),
            Some(Kind::Exec) => self.execute(frame).await,
            _ => {}
        }
    }

    async fn execute(&mut self, frame: Frame) {
        let id = frame.id;
        let exec = Exec::decode(&frame.payload).unwrap();
        let Command::Shell(text) = exec.command else { panic!("the tests use the shell") };
        let text = String::from_utf8(text).unwrap();
        self.machine.note(format!("exec {text}"));
        let (word, rest) = text.split_once(' ').unwrap_or((&text, ""));
        match word {
            "echo" => {
                self.send(Kind::Stdout, id, format!("{rest}\n").as_bytes()).await;
                self.exit(id, Exit::default()).await;
            }
            "false" => {
                self.send(Kind::Stderr, id, b"no\n").await;
                self.exit(id, Exit { code: 1, signal: 0, duration_ns: 1500 }).await;
            }
            // Input that was not announced is empty, whatever frames follow.
            "cat" if !exec.stdin => self.exit(id, Exit::default()).await,
            "cat" => {
                while let Some(frame) = self.next().await {
                    match Kind::from_value(frame.kind) {
                        Some(Kind::Stdin) if frame.payload.is_empty() => break,
                        Some(Kind::Stdin) => self.send(Kind::Stdout, id, &frame.payload).await,
                        Some(Kind::Signal) => {
                            return self
                                .exit(id, Exit { code: 143, signal: 15, duration_ns: 1 })
                                .await;
                        }
                        _ => {}
                    }
                }
                self.exit(id, Exit::default()).await;
            }
            "sleep" => {
                self.send(Kind::Stdout, id, b"sleeping\n").await;
                let timeout = exec.timeout_ms.map_or(Duration::MAX, Duration::from_millis);
                // Ends with the timeout, or when the host closes the connection.
                if tokio::time::timeout(timeout, self.next()).await.is_err() {
                    let duration_ns = u64::try_from(timeout.as_nanos()).unwrap();
                    self.exit(id, Exit { code: 137, signal: 9, duration_ns }).await;
                } else {
                    self.machine.note("sleep was cut off".to_owned());
                }
            }
            "hang" => {
                let _ = self.next().await;
            }
            "flood" => loop {
                self.send(Kind::Stdout, id, &vec![b'x'; MAX_PAYLOAD]).await;
                self.machine.note("flooded".to_owned());
            },
            "crash" => self.machine.end(State::Crashed, "BUG: the test asked for it"),
            "poweroff" => self.machine.end(State::Stopped, "powered off"),
            _ => {
                let failure =
                    Failure { code: "exec.not_found".to_owned(), message: format!("no {word}") };
                self.send(Kind::Error, id, &failure.encode()).await;
            }
        }
    }
}
