//! What took time, as Chrome trace events, which Perfetto and `chrome://tracing` show.

use std::io::{self, Write};

use serde_json::{Value, json};
use vmoon_lua::test::Event;
use vmoon_lua::test::event::Span;

use super::Reporter;
use crate::test::Tally;

pub(super) struct Trace {
    out: Box<dyn Write + Send>,
    spans: Vec<Span>,
}

impl Trace {
    pub(super) fn new(out: Box<dyn Write + Send>) -> Self {
        Self { out, spans: Vec::new() }
    }
}

/// A complete event; its times are microseconds.
fn event(span: &Span) -> Value {
    json!({
        "name": format!("{}: {}", span.kind.as_str(), span.name),
        "cat": span.kind.as_str(),
        "ph": "X",
        "ts": span.started.as_secs_f64() * 1e6,
        "dur": span.duration.as_secs_f64() * 1e6,
        "pid": 1,
        "tid": span.worker + 1,
        "args": { "file": span.file },
    })
}

impl Reporter for Trace {
    fn hear(&mut self, event: &Event, _: &Tally) -> io::Result<()> {
        if let Event::Span(span) = event {
            self.spans.push(span.clone());
        }
        Ok(())
    }

    fn end(&mut self, _: &Tally) -> io::Result<()> {
        let mut workers: Vec<usize> = self.spans.iter().map(|span| span.worker).collect();
        workers.sort_unstable();
        workers.dedup();
        let names = workers.into_iter().map(|worker| {
            json!({
                "name": "thread_name", "ph": "M", "pid": 1, "tid": worker + 1,
                "args": { "name": format!("worker {}", worker + 1) },
            })
        });
        let events: Vec<Value> = names.chain(self.spans.iter().map(event)).collect();
        let trace = json!({ "traceEvents": events, "displayTimeUnit": "ms" });
        writeln!(self.out, "{trace}")?;
        self.out.flush()
    }
}
