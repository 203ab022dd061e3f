//! Files on their way: a tree from the host, or one to it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use vmoon_protocol::files::{Fetch, Piece, Store};
use vmoon_protocol::frame::{Frame, Kind};
use vmoon_protocol::message::Failure;
use vmoon_tree::{Destination, Place, Reader, Writer};

use crate::stream::Stream;

/// Takes the tree that follows the request. An error is the connection's; what has come of the
/// tree is removed.
pub(crate) fn store(stream: &mut Stream, frame: &Frame) -> io::Result<()> {
    let outcome = match begin_store(frame) {
        Ok(writer) => take_tree(stream, frame.id, writer)?,
        Err(failure) => Err(failure),
    };
    match outcome {
        Ok(()) => stream.queue(Kind::Done, frame.id, &[]),
        // What of the tree is still to come is ignored: its request has ended.
        Err(failure) => stream.queue_failure(frame.id, &failure),
    }
    stream.flush_all()
}

fn begin_store(frame: &Frame) -> Result<Writer, Failure> {
    let store = Store::decode(&frame.payload).map_err(|error| unreadable(&error))?;
    Writer::new(&Destination {
        path: OsString::from_vec(store.path).into(),
        name: store.name.map(OsString::from_vec),
        parents: store.parents,
        place: Place::Guest,
    })
}

fn take_tree(stream: &mut Stream, id: u64, mut writer: Writer) -> io::Result<Result<(), Failure>> {
    while !writer.is_complete() {
        let frame = stream.wait_frame()?;
        if frame.id != id {
            continue;
        }
        let taken = match Piece::decode(frame.kind, &frame.payload) {
            Ok(Some(piece)) => writer.take(piece),
            Ok(None) => Ok(()),
            Err(error) => Err(unreadable(&error)),
        };
        if let Err(failure) = taken {
            return Ok(Err(failure));
        }
    }
    Ok(Ok(()))
}

/// Sends the tree that is asked for. A host that does not read stops the reading.
pub(crate) fn fetch(stream: &mut Stream, frame: &Frame) -> io::Result<()> {
    match begin_fetch(frame) {
        Ok(mut reader) => loop {
            match reader.next_piece() {
                Ok(Some(piece)) => stream.queue_piece(frame.id, &piece),
                Ok(None) => {
                    stream.queue(Kind::Done, frame.id, &[]);
                    break;
                }
                Err(failure) => {
                    stream.queue_failure(frame.id, &failure);
                    break;
                }
            }
            stream.flush_full()?;
        },
        Err(failure) => stream.queue_failure(frame.id, &failure),
    }
    stream.flush_all()
}

fn begin_fetch(frame: &Frame) -> Result<Reader, Failure> {
    let fetch = Fetch::decode(&frame.payload).map_err(|error| unreadable(&error))?;
    let path = Path::new(OsStr::from_bytes(&fetch.path));
    if fetch.contents {
        Reader::contents(path, Place::Guest)
    } else {
        Reader::tree(path, Place::Guest)
    }
}

fn unreadable(error: &impl std::fmt::Display) -> Failure {
    Failure {
        code: "agent.unavailable".to_owned(),
        message: format!("the request for files cannot be read: {error}"),
    }
}
