//! Files to and from the guest. What is on the host's side is read and written on a thread of its
//! own, a few frames ahead of the connection: memory does not grow with the files.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;
use vmoon_protocol::files::{Entry, Fetch, MAX_DATA, Piece, Sender, Store};
use vmoon_protocol::message::Failure;
use vmoon_protocol::{Frame, Kind};
use vmoon_tree::{Destination, Place, Reader, Writer};

use super::client::AgentClient;
use super::exchange::Exchange;
use super::failure;
use super::shared::Shared;
use crate::error::{Code, Error, Result};
use crate::race;
use crate::saved::Progress;

/// How many messages the thread may be ahead: one is written while the next is read.
const AHEAD: usize = 2;

/// Pieces are passed on together, in messages of about this many bytes.
const MESSAGE: usize = 64 * 1024;

/// How files are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileOptions {
    /// The permission bits of a new or replaced file.
    pub mode: Option<u32>,
    /// Whether directories that are missing above the path are made.
    pub parents: bool,
    /// How long it may take.
    pub timeout: Option<Duration>,
}

impl AgentClient {
    /// Writes one file, which appears or is replaced at one moment.
    pub(crate) async fn write_file(
        &self,
        path: &[u8],
        bytes: &[u8],
        options: &FileOptions,
    ) -> Result<()> {
        let store = Store { path: path.to_vec(), name: None, parents: options.parents };
        let entry = Entry { mode: options.mode, ..Entry::file(bytes.len() as u64) };
        self.transfer(async |shared| {
            let mut exchange = begin(shared, Kind::Store, &store.encode()).await?;
            let mut pieces = vec![Piece::Entry(entry)];
            let mut offset = 0;
            for bytes in bytes.chunks(MAX_DATA) {
                pieces.push(Piece::Data { offset, bytes });
                offset += bytes.len() as u64;
            }
            pieces.push(Piece::Data { offset, bytes: &[] });
            for piece in pieces {
                let id = exchange.id;
                exchange.connection.queue_by(|out| piece.encode(out, Sender::Host, id));
                if exchange.is_full()
                    && let Some(answer) = exchange.drain(shared).await?
                {
                    return exchange.end(shared, &answer);
                }
            }
            let answer = exchange.frame(shared).await?;
            exchange.end(shared, &answer)
        })
        .await
    }

    /// All bytes of one file.
    pub(crate) async fn read_file(&self, path: &[u8]) -> Result<Vec<u8>> {
        let fetch = Fetch { path: path.to_vec(), contents: true };
        self.transfer(async |shared| {
            let mut exchange = begin(shared, Kind::Fetch, &fetch.encode()).await?;
            let mut contents = Vec::new();
            loop {
                let frame = exchange.frame(shared).await?;
                match Piece::decode(frame.kind, &frame.payload)? {
                    // Gaps were not asked for; one might be longer than the host's memory.
                    Some(Piece::Data { offset, bytes }) if offset == contents.len() as u64 => {
                        contents.extend_from_slice(bytes);
                    }
                    Some(_) => return Err(failure::malformed()),
                    None => return exchange.end(shared, &frame).map(|()| contents),
                }
            }
        })
        .await
    }

    /// Copies a tree of the host into the guest.
    pub(crate) async fn copy_in(
        &self,
        from: PathBuf,
        to: &[u8],
        options: &FileOptions,
        progress: Progress,
    ) -> Result<()> {
        let store = Store { path: to.to_vec(), name: name_of(&from), parents: options.parents };
        let reader = on_thread(move || Reader::tree(&from, Place::Host)).await?;
        self.transfer(async |shared| {
            let mut exchange = begin(shared, Kind::Store, &store.encode()).await?;
            let (sender, mut messages) = mpsc::channel(AHEAD);
            let id = exchange.id;
            let reading = on_thread(move || read_tree(reader, id, &sender, &progress));
            while let Some(message) = messages.recv().await {
                exchange.connection.queue_by(|out| out.extend_from_slice(&message));
                if let Some(answer) = exchange.drain(shared).await? {
                    return exchange.end(shared, &answer);
                }
            }
            // When the host cannot read it, the connection closes and the guest removes what came.
            reading.await?;
            let answer = exchange.frame(shared).await?;
            exchange.end(shared, &answer)
        })
        .await
    }

