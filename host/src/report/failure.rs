//! A failure in words, with the difference of what was expected and observed.

use std::io::{self, Write};

use similar::{ChangeTag, TextDiff};
use vmoon_lua::test::event::{Failure, TestName, TestResult};

/// Terminal attributes (ECMA-48 section 8.3.117), empty when colours are off.
#[derive(Debug)]
pub(super) struct Palette {
    pub(super) on: bool,
    pub(super) bad: &'static str,
    pub(super) good: &'static str,
    pub(super) odd: &'static str,
    pub(super) bold: &'static str,
    pub(super) dim: &'static str,
    pub(super) reset: &'static str,
}

pub(super) const COLOURED: Palette = Palette {
    on: true,
    bad: "\x1b[31m",
    good: "\x1b[32m",
    odd: "\x1b[33m",
    bold: "\x1b[1m",
    dim: "\x1b[2m",
    reset: "\x1b[0m",
};

pub(super) const PLAIN: Palette =
    Palette { on: false, bad: "", good: "", odd: "", bold: "", dim: "", reset: "" };

/// The name of a test for people: its blocks and itself.
pub(super) fn title(test: &TestName) -> String {
    if test.path.is_empty() { test.file.clone() } else { test.path.join(" > ") }
}

/// Writes all that failed of a test.
pub(super) fn write(
    out: &mut impl Write,
    result: &TestResult,
    palette: &Palette,
) -> io::Result<()> {
    for failure in &result.failures {
        let words = place(result, failure);
        if !words.is_empty() {
            writeln!(out, "{}{words}{}", palette.dim, palette.reset)?;
        }
        writeln!(out, "{}", failure.report.paint(palette.on))?;
        difference(out, failure, palette)?;
        for console in &failure.consoles {
            let Palette { dim, reset, .. } = palette;
            writeln!(out, "  {dim}the console of {} ended with{reset}", console.machine)?;
            quote(out, &console.text, palette)?;
        }
    }
    if !result.output.is_empty() {
        writeln!(out, "  {}the test printed{}", palette.dim, palette.reset)?;
        quote(out, result.output.trim_end(), palette)?;
    }
    Ok(())
}

/// Where in the test it failed, as far as that has to be said.
pub(super) fn place(result: &TestResult, failure: &Failure) -> String {
    let mut words = Vec::new();
    if result.attempts > 1 {
        words.push(format!("attempt {} of {}", failure.attempt, result.attempts));
    }
    if !["test", "file", "subtest"].contains(&failure.phase.as_str()) {
        words.push(format!("in {}", failure.phase));
    }
    if !failure.subtest.is_empty() {
        words.push(format!("in the subtest {}", failure.subtest.join(" > ")));
    }
    words.join(", ")
}

fn quote(out: &mut impl Write, text: &str, palette: &Palette) -> io::Result<()> {
    text.lines()
        .try_for_each(|line| writeln!(out, "  {}│{} {}", palette.dim, palette.reset, visible(line)))
}

/// The line without what would move a terminal's cursor.
fn visible(line: &str) -> String {
    line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// Writes what was expected and observed, or where that is long, the lines that differ.
fn difference(out: &mut impl Write, failure: &Failure, palette: &Palette) -> io::Result<()> {
    let (Some(expected), Some(observed)) = (&failure.expected, &failure.observed) else {
        return Ok(());
    };
    let Palette { bad, good, dim, reset, .. } = palette;
    if !expected.contains('\n') && !observed.contains('\n') {
        writeln!(out, "  expected  {good}{}{reset}", visible(expected))?;
        return writeln!(out, "  observed  {bad}{}{reset}", visible(observed));
    }
    writeln!(out, "  {good}- expected{reset}   {bad}+ observed{reset}")?;
    for line in lines(expected, observed) {
        let (sign, colour, text) = match &line {
            Line::Same(text) => (' ', "", text),
            Line::Expected(text) => ('-', *good, text),
            Line::Observed(text) => ('+', *bad, text),
            Line::Left(count) => {
                writeln!(out, "  {dim}  … {count} more lines are the same{reset}")?;
                continue;
            }
        };
        writeln!(out, "  {colour}{sign} {}{reset}", visible(text))?;
    }
    Ok(())
}

/// A line of a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// In both.
    Same(String),
    /// Only in what was expected.
    Expected(String),
    /// Only in what was observed.
    Observed(String),
    /// So many lines in both, which are left out.
    Left(usize),
}

/// How many lines around a difference are shown.
const CONTEXT: usize = 3;

/// The lines of two texts, without those far from any difference.
pub(super) fn lines(expected: &str, observed: &str) -> Vec<Line> {
    let diff = TextDiff::from_lines(expected, observed);
    let changes: Vec<(ChangeTag, String)> = diff
        .iter_all_changes()
        .map(|change| (change.tag(), change.value().trim_end_matches('\n').to_owned()))
        .collect();
    let near = |at: usize| {
        let from = at.saturating_sub(CONTEXT);
        let to = (at + CONTEXT + 1).min(changes.len());
        changes[from..to].iter().any(|(tag, _)| *tag != ChangeTag::Equal)
    };
    let mut lines = Vec::new();
    for (at, (tag, text)) in changes.iter().enumerate() {
        match tag {
            ChangeTag::Delete => lines.push(Line::Expected(text.clone())),
            ChangeTag::Insert => lines.push(Line::Observed(text.clone())),
            ChangeTag::Equal if near(at) => lines.push(Line::Same(text.clone())),
            ChangeTag::Equal => match lines.last_mut() {
                Some(Line::Left(count)) => *count += 1,
                _ => lines.push(Line::Left(1)),
            },
        }
    }
    lines
}

/// What failed, in one line.
pub(super) fn headline(failure: &Failure) -> String {
    let report = &failure.report;
    let message = report.message.lines().next().unwrap_or_default();
    match &report.code {
        Some(code) => format!("{code}: {message}"),
        None => message.to_owned(),
    }
}

/// The file and the line of a failure: in the script, or else those of its test.
pub(super) fn file_and_line(result: &TestResult, failure: &Failure) -> (String, usize) {
    match &failure.report.place {
        Some(place) => (place.name.clone(), place.line),
        None => (result.test.file.clone(), result.test.line.max(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_far_from_a_difference_are_left_out() {
        let expected: String = (0..20).flat_map(|n: u8| [n.to_string(), "\n".to_owned()]).collect();
        let observed = expected.replace("10\n", "ten\n");
        let found = lines(&expected, &observed);
        assert_eq!(found[0], Line::Left(7));
        assert_eq!(found[1], Line::Same("7".to_owned()));
        assert_eq!(found[4], Line::Expected("10".to_owned()));
        assert_eq!(found[5], Line::Observed("ten".to_owned()));
        assert_eq!(found.last(), Some(&Line::Left(6)));
    }
}
