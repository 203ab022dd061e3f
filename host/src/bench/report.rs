//! The table and the JSON object.

use std::fmt::{self, Write};
use std::time::Duration;

use serde_json::{Map, Value, json};
use vmoon_core::Result;

use super::environment::Environment;
use super::figure::{Figure, Samples};
use super::plan::Plan;
use super::scale::{Forks, Sizes};
use super::vsock::Traffic;

/// All that was measured.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) environment: Environment,
    pub(super) plan: Plan,
    /// Without the round trip of `traffic`.
    pub(super) figures: Vec<Figure>,
    pub(super) traffic: Traffic,
    /// Not measured for programs.
    pub(super) scale: Option<(Result<Forks>, Result<Sizes>)>,
}

impl Report {
    fn all(&self) -> impl Iterator<Item = &Figure> {
        self.figures.iter().chain([&self.traffic.round_trip])
    }

    /// The object of the command line's contract.
    pub(super) fn json(&self) -> Value {
        let mut results: Map<String, Value> =
            self.all().map(|figure| (figure.name.to_owned(), object(figure))).collect();
        for (name, rate) in self.rates() {
            results.insert(name.to_owned(), json!(rounded(rate)));
        }
        json!({
            "machine": self.environment.json(),
            "guest": self.plan.guest_name(),
            "memory_mib": self.plan.memory.get() >> 20,
            "results": results,
        })
    }

    fn rates(&self) -> [(&'static str, f64); 2] {
        [
            ("vsock_h2g_mib_s", self.traffic.host_to_guest),
            ("vsock_g2h_mib_s", self.traffic.guest_to_host),
        ]
    }

    fn header(&self, out: &mut String) -> fmt::Result {
        let Environment { cpu, cpus, kernel, backend, emulated, load } = &self.environment;
        let unknown = "unknown";
        writeln!(
            out,
            "{} × {}, kernel {}, load {}",
            cpus,
            cpu.as_deref().unwrap_or(unknown),
            kernel.as_deref().unwrap_or(unknown),
            load.map_or_else(|| unknown.to_owned(), |load| load.to_string()),
        )?;
        writeln!(
            out,
            "{backend}, guest {}, {}, {} pages dirtied before each snapshot and restore",
            self.plan.guest_name(),
            self.plan.memory,
            self.plan.dirty,
        )?;
        if *emulated {
            writeln!(
                out,
                "This host has no VT-x or SVM: the guest's own instructions are emulated, so what \
                 waits for the\nguest (boot, exec, vsock) is slow. What does not wait for it is \
                 real."
            )?;
        }
        Ok(())
    }

    fn table(&self, out: &mut String) -> fmt::Result {
        writeln!(
            out,
            "\n{:<13}{:>10}{:>10}{:>6}{:>10}{:>8}  what",
            "", "p50", "p99", "n", "floor", "ratio"
        )?;
        for figure in self.all() {
            let floor = figure.floor.as_ref().map(Samples::p50).map(time);
            let ratio = figure.ratio().map(|ratio| format!("{ratio:.2}×"));
            writeln!(
                out,
                "{:<13}{:>10}{:>10}{:>6}{:>10}{:>8}  {}",
                figure.name,
                time(figure.times.p50()),
                time(figure.times.p99()),
                figure.times.count(),
                floor.unwrap_or_default(),
                ratio.unwrap_or_default(),
                figure.about,
            )?;
        }
        for (name, rate) in self.rates() {
            writeln!(
                out,
                "{name:<17}{rate:>10.1} MiB/s, both ways at once through the guest's echo server"
            )?;
        }
        writeln!(out, "{:<17}{:>10.1} MiB/s, one way", "a socket pair", self.traffic.socket_pair)
    }

    fn more(&self, out: &mut String) -> fmt::Result {
        if let Some(dirty) = self.figures.iter().find_map(|figure| figure.dirty_pages) {
            writeln!(out, "\n{dirty} pages went back with each restore, or into each snapshot.")?;
        }
        let Some((forks, sizes)) = &self.scale else { return Ok(()) };
        match forks {
            Ok(Forks { count, wall, added }) => {
                write!(out, "{count} forks at once: {}", time(*wall))?;
                if let Some(added) = added {
                    write!(out, ", {} KiB of memory added for each", added.get() >> 10)?;
                }
                writeln!(out, ".")?;
            }
            Err(error) => {
                writeln!(out, "Many forks at once: not measured: {}", error.full_message())?;
            }
        }
        match sizes {
            Ok(Sizes { small, large }) => writeln!(
                out,
                "The same restore with {} of memory: {}; with {}: {} ({:.2}×).",
                small.0,
                time(small.1),
                large.0,
                time(large.1),
                large.1.as_secs_f64() / small.1.as_secs_f64().max(1e-9),
            ),
            Err(error) => {
                writeln!(out, "Restores of large machines: not measured: {}", error.full_message())
            }
        }
    }
}

/// The table, for people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        self.header(&mut out)?;
        self.table(&mut out)?;
        self.more(&mut out)?;
        f.write_str(&out)
    }
}

fn object(figure: &Figure) -> Value {
    let mut object = Map::new();
    object.insert("p50_us".to_owned(), json!(micros(figure.times.p50())));
    object.insert("p99_us".to_owned(), json!(micros(figure.times.p99())));
    object.insert("n".to_owned(), json!(figure.times.count()));
    if let Some(floor) = &figure.floor {
        object.insert("floor_us".to_owned(), json!(micros(floor.p50())));
    }
    if let Some(pages) = figure.dirty_pages {
        object.insert("dirty_pages".to_owned(), json!(pages));
    }
    Value::Object(object)
}

fn micros(time: Duration) -> f64 {
    rounded(time.as_secs_f64() * 1e6)
}

/// Two decimals.
fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

fn time(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    match micros {
        0.0..1e3 => format!("{micros:.1} µs"),
        1e3..1e6 => format!("{:.2} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_the_unit_that_people_would_choose() {
        assert_eq!(time(Duration::from_nanos(12_340)), "12.3 µs");
        assert_eq!(time(Duration::from_micros(1_500)), "1.50 ms");
        assert_eq!(time(Duration::from_secs(2)), "2.00 s");
    }

    #[test]
    fn an_object_has_the_contracts_members_and_no_others() {
        let mut times = Samples::default();
        times.push(Duration::from_nanos(1_234));
        let figure = Figure::new("exec", "", times.clone());
        assert_eq!(object(&figure), json!({ "p50_us": 1.23, "p99_us": 1.23, "n": 1 }));
        let figure = figure.with_floor(times).dirty(200);
        assert_eq!(
            object(&figure),
            json!({ "p50_us": 1.23, "p99_us": 1.23, "n": 1, "floor_us": 1.23, "dirty_pages": 200 })
        );
    }
}
