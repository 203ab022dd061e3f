//! As much of D-Bus as systemd's private socket takes: calls whose arguments are strings, replies
//! that begin with one, and signals. There is no bus between: systemd is the peer (D-Bus
//! Specification, "Message Protocol" and "Authentication Protocol").

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long the peer may take to answer: systemd that starts a system on a busy host leaves its
/// callers waiting.
const PATIENCE: Duration = Duration::from_mins(1);
/// The longest message that is read, in bytes; the standard allows 128 MiB.
const LONGEST: usize = 1 << 20;
/// The length of the fixed part of a header, in bytes.
const FIXED: usize = 16;

const LITTLE_ENDIAN: u8 = b'l';
const METHOD_CALL: u8 = 1;
const VERSION: u8 = 1;

/// Codes of header fields.
mod field {
    pub(super) const PATH: u8 = 1;
    pub(super) const INTERFACE: u8 = 2;
    pub(super) const MEMBER: u8 = 3;
    pub(super) const REPLY_SERIAL: u8 = 5;
    pub(super) const SIGNATURE: u8 = 8;
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Return,
    Error,
    Signal,
    Other,
}

/// A message from the peer, as far as anybody here asks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) path: String,
    pub(super) member: String,
    reply_serial: u32,
    /// The string that the body begins with: the first argument, or the value of a variant.
    pub(super) text: Option<String>,
}

/// A connection to a peer.
#[derive(Debug)]
pub(super) struct Peer {
    stream: UnixStream,
    serial: u32,
}

impl Peer {
    /// Connects and authenticates as the present user.
    pub(super) fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut peer = Self { stream, serial: 0 };
        // SAFETY: takes nothing and cannot fail.
        let user = unsafe { libc::geteuid() }.to_string();
        let mut hello = "\0AUTH EXTERNAL ".to_owned();
        for digit in user.bytes() {
            // Writing to a string cannot fail.
            let _ = write!(hello, "{digit:02x}");
        }
        // In one piece with BEGIN, as systemd's own library does: where systemd reads BEGIN and the
        // first message at once, it forgets that it has the message until another comes.
        hello.push_str("\r\nBEGIN\r\n");
        peer.stream.write_all(hello.as_bytes())?;
        // A byte at a time: what follows the line is not this reader's.
        let mut line = Vec::new();
        BufReader::with_capacity(1, &peer.stream).read_until(b'\n', &mut line)?;
        if !line.starts_with(b"OK ") {
            return Err(malformed("it refuses this user"));
        }
        Ok(peer)
    }

    /// Calls a method; the message that answers, a refusal among them.
    pub(super) fn call(
        &mut self,
        path: &str,
        interface: &str,
        member: &str,
        arguments: &[&str],
    ) -> io::Result<Message> {
        self.serial += 1;
        let call = encode(self.serial, path, interface, member, arguments);
        self.stream.write_all(&call)?;
        loop {
            let message = self.read()?;
            let answers = matches!(message.kind, Kind::Return | Kind::Error);
            if answers && message.reply_serial == self.serial {
                return Ok(message);
            }
        }
    }

    /// The next message. Reads no byte more than it has.
    pub(super) fn read(&mut self) -> io::Result<Message> {
        let mut fixed = [0; FIXED];
        self.stream.read_exact(&mut fixed)?;
        let (body, fields) = (word(&fixed, 4)?, word(&fixed, 12)?);
        let fields = fields as usize;
        let rest = fields.next_multiple_of(8).saturating_add(body as usize);
        if fixed[0] != LITTLE_ENDIAN || rest > LONGEST {
            return Err(malformed("it sends what this agent cannot read"));
        }
        let mut bytes = vec![0; rest];
        self.stream.read_exact(&mut bytes)?;
        let kind = match fixed[1] {
            2 => Kind::Return,
            3 => Kind::Error,
            4 => Kind::Signal,
            _ => Kind::Other,
        };
        decode(kind, &bytes[..fields], &bytes[fields.next_multiple_of(8)..])
    }
}

impl AsRawFd for Peer {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("D-Bus: {why}"))
}

fn word(bytes: &[u8], at: usize) -> io::Result<u32> {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    word.map(|word| u32::from_le_bytes(*word)).ok_or_else(|| malformed("a message is cut short"))
}

