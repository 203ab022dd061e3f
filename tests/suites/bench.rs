//! `vmoon bench`: that every figure is there. What the figures are is nobody's to assert.

use std::time::Duration;

use serde_json::Value;
use vmoon_tests::process::{run, vmoon};
use vmoon_tests::skip;

const DEADLINE: Duration = Duration::from_mins(2);

/// The figures with percentiles, and whether pages are counted.
const TIMED: &[(&str, bool)] = &[
    ("start_script", false),
    ("boot", false),
    ("snapshot", true),
    ("restore", true),
    ("restore_lua", true),
    ("restore_exec", true),
    ("fork", false),
    ("fork_exec", false),
    ("exec", false),
    ("vsock_rtt", false),
];

const RATES: &[&str] = &["vsock_h2g_mib_s", "vsock_g2h_mib_s"];

#[test]
fn one_json_object_has_every_figure() {
    if let Some(missing) = skip::without_kvm() {
        return skip::skip("vmoon bench", &missing);
    }
    let arguments = ["bench", "--json", "--rounds", "4", "--memory", "64MiB", "--dirty", "50"];
    let ended = run(&mut vmoon(arguments), DEADLINE);
    ended.expect_status(0);
    assert_eq!(ended.stderr, "", "{ended}");
    let object: Value = serde_json::from_str(&ended.stdout).expect("standard output is JSON");
    assert_eq!(object["guest"], "micro");
    assert_eq!(object["memory_mib"], 64);
    assert!(object["machine"].is_object(), "{ended}");
    let results = object["results"].as_object().expect("results are an object");
    for (name, counts_pages) in TIMED {
        let figure = &results[*name];
        let number = |key: &str| figure[key].as_f64().unwrap_or_else(|| panic!("{name}.{key}"));
        assert!(number("p50_us") > 0.0 && number("p99_us") >= number("p50_us"), "{name}: {figure}");
        assert!(number("n") >= 1.0, "{name}: {figure}");
        // The pages that the command wrote to, and a few of the guest's own.
        let pages = figure["dirty_pages"].as_u64();
        assert_eq!(pages.is_some(), *counts_pages, "{name}: {figure}");
        assert!(pages.is_none_or(|pages| (50..150).contains(&pages)), "{name}: {figure}");
    }
    for name in ["snapshot", "restore", "fork", "vsock_rtt"] {
        assert!(results[name]["floor_us"].as_f64().is_some_and(|floor| floor > 0.0), "{name}");
    }
    for name in RATES {
        assert!(results[*name].as_f64().is_some_and(|rate| rate > 0.0), "{name}");
    }
    assert_eq!(results.len(), TIMED.len() + RATES.len(), "{ended}");
}

#[test]
fn what_cannot_be_measured_is_refused_at_once() {
    if let Some(missing) = skip::without_kvm() {
        return skip::skip("vmoon bench", &missing);
    }
    let refused = run(&mut vmoon(["bench", "--memory", "much"]), DEADLINE);
    refused.expect_status(2).expect_stderr(&["much", "512MiB"]);
    let refused = run(&mut vmoon(["bench", "--rounds", "0"]), DEADLINE);
    refused.expect_status(2);
    let refused = run(&mut vmoon(["bench", "--memory", "16MiB", "--dirty", "1000000"]), DEADLINE);
    assert_ne!(refused.status, 0, "{refused}");
    assert_eq!(refused.stdout, "", "{refused}");
}
