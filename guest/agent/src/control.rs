//! The control connection: readiness, lives, waits, shutdown.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use vmoon_protocol::frame::{self, Decoder, Frame, Kind};
use vmoon_protocol::message::{Failure, Life, Ready};
use vmoon_protocol::watch::Watch;
use vmoon_protocol::{MAX_PAYLOAD, VERSION};

use crate::power::{self, Power};
use crate::service::{self, Platform};
use crate::transport::Transport;
use crate::watch::{self, Outcome};
use crate::{life, readiness, sys};

/// The first and the longest pause between two attempts to reach the host.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Keeps a control connection for ever. The host resets it when it does not know it, which is
/// what happens to a guest that is restored into another host process: the agent dials again.
pub(crate) fn run(transport: &Transport, platform: Platform) -> ! {
    let readiness: Arc<Path> = transport.readiness().into();
    if let Err(error) = readiness::prepare(&readiness) {
        eprintln!("vmoon-agent: nothing can be declared ready: {error}");
    }
    let mut pause = PAUSES.0;
    let mut reported = false;
    loop {
        let began = Instant::now();
        let outcome = transport.dial().and_then(|file| {
            reported = false;
            Control::new(file, platform, &readiness)?.serve()
        });
        if let Err(error) = outcome
            && !reported
        {
            eprintln!("vmoon-agent: the connection to the host: {error}");
            reported = true;
        }
        if began.elapsed() > PAUSES.1 {
            pause = PAUSES.0;
            continue;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSES.1);
    }
}

struct Control {
    input: File,
    output: Arc<Output>,
    platform: Platform,
    /// Where names are that the guest declares.
    readiness: Arc<Path>,
}

/// The writing end, shared with the threads that wait for something.
struct Output {
    file: Mutex<File>,
    /// The waits that go on; raising the event ends one.
    watches: Mutex<HashMap<u64, Arc<OwnedFd>>>,
}

impl Control {
    fn new(file: File, platform: Platform, readiness: &Arc<Path>) -> io::Result<Self> {
        let output = Output { file: Mutex::new(file.try_clone()?), watches: Mutex::default() };
        let (output, readiness) = (Arc::new(output), Arc::clone(readiness));
        Ok(Self { input: file, output, platform, readiness })
    }

    fn serve(mut self) -> io::Result<()> {
        let ready = Ready { version: VERSION, guest: "linux".to_owned() };
        self.output.send(Kind::Ready, 0, &ready.encode())?;
        let mut decoder = Decoder::new();
        let mut buffer = vec![0; 4096];
        loop {
            let count = sys::retry(|| self.input.read(&mut buffer))?;
            if count == 0 {
                return Ok(());
            }
            decoder.push(&buffer[..count]);
            while let Some(frame) = decoder
                .next_frame()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?
            {
                self.take(&frame)?;
            }
        }
    }

    fn take(&self, frame: &Frame) -> io::Result<()> {
        match Kind::from_value(frame.kind) {
            Some(Kind::Life) => self.begin_life(frame),
            Some(Kind::Shutdown) => self.shut_down(frame),
            Some(Kind::Watch) => self.watch(frame),
            Some(Kind::Unwatch) => {
                self.output.forget(frame.id);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn begin_life(&self, frame: &Frame) -> io::Result<()> {
        let outcome =
            Life::decode(&frame.payload).map_err(|error| error.to_string()).and_then(|life| {
                life::begin(&life, self.platform).map_err(|error| error.to_string())?;
                Ok(life.epoch)
            });
        match outcome {
            Ok(epoch) => self.output.send(Kind::LifeDone, frame.id, &epoch.to_le_bytes()),
            Err(reason) => self.output.fail(
                frame.id,
                "snapshot.entropy",
                format!("the guest could not take entropy and clock: {reason}"),
            ),
        }
    }

    fn shut_down(&self, frame: &Frame) -> io::Result<()> {
        let power = if frame.payload.first() == Some(&1) { Power::Reboot } else { Power::Off };
        sys::sync();
        self.output.send(Kind::Done, frame.id, &[])?;
        if self.platform == Platform::Development {
            std::process::exit(0);
        }
        // On its own thread: what ends in the meantime may still be reported.
        service::spawn("power", move || power::shut_down(power))
    }

    fn watch(&self, frame: &Frame) -> io::Result<()> {
        let id = frame.id;
        let Some(wanted) = Watch::decode(&frame.payload) else {
            let message = "this agent does not know what to wait for".to_owned();
            return self.output.fail(id, "backend.unsupported", message);
        };
        let cancel = Arc::new(sys::eventfd()?);
        let output = Arc::clone(&self.output);
        let readiness = Arc::clone(&self.readiness);
        output.watches().insert(id, Arc::clone(&cancel));
        service::spawn("watch", move || {
            let outcome = watch::wait(&wanted, &readiness, &cancel, |seen| {
                if output.watches().contains_key(&id) {
                    let _ = output.send(Kind::Observed, id, seen.as_bytes());
                }
            });
            // A wait that was given up is not answered.
            if output.watches().remove(&id).is_none() {
                return;
            }
            // A failure to send is the reader's to see.
            let _ = match outcome {
                Ok(Outcome::True) => output.send(Kind::Done, id, &[]),
                Ok(Outcome::Cancelled) => Ok(()),
                Ok(Outcome::Never(never)) => output.fail(id, never.code, never.message),
                Err(error) => output.fail(id, "file.io", format!("cannot wait: {error}")),
            };
        })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        for (_, cancel) in self.output.watches().drain() {
            sys::raise(&cancel);
        }
    }
}

impl Output {
    fn watches(&self) -> MutexGuard<'_, HashMap<u64, Arc<OwnedFd>>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, id: u64) {
        if let Some(cancel) = self.watches().remove(&id) {
            sys::raise(&cancel);
        }
    }

    fn send(&self, kind: Kind, id: u64, payload: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::new();
        frame::encode(&mut bytes, kind, id, &payload[..payload.len().min(MAX_PAYLOAD)]);
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&bytes)
    }

    fn fail(&self, id: u64, code: &str, message: String) -> io::Result<()> {
        self.send(Kind::Error, id, &Failure { code: code.to_owned(), message }.encode())
    }
}
