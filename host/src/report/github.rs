//! GitHub's annotations at the lines that failed, and a summary of the job.

use std::fs::OpenOptions;
use std::io::{self, Write};

use vmoon_lua::test::Event;
use vmoon_lua::test::event::{Outcome, TestResult};

use super::Reporter;
use super::failure::{self, title};
use super::pretty::{again, time};
use crate::test::Tally;

/// Where a job's summary is written to.
const SUMMARY: &str = "GITHUB_STEP_SUMMARY";

/// GitHub takes a summary of at most 1 MiB.
const MOST: usize = 900_000;

pub(super) struct Github {
    out: Box<dyn Write + Send>,
    told: Vec<TestResult>,
}

impl Github {
    pub(super) fn new(out: Box<dyn Write + Send>) -> Self {
        Self { out, told: Vec::new() }
    }

    fn annotate(&mut self, result: &TestResult) -> io::Result<()> {
        let level = if result.outcome == Outcome::Flaky { "warning" } else { "error" };
        let Some(first) = result.failures.first() else { return Ok(()) };
        let (file, line) = failure::file_and_line(result, first);
        let mut text = Vec::new();
        failure::write(&mut text, result, &failure::PLAIN)?;
        writeln!(
            self.out,
            "::{level} file={},line={line},title={}::{}",
            property(&file),
            property(&title(&result.test)),
            data(&String::from_utf8_lossy(&text)),
        )
    }
}

/// The text of a workflow command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A property of a workflow command.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// The summary, in Markdown.
fn summary(told: &[TestResult], tally: &Tally) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mark = if tally.failed > 0 { "❌" } else { "✅" };
    writeln!(text, "### {mark} {}\n", tally.line())?;
    writeln!(text, "{} files in {}\n", tally.files, time(tally.duration))?;
    for result in told {
        let word = if result.outcome == Outcome::Flaky { "flaky" } else { "failed" };
        let name = html(&title(&result.test));
        writeln!(text, "<details><summary><b>{word}</b> {name}</summary>\n\n```text")?;
        let mut details = Vec::new();
        failure::write(&mut details, result, &failure::PLAIN)?;
        let details = String::from_utf8_lossy(&details).replace("```", "` ` `");
        writeln!(text, "{details}\n{}\n```\n\n</details>\n", again(result))?;
        if text.len() > MOST {
            writeln!(text, "More failed than fits here.")?;
            break;
        }
    }
    Ok(text)
}

fn html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl Reporter for Github {
    fn hear(&mut self, event: &Event, _: &Tally) -> io::Result<()> {
        if let Event::TestFinished(result) = event
            && matches!(result.outcome, Outcome::Failed | Outcome::Flaky)
        {
            self.told.push((**result).clone());
        }
        Ok(())
    }

    fn end(&mut self, tally: &Tally) -> io::Result<()> {
        for result in std::mem::take(&mut self.told) {
            self.annotate(&result)?;
            self.told.push(result);
        }
        self.out.flush()?;
        if let Some(path) = std::env::var_os(SUMMARY) {
            let mut file = OpenOptions::new().append(true).create(true).open(path)?;
            file.write_all(&summary(&self.told, tally)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_meaning_in_a_command_is_escaped() {
        assert_eq!(data("100%\r\nnext"), "100%25%0D%0Anext");
        assert_eq!(property("a:b,c%"), "a%3Ab%2Cc%25");
    }
}
