//! A command connection: one command after another, until the host closes it.

use std::fs::File;
use std::io;

use vmoon_protocol::frame::{Frame, Kind};
use vmoon_protocol::message::{Exec, Failure, Life};

use crate::files;
use crate::life;
use crate::process::Process;
use crate::running::Running;
use crate::service::Platform;
use crate::stream::{CHUNK, Stream};

/// Serves a connection until the host closes it.
pub(crate) fn serve(file: File, platform: Platform) -> io::Result<()> {
    let mut stream = Stream::new(file)?;
    let mut buffer = vec![0; CHUNK];
    loop {
        let frame = match stream.wait_frame() {
            Ok(frame) => frame,
            Err(error) if is_close(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let outcome = match Kind::from_value(frame.kind) {
            Some(Kind::Life) => {
                begin_life(&frame, platform);
                Ok(())
            }
            Some(Kind::Exec) => execute(&mut stream, &frame, &mut buffer),
            Some(Kind::Store) => files::store(&mut stream, &frame),
            Some(Kind::Fetch) => files::fetch(&mut stream, &frame),
            // Input and signals for a command that has ended, pieces of a tree that was refused.
            _ => Ok(()),
        };
        match outcome {
            Err(error) if is_close(&error) => return Ok(()),
            other => other?,
        }
    }
}

/// Whether the host closed or reset the connection: its right, and no error.
fn is_close(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
    )
}

fn begin_life(frame: &Frame, platform: Platform) {
    let outcome = Life::decode(&frame.payload)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
        .and_then(|life| life::begin(&life, platform));
    if let Err(error) = outcome {
        eprintln!("vmoon-agent: the new life could not begin: {error}");
    }
}

fn execute(stream: &mut Stream, frame: &Frame, buffer: &mut [u8]) -> io::Result<()> {
    let started = Exec::decode(&frame.payload)
        .map_err(|error| Failure {
            code: "vm.spec".to_owned(),
            message: format!("the command cannot be read: {error}"),
        })
        .and_then(|exec| Process::start(&exec).map(|process| (exec, process)));
    match started {
        Ok((exec, process)) => Running::new(frame.id, &exec, process, buffer).run(stream),
        Err(failure) => {
            stream.queue_failure(frame.id, &failure);
            stream.flush_all()
        }
    }
}
