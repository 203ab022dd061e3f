//! Finds the words of the script that an error is about.

use std::ops::Range;

use super::sources::{Sources, display};
use crate::trace::Frame;

/// How many lines below a call its arguments are looked for.
const ARGUMENT_LINES: usize = 40;

/// A line of a script, with the part that matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The script's name.
    pub name: String,
    /// The line, from 1.
    pub line: usize,
    /// The line's text; none when it cannot be read.
    pub text: Option<String>,
    /// The part to underline, in characters of the text.
    pub underline: Range<usize>,
}

/// Takes the position from the front of a message of Lua's: `script.lua:3: what happened`.
pub(super) fn split_position<'a>(
    message: &'a str,
    frames: &[Frame],
    sources: &mut Sources,
) -> (Option<(String, usize)>, &'a str) {
    let Some((shown, line, rest)) = parse_position(message) else { return (None, message) };
    let running = frames.iter().find(|frame| display(&frame.chunk) == shown);
    let chunk = running.map(|frame| frame.chunk.clone()).or_else(|| sources.chunk_shown_as(shown));
    match chunk {
        Some(chunk) => (Some((chunk, line)), rest),
        None => (None, message),
    }
}

fn parse_position(message: &str) -> Option<(&str, usize, &str)> {
    // A path may hold colons: the position ends at the first `:digits: `.
    message.match_indices(':').find_map(|(at, _)| {
        let (number, rest) = message[at + 1..].split_once(": ")?;
        let line = number.parse().ok()?;
        // `require` says what it could not load in lines of its own.
        let shown = message[..at].rsplit('\n').next().unwrap_or_default();
        Some((shown.trim_start(), line, rest))
    })
}

/// The place to show: the position that the message names, or the innermost frame.
pub(super) fn find(
    position: Option<(String, usize)>,
    frames: &[Frame],
    key: Option<&str>,
    message: &str,
    sources: &mut Sources,
) -> Option<Place> {
    let (chunk, line) =
        position.or_else(|| frames.first().map(|frame| (frame.chunk.clone(), frame.line)))?;
    let callee = frames
        .iter()
        .find(|frame| frame.chunk == chunk && frame.line == line)
        .and_then(|frame| frame.callee.as_deref());
    let name = display(&chunk).to_owned();
    let Some(text) = sources.text(&chunk) else {
        return Some(Place { name, line, text: None, underline: 0..0 });
    };
    let mut lines = text.lines().skip(line - 1);
    let first = expand(lines.next().unwrap_or_default());
    // The call may go on below; the key of an option is worth finding there.
    if let Some(key) = key
        && word(&first, key).is_none()
        && let Some((below, text, underline)) =
            lines.take(ARGUMENT_LINES).enumerate().find_map(|(below, text)| {
                let text = expand(text);
                let underline = word(&text, key)?;
                Some((below, text, underline))
            })
    {
        return Some(Place { name, line: line + below + 1, text: Some(text), underline });
    }
    let underline = key
        .and_then(|key| word(&first, key))
        .or_else(|| callee.and_then(|callee| called(&first, callee)))
        .or_else(|| quoted(message).and_then(|name| word(&first, name)))
        .unwrap_or_else(|| statement(&first));
    Some(Place { name, line, text: Some(first), underline })
}

/// Tabs are as wide as four columns, so that the underline stands below what it means.
fn expand(line: &str) -> String {
    line.trim_end().replace('\t', "    ")
}

/// The first place where `name` is called, or else where it is written.
fn called(text: &str, name: &str) -> Option<Range<usize>> {
    words(text, name)
        .find(|range| {
            let after: String = text.chars().skip(range.end).collect();
            after.trim_start().starts_with(['(', '{', '"', '\'', '['])
        })
        .or_else(|| word(text, name))
}

fn word(text: &str, name: &str) -> Option<Range<usize>> {
    words(text, name).next()
}

/// Where `name` stands as a whole word, in characters.
fn words<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    let names_word = name.contains(part_of_word);
    text.match_indices(name).filter_map(move |(at, _)| {
        let before = text[..at].chars().next_back().is_some_and(part_of_word);
        let after = text[at + name.len()..].chars().next().is_some_and(part_of_word);
        if name.is_empty() || (names_word && (before || after)) {
            return None;
        }
        let start = text[..at].chars().count();
        Some(start..start + name.chars().count())
    })
}

/// The name that Lua quotes in a message: `(local 'x')`, `near 'end'`.
fn quoted(message: &str) -> Option<&str> {
    let start =
        ["(local '", "(global '", "(field '", "(method '", "(upvalue '", "near '", "module '"]
            .iter()
            .find_map(|marker| message.find(marker).map(|at| at + marker.len()))?;
    let line = message[start..].lines().next()?;
    let end = line.rfind('\'')?;
    Some(&message[start..start + end])
}

/// The whole line without its indentation.
fn statement(text: &str) -> Range<usize> {
    let length = text.chars().count();
    length - text.trim_start().chars().count()..length
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Script;

    const CODE: &str =
        "local x = 1\nlocal agent <close> = vm:connect(5000)\n\tboot {\n  cpuz = 2 }";

    fn frame(line: usize, callee: Option<&str>) -> Frame {
        let chunk = "=(command line)".to_owned();
        Frame { chunk, line, function: None, main: true, callee: callee.map(str::to_owned) }
    }

    fn place(frame: &Frame, key: Option<&str>, message: &str) -> Place {
        let mut sources = Sources::new(&Script::code(CODE, Vec::new()));
        find(None, std::slice::from_ref(frame), key, message, &mut sources).unwrap()
    }

    fn underlined(place: &Place) -> String {
        let text = place.text.as_deref().unwrap();
        text.chars().skip(place.underline.start).take(place.underline.len()).collect()
    }

    #[test]
    fn the_call_is_underlined() {
        let place = place(&frame(2, Some("connect")), None, "");
        assert_eq!((place.line, underlined(&place).as_str()), (2, "connect"));
    }

    #[test]
    fn a_key_is_found_below_its_call() {
        let place = place(&frame(3, Some("boot")), Some("cpuz"), "");
        assert_eq!((place.line, underlined(&place).as_str()), (4, "cpuz"));
    }

    #[test]
    fn a_name_that_lua_quotes_is_underlined() {
        let place = place(&frame(2, None), None, "attempt to index a nil value (global 'vm')");
        assert_eq!(underlined(&place), "vm");
    }

    #[test]
    fn anything_else_is_the_statement() {
        let place = place(&frame(3, None), None, "what a pity");
        assert_eq!((underlined(&place).as_str(), place.underline), ("boot {", 4..10));
    }

    #[test]
    fn positions_are_taken_from_messages() {
        let mut sources = Sources::new(&Script::code(CODE, Vec::new()));
        let mut split = |message| split_position(message, &[], &mut sources);
        let (position, rest) = split("(command line):2: what: a pity");
        assert_eq!(position, Some(("=(command line)".to_owned(), 2)));
        assert_eq!(rest, "what: a pity");
        assert_eq!(split("no:position: here"), (None, "no:position: here"));
        assert_eq!(split("/no/such/file.lua:3: x").0, None);
    }
}
