//! The guest's console through pipes, and panics seen on it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use vmoon_core::Console;

/// How a kernel's last words begin (Linux kernel/panic.c).
const PANIC: &[u8] = b"Kernel panic - not syncing: ";
/// No more of them is kept.
const MOST_REASON: usize = 200;

/// The host's ends of a machine's console, and the guest's. They outlive a restore.
#[derive(Debug)]
pub(crate) struct ConsolePipes {
    /// What the guest reads.
    input: OwnedFd,
    /// What the guest writes to.
    output: OwnedFd,
    keyboard: File,
}

impl ConsolePipes {
    /// Makes the pipes, and a thread that moves what the guest prints to `console` until every
    /// guest's end is closed. `panicked` hears each panic.
    pub(crate) fn open(
        console: Arc<Console>,
        panicked: impl Fn(String) + Send + 'static,
    ) -> io::Result<Self> {
        let (input, keyboard) = io::pipe()?;
        let (screen, output) = io::pipe()?;
        let keyboard = File::from(OwnedFd::from(keyboard));
        // A guest that does not read must not stop the host.
        rustix::fs::fcntl_setfl(&keyboard, rustix::fs::OFlags::NONBLOCK)?;
        let body = move || pump(File::from(OwnedFd::from(screen)), &console, &panicked);
        thread::Builder::new().name("vz console".to_owned()).spawn(body)?;
        Ok(Self { input: input.into(), output: output.into(), keyboard })
    }

    /// The guest's ends, for one more machine of the framework.
    pub(crate) fn guest_ends(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        Ok((self.input.try_clone()?, self.output.try_clone()?))
    }

    /// Types; returns how many bytes were taken.
    pub(crate) fn type_input(&mut self, mut bytes: &[u8]) -> io::Result<usize> {
        let all = bytes.len();
        while !bytes.is_empty() {
            match self.keyboard.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(all - bytes.len())
    }
}

fn pump(mut screen: File, console: &Console, panicked: &impl Fn(String)) {
    let mut watcher = PanicWatcher::default();
    let mut buffer = [0; 4096];
    loop {
        match screen.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                console.append(&buffer[..count]);
                watcher.take(&buffer[..count], panicked);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return tracing::warn!(%error, "a guest's console broke"),
        }
    }
}

/// Finds panics in what a guest prints, however it is cut. The framework restarts a guest that
/// resets itself and tells nobody.
#[derive(Debug, Default)]
struct PanicWatcher {
    /// How many bytes of [`PANIC`] the text ends with.
    matched: usize,
    /// The words after it, up to the end of the line.
    reason: Option<Vec<u8>>,
}

impl PanicWatcher {
    fn take(&mut self, bytes: &[u8], panicked: &impl Fn(String)) {
        for byte in bytes {
            match &mut self.reason {
                Some(reason) if matches!(byte, b'\r' | b'\n') || reason.len() == MOST_REASON => {
                    panicked(String::from_utf8_lossy(reason).into_owned());
                    *self = Self::default();
                }
                Some(reason) => reason.push(*byte),
                None => self.advance(*byte),
            }
        }
    }

    fn advance(&mut self, byte: u8) {
        // No proper prefix of the words ends with their first letter, so that a mismatch leaves
        // nothing of them but perhaps that letter.
        self.matched = match byte {
            byte if byte == PANIC[self.matched] => self.matched + 1,
            byte if byte == PANIC[0] => 1,
            _ => 0,
        };
        if self.matched == PANIC.len() {
            self.reason = Some(Vec::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn seen(chunks: &[&[u8]]) -> Vec<String> {
        let (sender, receiver) = mpsc::channel();
        let mut watcher = PanicWatcher::default();
        for chunk in chunks {
            watcher.take(chunk, &|reason| sender.send(reason).unwrap());
        }
        receiver.try_iter().collect()
    }

    #[test]
    fn no_proper_prefix_of_the_words_ends_with_their_first_letter() {
        assert!(!PANIC[1..].contains(&PANIC[0]));
    }

    #[test]
    fn a_flood_after_the_words_ends_them() {
        let text = [PANIC, &[b'x'; 1000]].concat();
        assert_eq!(seen(&[&text]), ["x".repeat(MOST_REASON)]);
    }

    proptest! {
        #[test]
        fn a_panic_is_found_however_it_is_cut(
            before in "[ -~\n]{0,40}", reason in "[ -~]{0,40}", at in 0_usize..120
        ) {
            let text = format!("{before}KernelKernel panic - not syncing: {reason}\r\nmore");
            let (first, second) = text.as_bytes().split_at(at.min(text.len()));
            prop_assert_eq!(seen(&[first, second]), [reason]);
        }
    }

    #[test]
    fn pipes_carry_both_ways_and_end() {
        let console = Arc::new(Console::new());
        let (sender, receiver) = mpsc::channel();
        let panicked = move |reason| sender.send(reason).unwrap();
        let mut pipes = ConsolePipes::open(console.clone(), panicked).unwrap();
        let (input, output) = pipes.guest_ends().unwrap();
        assert_eq!(pipes.type_input(b"ls\n").unwrap(), 3);
        let mut typed = [0; 3];
        File::from(input).read_exact(&mut typed).unwrap();
        assert_eq!(&typed, b"ls\n");
        let taken = pipes.type_input(&vec![b'x'; 4 << 20]).unwrap();
        assert!(taken < 4 << 20, "a guest that does not read takes no more than a pipe holds");
        File::from(output).write_all(b"Kernel panic - not syncing: test\n").unwrap();
        assert_eq!(receiver.recv_timeout(Duration::from_secs(20)).unwrap(), "test");
        assert!(console.text().ends_with(b"test\n"));
        drop(pipes);
        // The thread has ended with the last guest's end, and with it the sender.
        assert!(receiver.recv_timeout(Duration::from_secs(20)).is_err());
    }
}
