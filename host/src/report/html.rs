//! A page for browsers: one file that needs no other, with a timeline of the workers and all that
//! is known of each test.

use std::io::{self, Write};

use serde_json::{Value, json};
use vmoon_lua::test::Event;
use vmoon_lua::test::event::Span;

use super::Reporter;
use super::json;
use crate::test::Tally;

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/script.js");

pub(super) struct Html {
    out: Box<dyn Write + Send>,
    tests: Vec<Value>,
    spans: Vec<Value>,
}

impl Html {
    pub(super) fn new(out: Box<dyn Write + Send>) -> Self {
        Self { out, tests: Vec::new(), spans: Vec::new() }
    }
}

fn span(span: &Span) -> Value {
    json!({
        "kind": span.kind.as_str(), "name": span.name, "file": span.file, "worker": span.worker,
        "started_s": span.started.as_secs_f64(), "duration_s": span.duration.as_secs_f64(),
    })
}

/// The page with its data. `<` is escaped: no text of a test can end the element that holds it.
fn page(data: &Value) -> String {
    let data = data.to_string().replace('<', "\\u003c");
    PAGE.replace("/*STYLE*/", STYLE).replace("/*SCRIPT*/", SCRIPT).replace("{/*DATA*/}", &data)
}

impl Reporter for Html {
    fn hear(&mut self, event: &Event, _: &Tally) -> io::Result<()> {
        match event {
            Event::TestFinished(result) => self.tests.push(json::test(result)),
            Event::Span(ended) => self.spans.push(span(ended)),
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, tally: &Tally) -> io::Result<()> {
        let data = json!({
            "summary": json::summary(tally),
            "tests": std::mem::take(&mut self.tests),
            "spans": std::mem::take(&mut self.spans),
        });
        self.out.write_all(page(&data).as_bytes())?;
        self.out.flush()
    }
}
