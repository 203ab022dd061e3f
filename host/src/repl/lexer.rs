//! The words of Lua, in text that may not be Lua yet.

use std::ops::Range;

use vmoon_lua::session::complete::KEYWORDS;

/// What a word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Keyword,
    Name,
    Number,
    String,
    Comment,
    /// Spaces and signs.
    Other,
}

/// A word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// Where it is, in bytes.
    pub(super) range: Range<usize>,
    /// Whether it is a string or a comment that has not ended.
    pub(super) open: bool,
}

/// The words of a text, which follow each other without gaps.
pub(super) fn tokens(text: &str) -> impl Iterator<Item = Token> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = text.get(at..).filter(|rest| !rest.is_empty())?;
        let (kind, length, open) = first(rest);
        let range = at..at + length;
        at = range.end;
        Some(Token { kind, range, open })
    })
}

fn first(rest: &str) -> (Kind, usize, bool) {
    let bytes = rest.as_bytes();
    if let Some(comment) = rest.strip_prefix("--") {
        if let Some((length, open)) = long_bracket(comment) {
            return (Kind::Comment, 2 + length, open);
        }
        let end = rest.find('\n');
        return (Kind::Comment, end.unwrap_or(rest.len()), end.is_none());
    }
    if let Some((length, open)) = long_bracket(rest) {
        return (Kind::String, length, open);
    }
    let run = |part: fn(char) -> bool| rest.find(|c| !part(c)).unwrap_or(rest.len());
    match bytes[0] {
        quote @ (b'"' | b'\'') => {
            let (length, open) = quoted(bytes, quote);
            (Kind::String, length, open)
        }
        b'0'..=b'9' => (Kind::Number, run(|c| c.is_ascii_alphanumeric() || c == '.'), false),
        b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
            let length = run(|c| c.is_ascii_alphanumeric() || c == '_');
            let keyword = KEYWORDS.contains(&&rest[..length]);
            (if keyword { Kind::Keyword } else { Kind::Name }, length, false)
        }
        _ => (Kind::Other, rest.chars().next().map_or(1, char::len_utf8), false),
    }
}

/// The length of a text between long brackets, such as `[==[ … ]==]`, and whether it is open.
fn long_bracket(text: &str) -> Option<(usize, bool)> {
    let inner = text.strip_prefix('[')?;
    let level = inner.bytes().take_while(|byte| *byte == b'=').count();
    if inner.as_bytes().get(level) != Some(&b'[') {
        return None;
    }
    let closing = format!("]{}]", "=".repeat(level));
    match text.find(&closing) {
        Some(at) => Some((at + closing.len(), false)),
        None => Some((text.len(), true)),
    }
}

/// The length of a string in quotes, which ends with its line at the latest.
fn quoted(bytes: &[u8], quote: u8) -> (usize, bool) {
    let mut at = 1;
    while let Some(byte) = bytes.get(at) {
        match *byte {
            b'\\' => at += 1,
            b'\n' => return (at, false),
            byte if byte == quote => return (at + 1, false),
            _ => {}
        }
        at += 1;
    }
    (bytes.len(), true)
}

/// The text with colours (ECMA-48 section 8.3.117), as wide as without.
pub(super) fn paint(text: &str) -> String {
    let mut painted = String::with_capacity(text.len() * 2);
    for token in tokens(text) {
        let word = &text[token.range];
        let colour = match token.kind {
            Kind::Keyword => "\x1b[35m",
            Kind::Number => "\x1b[36m",
            Kind::String => "\x1b[32m",
            Kind::Comment => "\x1b[90m",
            Kind::Name | Kind::Other => {
                painted.push_str(word);
                continue;
            }
        };
        painted.push_str(colour);
        painted.push_str(word);
        painted.push_str("\x1b[0m");
    }
    painted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<(Kind, &str, bool)> {
        tokens(text)
            .filter(|token| token.kind != Kind::Other)
            .map(|token| (token.kind, &text[token.range], token.open))
            .collect()
    }

    #[test]
    fn a_line_is_split_into_words() {
        assert_eq!(
            words("local x = 0x1f .. 'it\\'s' -- why"),
            [
                (Kind::Keyword, "local", false),
                (Kind::Name, "x", false),
                (Kind::Number, "0x1f", false),
                (Kind::String, "'it\\'s'", false),
                (Kind::Comment, "-- why", true),
            ]
        );
    }

    #[test]
    fn open_strings_and_comments_are_told() {
        assert_eq!(words("f('/tmp/a").last().unwrap(), &(Kind::String, "'/tmp/a", true));
        assert_eq!(words("[==[ a ]] b").last().unwrap(), &(Kind::String, "[==[ a ]] b", true));
        assert_eq!(words("--[[ a\nb").last().unwrap(), &(Kind::Comment, "--[[ a\nb", true));
        assert_eq!(words("[[a]] x").last().unwrap(), &(Kind::Name, "x", false));
        assert_eq!(words("'a\nx").last().unwrap(), &(Kind::Name, "x", false));
        assert_eq!(words("'a\\").last().unwrap(), &(Kind::String, "'a\\", true));
    }

    #[test]
    fn nothing_is_lost_and_colours_have_no_width() {
        for text in ["", "ä = 'ö' .. [[ü", "a[1]=b--", "\\", "x ~= 1.5e3 // 2"] {
            let whole: String = tokens(text).map(|token| text[token.range].to_owned()).collect();
            assert_eq!(whole, text);
            let plain = paint(text);
            let mut parts = plain.split('\x1b');
            let mut stripped = parts.next().unwrap().to_owned();
            for part in parts {
                stripped.push_str(part.split_once('m').unwrap().1);
            }
            assert_eq!(stripped, text);
        }
    }
}
