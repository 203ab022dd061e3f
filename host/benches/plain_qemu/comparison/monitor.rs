//! The QEMU Machine Protocol, as a script by hand would speak it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// One end of a monitor.
#[derive(Debug)]
pub(super) struct Monitor(BufReader<UnixStream>);

impl Monitor {
    /// Greets QEMU.
    pub(super) fn new(stream: UnixStream) -> Result<Self> {
        let mut monitor = Self(BufReader::new(stream));
        monitor.ask("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("QEMU said {line:?}"))
    }

    /// Asks and waits for the answer.
    pub(super) fn ask(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let asked = json!({ "execute": command, "arguments": arguments });
        self.0.get_mut().write_all(format!("{asked}\n").as_bytes())?;
        loop {
            let mut said = self.line()?;
            if let Some(answer) = said.get_mut("return") {
                return Ok(answer.take());
            }
            if let Some(why) = said.get("error") {
                bail!("{command}: {why}");
            }
        }
    }

    /// Has a line of the monitor for people carried out; how long it took.
    pub(super) fn human(&mut self, line: &str) -> Result<Duration> {
        let begun = Instant::now();
        let said = self.ask("human-monitor-command", &json!({ "command-line": line }))?;
        let time = begun.elapsed();
        match said.as_str() {
            Some("") => Ok(time),
            other => bail!("{line}: {other:?}"),
        }
    }

    /// Makes an image of qcow2 in the empty file at `path` and opens it.
    pub(super) fn add_image(&mut self, path: &str) -> Result<()> {
        let cache = json!({ "no-flush": true });
        let file =
            json!({ "driver": "file", "node-name": "file", "filename": path, "cache": cache });
        self.ask("blockdev-add", &file)?;
        let options = json!({ "driver": "qcow2", "file": "file", "size": 1 << 20 });
        self.ask("blockdev-create", &json!({ "job-id": "create", "options": options }))?;
        while self.ask("query-jobs", &json!({}))?[0]["status"] != "concluded" {
            self.line()?;
        }
        self.ask("job-dismiss", &json!({ "id": "create" }))?;
        self.ask(
            "blockdev-add",
            &json!({ "driver": "qcow2", "node-name": "image", "file": "file" }),
        )?;
        Ok(())
    }
}