/// A call whose arguments are strings.
fn encode(serial: u32, path: &str, interface: &str, member: &str, arguments: &[&str]) -> Vec<u8> {
    let mut body = Vec::new();
    for argument in arguments {
        put_string(&mut body, argument);
    }
    let mut fields = Vec::new();
    for (code, signature, value) in [
        (field::PATH, b'o', path),
        (field::INTERFACE, b's', interface),
        (field::MEMBER, b's', member),
    ] {
        put_variant(&mut fields, code, signature);
        put_string(&mut fields, value);
    }
    if !arguments.is_empty() {
        put_variant(&mut fields, field::SIGNATURE, b'g');
        fields.push(u8::try_from(arguments.len()).unwrap_or(u8::MAX));
        fields.extend(std::iter::repeat_n(b's', arguments.len()));
        fields.push(0);
    }
    let mut message = vec![LITTLE_ENDIAN, METHOD_CALL, 0, VERSION];
    for length in [body.len(), serial as usize, fields.len()] {
        message.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    }
    message.extend_from_slice(&fields);
    message.resize(message.len().next_multiple_of(8), 0);
    message.extend_from_slice(&body);
    message
}

/// A header field up to its value: the code, and the value's type.
fn put_variant(fields: &mut Vec<u8>, code: u8, signature: u8) {
    fields.resize(fields.len().next_multiple_of(8), 0);
    fields.extend_from_slice(&[code, 1, signature, 0]);
}

fn put_string(bytes: &mut Vec<u8>, text: &str) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
}

fn decode(kind: Kind, fields: &[u8], body: &[u8]) -> io::Result<Message> {
    let mut message =
        Message { kind, path: String::new(), member: String::new(), reply_serial: 0, text: None };
    let mut signature = String::new();
    let mut at = 0;
    while at < fields.len() {
        let [code, 1, value, 0] = *fields
            .get(at..)
            .and_then(|rest| rest.first_chunk::<4>())
            .ok_or_else(|| malformed("a header is cut short"))?
        else {
            return Err(malformed("a header field has a type of its own"));
        };
        at += 4;
        match value {
            b's' | b'o' => {
                let text = string(fields, at)?;
                at += 4 + text.len() + 1;
                match code {
                    field::PATH => message.path = text,
                    field::MEMBER => message.member = text,
                    _ => {}
                }
            }
            b'u' => {
                if code == field::REPLY_SERIAL {
                    message.reply_serial = word(fields, at)?;
                }
                at += 4;
            }
            b'g' => {
                let length = *fields.get(at).ok_or_else(|| malformed("a header is cut short"))?;
                let text = fields.get(at + 1..at + 1 + usize::from(length));
                let text = text.ok_or_else(|| malformed("a header is cut short"))?;
                at += 2 + usize::from(length);
                if code == field::SIGNATURE {
                    signature = String::from_utf8_lossy(text).into_owned();
                }
            }
            _ => return Err(malformed("a header field has a type of its own")),
        }
        at = at.next_multiple_of(8);
    }
    message.text = match signature.as_bytes() {
        [b's' | b'o', ..] => Some(string(body, 0)?),
        // A variant with a string: the type takes three bytes.
        [b'v', ..] if body.starts_with(&[1, b's', 0]) => Some(string(body, 4)?),
        _ => None,
    };
    Ok(message)
}

fn string(bytes: &[u8], at: usize) -> io::Result<String> {
    let length = word(bytes, at)? as usize;
    let text = bytes.get(at + 4..).and_then(|rest| rest.get(..length));
    let text = text.ok_or_else(|| malformed("a string is cut short"))?;
    Ok(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a call looks like, read back as if it were a message of the peer's.
    fn read_back(call: &[u8]) -> io::Result<Message> {
        let fields = word(call, 12)? as usize;
        let body = FIXED + fields.next_multiple_of(8);
        decode(Kind::Other, &call[FIXED..FIXED + fields], &call[body..])
    }

    #[test]
    fn a_call_reads_back() {
        let call = encode(7, "/a/b", "org.example.I", "Get", &["first", "second"]);
        assert!(call.ends_with(b"second\0"));
        assert_eq!(word(&call, 8).unwrap(), 7);
        let message = read_back(&call).unwrap();
        assert_eq!((message.path.as_str(), message.member.as_str()), ("/a/b", "Get"));
        assert_eq!(message.text.as_deref(), Some("first"));
    }

    #[test]
    fn no_bytes_make_a_reader_panic() {
        let call = encode(7, "/a/b", "org.example.I", "Get", &["first"]);
        let fields = word(&call, 12).unwrap() as usize;
        let (fields, body) = call[FIXED..].split_at(fields);
        for cut in 0..fields.len() {
            let _ = decode(Kind::Signal, &fields[..cut], body);
            let mut damaged = fields.to_vec();
            damaged[cut] ^= 0xff;
            let _ = decode(Kind::Signal, &damaged, body);
        }
        let _ = string(&[0xff; 8], 0);
        assert!(string(&[9, 0, 0, 0, b'x'], 0).is_err());
    }
}
