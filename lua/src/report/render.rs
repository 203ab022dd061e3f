//! The picture of an error.
//!
//! ```text
//! error[vsock.refused]: guest refused vsock port 5000
//!    ┌ examples/agent.lua:12
//! 12 │ local agent <close> = vm:connect(5000)
//!    │                          ^^^^^^^
//!    = help: nothing listens there yet; vm:wait_port(5000) waits for it
//!    = machine web-1 (kvm, running 2.1 s); last console line: "Starting agent..."
//! ```

use std::fmt::{self, Write as _};

use super::sources::display;
use super::{Place, Report};
use crate::trace::Frame;

/// The most characters of a script's line that are shown.
const WIDEST: usize = 160;

/// Terminal attributes (ECMA-48 section 8.3.117), empty when colours are off.
struct Palette {
    error: &'static str,
    bold: &'static str,
    dim: &'static str,
    help: &'static str,
    reset: &'static str,
}

const COLOURED: Palette = Palette {
    error: "\x1b[1;31m",
    bold: "\x1b[1m",
    dim: "\x1b[34m",
    help: "\x1b[32m",
    reset: "\x1b[0m",
};

const PLAIN: Palette = Palette { error: "", bold: "", dim: "", help: "", reset: "" };

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, &PLAIN)
    }
}

impl Report {
    /// The picture, with colours for a terminal or without. It ends without a newline.
    pub fn paint(&self, colours: bool) -> String {
        let mut text = String::new();
        self.write(&mut text, if colours { &COLOURED } else { &PLAIN })
            .expect("writing to a string does not fail");
        text
    }

    fn write(&self, out: &mut impl fmt::Write, palette: &Palette) -> fmt::Result {
        let Palette { error, bold, help, reset, .. } = palette;
        match &self.code {
            Some(code) => write!(out, "{error}error[{code}]{reset}")?,
            None => write!(out, "{error}error{reset}")?,
        }
        let mut lines = self.message.lines();
        write!(out, "{bold}: {}{reset}", lines.next().unwrap_or_default())?;
        for line in lines {
            write!(out, "\n  {line}")?;
        }
        let margin = self.place.as_ref().map_or(0, |place| digits(place.line));
        if let Some(place) = &self.place {
            write_place(out, place, margin, palette)?;
        }
        let mut note = |label: &str, text: &str, colour: &str| -> fmt::Result {
            let mut lines = text.lines();
            let first = lines.next().unwrap_or_default();
            write!(out, "\n{:margin$} = {colour}{label}{reset}{first}", "")?;
            for line in lines {
                write!(out, "\n{:margin$}   {:width$}{line}", "", "", width = label.len())?;
            }
            Ok(())
        };
        if let Some(hint) = &self.hint {
            note("help: ", hint, help)?;
        }
        if let Some(output) = &self.output {
            note("output: ", output, "")?;
        }
        for text in &self.notes {
            note("note: ", text, "")?;
        }
        for frame in self.callers() {
            note("called from ", &frame_text(frame), "")?;
        }
        if let Some(machine) = &self.machine {
            note("machine ", machine, "")?;
        }
        Ok(())
    }

    /// The frames that the place does not show.
    fn callers(&self) -> impl Iterator<Item = &Frame> {
        let shown = self.place.as_ref().is_some_and(|place| {
            // A key below its call belongs to the same frame.
            self.frames.first().is_some_and(|frame| {
                display(&frame.chunk) == place.name && frame.line <= place.line
            })
        });
        self.frames.iter().skip(usize::from(shown))
    }
}

fn write_place(
    out: &mut impl fmt::Write,
    place: &Place,
    margin: usize,
    palette: &Palette,
) -> fmt::Result {
    let Palette { error, dim, reset, .. } = palette;
    let Place { name, line, text, underline } = place;
    write!(out, "\n{:margin$} {dim}┌{reset} {name}:{line}", "")?;
    let Some(text) = text else { return Ok(()) };
    let shown: String = text.chars().take(WIDEST).collect();
    write!(out, "\n{dim}{line} │{reset} {shown}")?;
    let start = underline.start.min(WIDEST);
    let end = underline.end.min(WIDEST);
    if start < end {
        let carets = "^".repeat(end - start);
        write!(out, "\n{:margin$} {dim}│{reset} {:start$}{error}{carets}{reset}", "", "")?;
    }
    Ok(())
}

fn frame_text(frame: &Frame) -> String {
    let mut text = format!("{}:{}", display(&frame.chunk), frame.line);
    if frame.main {
        text.push_str(" in the main chunk");
    } else if let Some(name) = &frame.function {
        let _ = write!(text, " in function '{name}'");
    }
    text
}

fn digits(line: usize) -> usize {
    line.to_string().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_of_a_structured_error() {
        let report = Report {
            code: Some("vsock.refused".to_owned()),
            message: "guest refused vsock port 5000".to_owned(),
            hint: Some("vm:wait_port(5000) waits for it".to_owned()),
            place: Some(Place {
                name: "examples/agent.lua".to_owned(),
                line: 12,
                text: Some("local agent <close> = vm:connect(5000)".to_owned()),
                underline: 25..32,
            }),
            machine: Some("web-1 (kvm, running 2.1 s)".to_owned()),
            ..Report::default()
        };
        assert_eq!(
            report.to_string(),
            "\
error[vsock.refused]: guest refused vsock port 5000
   ┌ examples/agent.lua:12
12 │ local agent <close> = vm:connect(5000)
   │                          ^^^^^^^
   = help: vm:wait_port(5000) waits for it
   = machine web-1 (kvm, running 2.1 s)"
        );
        assert!(report.paint(true).contains("\x1b[1;31merror[vsock.refused]\x1b[0m"));
    }
}
