//! The host's side, over Unix sockets, for tests of the agent's program.
#![allow(dead_code, reason = "each test program uses a part")]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use vmoon_protocol::frame::{self, Decoder, Frame, Kind};
use vmoon_protocol::message::{Exec, Exit, Failure, Ready};
use vmoon_protocol::watch::Watch;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// An agent that has announced itself. Ends with the test.
pub(crate) struct Agent {
    pub(crate) control: Connection,
    pub(crate) ready: Ready,
    listener: UnixListener,
    directory: tempfile::TempDir,
    child: Child,
}

impl Agent {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("host.sock")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_vmoon-agent"))
            .args(["serve", "--unix"])
            .arg(directory.path())
            .spawn()
            .unwrap();
        let (control, ready) = accept(&listener);
        Self { control, ready, listener, directory, child }
    }

    /// Where the agent's sockets are.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A new command connection.
    pub(crate) fn connect(&self) -> Connection {
        Connection::new(UnixStream::connect(self.directory.path().join("guest.sock")).unwrap())
    }

    pub(crate) fn drop_control_and_wait_ready(&mut self) {
        self.control.stream.shutdown(std::net::Shutdown::Both).unwrap();
        (self.control, self.ready) = accept(&self.listener);
    }

    pub(crate) fn has_ended(&mut self, within: Duration) -> bool {
        let until = Instant::now() + within;
        while Instant::now() < until {
            if self.child.try_wait().unwrap().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn accept(listener: &UnixListener) -> (Connection, Ready) {
    let mut control = Connection::new(listener.accept().unwrap().0);
    let frame = control.next_frame();
    assert_eq!(frame.kind, Kind::Ready as u16);
    (control, Ready::decode(&frame.payload).unwrap())
}

/// A connection of the host's.
pub(crate) struct Connection {
    stream: UnixStream,
    decoder: Decoder,
    last_id: u64,
}

impl Connection {
    fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, decoder: Decoder::new(), last_id: 100 }
    }

    /// A second handle for sending.
    pub(crate) fn writer(&self) -> Self {
        Self::new(self.stream.try_clone().unwrap())
    }

    pub(crate) fn send(&mut self, kind: Kind, id: u64, payload: &[u8]) {
        let mut bytes = Vec::new();
        frame::encode(&mut bytes, kind, id, payload);
        self.send_raw(&bytes);
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn next_frame(&mut self) -> Frame {
        let mut buffer = [0; 8192];
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return frame;
            }
            let count = self.stream.read(&mut buffer).expect("a frame in time");
            assert!(count > 0, "the agent closed the connection");
            self.decoder.push(&buffer[..count]);
        }
    }

    /// Asks for a wait and returns what the agent sees instead.
    pub(crate) fn watch(&mut self, id: u64, watch: &Watch) -> String {
        self.send(Kind::Watch, id, &watch.encode());
        let frame = self.next_frame();
        assert_eq!((frame.kind, frame.id), (Kind::Observed as u16, id), "{frame:?}");
        String::from_utf8(frame.payload).unwrap()
    }

    /// The answer to a wait, whatever is seen before.
    pub(crate) fn answer(&mut self, id: u64) -> Frame {
        loop {
            let frame = self.next_frame();
            assert_eq!(frame.id, id, "{frame:?}");
            if frame.kind != Kind::Observed as u16 {
                return frame;
            }
        }
    }

    /// Whether nothing arrives for that long.
    pub(crate) fn is_silent(&mut self, duration: Duration) -> bool {
        self.stream.set_read_timeout(Some(duration)).unwrap();
        let mut buffer = [0; 8192];
        let outcome = self.stream.read(&mut buffer);
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        if let Ok(count) = outcome {
            self.decoder.push(&buffer[..count]);
        }
        outcome.is_err()
    }

    pub(crate) fn is_closed(&mut self) -> bool {
        !matches!(self.stream.read(&mut [0; 64]), Ok(1..))
    }

    pub(crate) fn start(&mut self, exec: &Exec) -> u64 {
        self.last_id += 1;
        self.send(Kind::Exec, self.last_id, &exec.encode());
        self.last_id
    }

    pub(crate) fn exec(&mut self, exec: &Exec) -> Reply {
        let id = self.start(exec);
        self.collect(id)
    }

    /// All that a command says until its end.
    pub(crate) fn collect(&mut self, id: u64) -> Reply {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            let frame = self.next_frame();
            assert_eq!(frame.id, id, "{frame:?}");
            match Kind::from_value(frame.kind) {
                Some(Kind::Stdout) => stdout.extend_from_slice(&frame.payload),
                Some(Kind::Stderr) => stderr.extend_from_slice(&frame.payload),
                Some(Kind::Exit) => {
                    let outcome = Ok(Exit::decode(&frame.payload).unwrap());
                    return Reply { stdout, stderr, outcome };
                }
                Some(Kind::Error) => {
                    let outcome = Err(Failure::decode(&frame.payload));
                    return Reply { stdout, stderr, outcome };
                }
                _ => panic!("{frame:?}"),
            }
        }
    }
}

/// How a command went.
pub(crate) struct Reply {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    outcome: Result<Exit, Failure>,
}

impl Reply {
    pub(crate) fn text(&self) -> (&str, &str) {
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        (text(&self.stdout), text(&self.stderr))
    }

    pub(crate) fn exit(&self) -> Exit {
        self.outcome.clone().expect("the command ran")
    }

    pub(crate) fn failure(&self) -> Failure {
        self.outcome.clone().expect_err("the command cannot run")
    }
}
