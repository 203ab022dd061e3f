//! The findings as text and as JSON.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use vmoon_core::{Error, Fact};

use super::examination::{Finding, Findings};

/// The width of the column of names.
const NAMES: usize = 12;

impl Findings {
    /// For people.
    pub(super) fn text(&self, color: bool) -> String {
        let mut page = Page { text: String::new(), color };
        page.facts(&self.surroundings);
        for finding in &self.backends {
            page.backend(finding);
        }
        page.linux(self);
        let well: Vec<&str> = self
            .backends
            .iter()
            .filter(|finding| finding.is_well())
            .map(|finding| finding.name)
            .collect();
        page.text.push('\n');
        match well.first() {
            Some(first) => {
                let _ = writeln!(page.text, "Machines run here, on {first} unless told otherwise.");
            }
            None => page.text.push_str("No backend works here; see the help above.\n"),
        }
        page.text
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let linux = match &self.linux {
            Ok(kernel) => json!({
                "kernel": kernel.path,
                "version": kernel.version,
                "modules": kernel.modules,
            }),
            Err(error) => error_json(error),
        };
        json!({
            "vmoon": env!("CARGO_PKG_VERSION"),
            "ok": self.backends.iter().any(Finding::is_well),
            "host": facts_json(&self.surroundings),
            "backends": self.backends.iter().map(Finding::json).collect::<Vec<_>>(),
            "linux": linux,
        })
    }
}

impl Finding {
    fn json(&self) -> Value {
        let mut object = json!({
            "name": self.name,
            "available": self.works.is_ok(),
            "ok": self.is_well(),
            "facts": facts_json(&self.facts),
        });
        if let Some(error) = self.error() {
            object["error"] = error_json(error);
        }
        if let Ok((capabilities, figures)) = &self.works {
            let named: Map<String, Value> = capabilities
                .features()
                .into_iter()
                .map(|(name, one)| {
                    (name.to_owned(), one.reason().map_or(json!(true), |why| json!(why)))
                })
                .collect();
            object["capabilities"] = named.into();
            if let Ok(figures) = figures {
                let micros = figures.named().map(|(name, time)| {
                    (
                        format!("{name}_us"),
                        json!(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
                    )
                });
                object["figures"] = micros.collect::<Map<_, _>>().into();
            }
        }
        object
    }
}

fn error_json(error: &Error) -> Value {
    json!({
        "code": error.code().as_str(),
        "message": error.full_message(),
        "hint": error.hint(),
    })
}

fn facts_json(facts: &[Fact]) -> Value {
    let entry =
        |fact: &Fact| json!({ "name": fact.name, "value": fact.value, "advice": fact.advice });
    facts.iter().map(entry).collect::<Vec<_>>().into()
}

/// The text in the making.
struct Page {
    text: String,
    color: bool,
}

impl Page {
    fn heading(&mut self, title: &str, well: bool, says: &str) {
        let (mark, colour) = if well { ("ok", "\x1b[32m") } else { ("no", "\x1b[31m") };
        let (colour, bold, reset) =
            if self.color { (colour, "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
        let _ = writeln!(
            self.text,
            "\n{colour}{mark}{reset} {bold}{title}{reset}{}{says}",
            if says.is_empty() { "" } else { ": " }
        );
    }

    fn row(&mut self, name: &str, value: &str) {
        let _ = writeln!(self.text, "   {name:NAMES$} {value}");
    }

    fn help(&mut self, advice: &str) {
        let (colour, reset) = if self.color { ("\x1b[32m", "\x1b[0m") } else { ("", "") };
        let _ = writeln!(self.text, "   {:NAMES$} {colour}help: {reset}{advice}", "");
    }

    fn facts(&mut self, facts: &[Fact]) {
        for fact in facts {
            self.row(fact.name, &fact.value);
            if let Some(advice) = &fact.advice {
                self.help(advice);
            }
        }
    }

    fn backend(&mut self, finding: &Finding) {
        let says = finding.error().map(Error::full_message).unwrap_or_default();
        self.heading(finding.name, finding.is_well(), &says);
        if let Some(hint) = finding.error().and_then(Error::hint) {
            self.help(hint);
        }
        self.facts(&finding.facts);
        let Ok((capabilities, figures)) = &finding.works else { return };
        let (can, cannot): (Vec<_>, Vec<_>) =
            capabilities.features().into_iter().partition(|(_, one)| one.is_yes());
        let names: Vec<&str> = can.iter().map(|(name, _)| *name).collect();
        self.row("can", &names.join(", "));
        for (name, reason) in cannot {
            self.row("cannot", &format!("{name}: {}", reason.reason().unwrap_or_default()));
        }
        if let Ok(figures) = figures {
            let times: Vec<String> =
                figures.named().map(|(name, time)| format!("{name} {time:.2?}")).collect();
            self.row("built-in guest", &times.join(", "));
        }
    }

    fn linux(&mut self, findings: &Findings) {
        match &findings.linux {
            Ok(kernel) => {
                let version = kernel.version.as_deref().unwrap_or("of an unknown version");
                self.heading("guest = \"linux\"", true, &format!("kernel {version}"));
                self.row("kernel", &kernel.path.display().to_string());
                match &kernel.modules {
                    Some(modules) => self.row("modules", &modules.display().to_string()),
                    None => self.row("modules", "none found"),
                }
            }
            Err(error) => {
                self.heading("guest = \"linux\"", false, &error.full_message());
                if let Some(hint) = error.hint() {
                    self.help(hint);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmoon_core::Code;

    fn findings() -> Findings {
        let error = Error::new(Code::BackendUnavailable, "it is not there").with_hint("get it");
        let missing = Error::new(Code::FileNotFound, "there is no kernel").with_hint("install one");
        Findings {
            surroundings: vec![Fact::with_advice("open files", "3", "have more")],
            backends: vec![Finding { name: "none", facts: Vec::new(), works: Err(error) }],
            linux: Err(missing),
        }
    }

    #[test]
    fn text_says_why_not_and_what_to_do() {
        assert_eq!(
            findings().text(false),
            "   open files   3\n                help: have more\n\nno none: it is not there\n                \
             help: get it\n\nno guest = \"linux\": there is no kernel\n                help: install \
             one\n\nNo backend works here; see the help above.\n"
        );
    }

    #[test]
    fn json_says_the_same() {
        let json = findings().json();
        assert_eq!(json["ok"], false);
        assert_eq!(json["host"][0]["advice"], "have more");
        assert_eq!(json["backends"][0]["error"]["hint"], "get it");
        assert_eq!(json["linux"]["message"], "there is no kernel");
    }
}
