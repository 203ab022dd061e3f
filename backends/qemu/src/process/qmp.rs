//! The QEMU Machine Protocol: lines of JSON, one command at a time.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

/// What QEMU says.
#[derive(Debug)]
pub(crate) enum Said {
    /// The answer to the command of this number.
    Answer(u64, Result<Value, String>),
    /// Something happened.
    Event(Event),
}

/// Something that happened in QEMU.
#[derive(Debug)]
pub(crate) struct Event {
    /// Its name, such as `SHUTDOWN`.
    pub(crate) name: String,
    /// What belongs to it.
    pub(crate) data: Value,
}

/// The end that asks.
#[derive(Debug)]
pub(crate) struct Asker {
    stream: UnixStream,
    asked: u64,
}

impl Asker {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream, asked: 0 }
    }

    /// Sends a command; its number.
    pub(crate) fn send(&mut self, command: &str, arguments: &Value) -> io::Result<u64> {
        self.asked += 1;
        let mut line =
            json!({ "execute": command, "arguments": arguments, "id": self.asked }).to_string();
        line.push('\n');
        self.stream.write_all(line.as_bytes())?;
        Ok(self.asked)
    }
}

/// Reads all that QEMU says until it closes its end, on the calling thread.
pub(crate) fn listen(stream: UnixStream, mut heard: impl FnMut(Said)) {
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        match lines.read_line(&mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                if let Some(said) = parse(&line) {
                    heard(said);
                }
            }
        }
    }
}

/// What a line says; none of the greeting, which asks for no answer.
fn parse(line: &str) -> Option<Said> {
    let mut value: Value = serde_json::from_str(line).ok()?;
    if let Some(name) = value["event"].as_str() {
        return Some(Said::Event(Event { name: name.to_owned(), data: value["data"].take() }));
    }
    let id = value["id"].as_u64()?;
    if let Some(description) = value["error"]["desc"].as_str() {
        return Some(Said::Answer(id, Err(description.to_owned())));
    }
    value.get_mut("return").map(|returned| Said::Answer(id, Ok(returned.take())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_answers_and_events() {
        assert!(parse(r#"{"QMP": {"version": {}}}"#).is_none());
        assert!(parse("no json").is_none());
        let Some(Said::Answer(7, Ok(value))) = parse(r#"{"return": {"a": 1}, "id": 7}"#) else {
            panic!("no answer");
        };
        assert_eq!(value["a"], 1);
        let failed = parse(r#"{"error": {"class": "GenericError", "desc": "bad"}, "id": 8}"#);
        assert!(matches!(failed, Some(Said::Answer(8, Err(why))) if why == "bad"));
        let Some(Said::Event(event)) = parse(r#"{"event": "STOP", "data": {"x": true}}"#) else {
            panic!("no event");
        };
        assert_eq!((event.name.as_str(), &event.data["x"]), ("STOP", &Value::Bool(true)));
    }
}