    /// Copies a tree of the guest to the host.
    pub(crate) async fn copy_out(
        &self,
        from: &[u8],
        to: PathBuf,
        options: &FileOptions,
        progress: Progress,
    ) -> Result<()> {
        use std::os::unix::ffi::OsStringExt;
        let name = base_name(from).map(|name| OsString::from_vec(name.to_vec()));
        let destination =
            Destination { path: to, name, parents: options.parents, place: Place::Host };
        let writer = on_thread(move || Writer::new(&destination)).await?;
        let fetch = Fetch { path: from.to_vec(), contents: false };
        self.transfer(async |shared| {
            let mut exchange = begin(shared, Kind::Fetch, &fetch.encode()).await?;
            let (sender, frames) = mpsc::channel(AHEAD);
            let writing = on_thread(move || write_tree(writer, frames, &progress));
            loop {
                let frame = exchange.frame(shared).await?;
                match Kind::from_value(frame.kind) {
                    Some(Kind::Done | Kind::Error) => {
                        drop(sender);
                        exchange.end(shared, &frame)?;
                        return writing.await;
                    }
                    // It fails when the thread has ended, which tells why.
                    _ if sender.send(frame).await.is_err() => return writing.await,
                    _ => {}
                }
            }
        })
        .await
    }

    /// Runs an operation for as long as the life in which it begins.
    async fn transfer<T>(&self, operation: impl AsyncFnOnce(&Shared) -> Result<T>) -> Result<T> {
        let shared = self.shared();
        let life = shared.lives.present();
        let in_this_life = async {
            shared.usable().await?;
            tokio::select! {
                biased;
                () = shared.lives.over(|| life) => Err(failure::restored()),
                outcome = operation(shared) => outcome,
            }
        };
        race::against_end(shared.machine.as_ref(), in_this_life).await
    }
}

async fn begin(shared: &Shared, kind: Kind, request: &[u8]) -> Result<Exchange> {
    const LONGEST_PATH: usize = 4096;
    if request.len() > 2 * LONGEST_PATH {
        return Err(Error::new(Code::FileIo, "the path is longer than any that Linux knows"));
    }
    Exchange::begin(shared, |connection, id| connection.queue(kind, id, request)).await
}

/// Starts work on a thread that may wait for a disk; the future is its end.
fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> impl Future<Output = Result<T>> {
    let thread = tokio::task::spawn_blocking(work);
    async {
        match thread.await {
            Ok(outcome) => outcome.map_err(failure::of_failure),
            Err(error) => Err(Error::new(Code::FileIo, "the copy died").with_source(error)),
        }
    }
}

/// Sends a tree as encoded frames, until its end or nobody wants them.
fn read_tree(
    mut reader: Reader,
    id: u64,
    messages: &mpsc::Sender<Vec<u8>>,
    progress: &Progress,
) -> Result<(), Failure> {
    let mut message = Vec::with_capacity(2 * MESSAGE);
    while let Some(piece) = reader.next_piece()? {
        count(progress, &piece);
        piece.encode(&mut message, Sender::Host, id);
        if message.len() >= MESSAGE {
            let full = std::mem::replace(&mut message, Vec::with_capacity(2 * MESSAGE));
            if messages.blocking_send(full).is_err() {
                return Ok(());
            }
        }
    }
    let _ = messages.blocking_send(message);
    Ok(())
}

/// Writes the tree that frames carry.
fn write_tree(
    mut writer: Writer,
    mut frames: mpsc::Receiver<Frame>,
    progress: &Progress,
) -> Result<(), Failure> {
    while let Some(frame) = frames.blocking_recv() {
        match Piece::decode(frame.kind, &frame.payload) {
            Ok(Some(piece)) => {
                count(progress, &piece);
                writer.take(piece)?;
            }
            Ok(None) => {}
            Err(error) => return Err(incomplete(&error.to_string())),
        }
    }
    if writer.is_complete() { Ok(()) } else { Err(incomplete("the tree is cut short")) }
}

fn incomplete(why: &str) -> Failure {
    Failure {
        code: Code::AgentUnavailable.as_str().to_owned(),
        message: format!("the guest's agent does not keep to the protocol: {why}"),
    }
}

/// Tells of a piece that was copied. Whether anybody still wants it shows at the channel.
fn count(progress: &Progress, piece: &Piece<'_>) {
    match piece {
        Piece::Entry(entry) => progress.add_total(entry.size),
        Piece::Data { bytes, .. } => drop(progress.advance(bytes.len() as u64)),
        Piece::Leave => {}
    }
}

/// The name that a copy of a path of the host gets in a directory.
fn name_of(path: &Path) -> Option<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt;
    let name = |path: &Path| path.file_name().map(|name| name.as_bytes().to_vec());
    name(path).or_else(|| name(&path.canonicalize().ok()?))
}

/// The last component of a path of the guest.
fn base_name(path: &[u8]) -> Option<&[u8]> {
    let name = path.rsplit(|byte| *byte == b'/').find(|name| !name.is_empty())?;
    (name != b"." && name != b"..").then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_named_after_their_source() {
        assert_eq!(base_name(b"/etc/os-release"), Some(&b"os-release"[..]));
        assert_eq!(base_name(b"tree//"), Some(&b"tree"[..]));
        assert_eq!((base_name(b"/"), base_name(b"/a/.."), base_name(b"")), (None, None, None));
        assert_eq!(name_of(Path::new("/usr/")), Some(b"usr".to_vec()));
        assert_eq!(name_of(Path::new("/usr/..")), None);
    }
}
