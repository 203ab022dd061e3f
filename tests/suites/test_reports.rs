//! The reports of `vmoon test`, each read by a program that others wrote.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use vmoon_tests::process::{Ended, run, vmoon};
use vmoon_tests::skip;

const DEADLINE: Duration = Duration::from_mins(2);

/// Tests with every outcome, and names that every format must escape.
const SUITE: &str = r#"
local test = require "vmoon.test"
local describe, it, expect = test.describe, test.it, test.expect
describe("a <block> & \"quotes\" 100%", function()
  it("passes # not skipped \\ here", function() print "printed <b>&</b> ]]>" end)
  it("fails, with: a\27[31m colour", function() expect.equal("one\ntwo\n", "one\n2\n") end)
  it("raises\nin two lines", function() error "50% <gone>\r\nnext" end)
  local tries = 0
  it("is flaky", { retries = 1 }, function() tries = tries + 1 expect.equal(2, tries) end)
  test.pending "later # SKIP"
  it("has parts", function()
    test.subtest("one", function() end)
    test.subtest("two", function() test.subtest("deep", function() error "deep" end) end)
  end)
end)
"#;

fn suite() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("all_test.lua"), SUITE).expect("a file can be written");
    folder
}

fn test(folder: &Path, arguments: &[&str]) -> Ended {
    let all = ["test"].iter().chain(arguments);
    let ended = run(vmoon(all).current_dir(folder).env_remove("GITHUB_STEP_SUMMARY"), DEADLINE);
    ended.expect_status(1);
    ended
}

/// Gives `input` to a program that others wrote; what it printed. None, and a word, if it is
/// missing.
fn read_by(name: &str, arguments: &[&str], input: &str, package: &str) -> Option<String> {
    let child = Command::new(name)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        skip::skip(
            &format!("a report read by {name}"),
            &format!("{name} is missing: install {package}"),
        );
        return None;
    };
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("it can be waited for");
    writer.join().expect("the writer does not panic").expect("it reads its input");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {}\n{text}\n{errors}", output.status);
    Some(text)
}

#[test]
fn tap_is_read_by_perl() {
    let folder = suite();
    let ended = test(folder.path(), &["--format", "tap"]);
    let tap = ended.stdout.strip_prefix("TAP version 14\n").expect("the version comes first");
    assert!(tap.ends_with("# 2 passed, 3 failed, 1 skipped\n"), "{tap}");
    // Perl's parser knows version 13, of which all but the number is valid here.
    let code = "use TAP::Parser; local $/; my $p = TAP::Parser->new({ tap => 'TAP version 13' . qq{\\n} . <STDIN> });
        $p->run; print join ' ', scalar $p->passed, scalar $p->failed, scalar $p->skipped, $p->plan;
        print qq{\\n$_} for $p->parse_errors;";
    let Some(read) = read_by("perl", &["-e", code], tap, "perl") else { return };
    // A skipped test is one that passed.
    assert_eq!(read, "3 3 1 1..6", "{tap}");
    assert!(
        tap.contains("\n    not ok 2 - two\n") && tap.contains("\n        not ok 1 - deep\n"),
        "{tap}"
    );
}

#[test]
fn the_diagnostics_of_tap_are_yaml() {
    let folder = suite();
    let tap = test(folder.path(), &["--format", "tap"]).stdout;
    let code = "import sys, yaml, json
blocks, block = [], None
for line in sys.stdin.read().split('\\n'):
    if line == '  ---': block = []
    elif line == '  ...': blocks.append(yaml.safe_load('\\n'.join(block))); block = None
    elif block is not None: block.append(line)
failed = [b for b in blocks if 'message' in b]
print(len(blocks), len(failed), failed[0]['at'], repr(failed[0]['expected']))";
    let Some(read) = read_by("/usr/bin/python3", &["-c", code], &tap, "python3-yaml") else {
        return;
    };
    assert_eq!(read.trim_end(), r"6 3 {'file': 'all_test.lua', 'line': 6} 'one\ntwo\n'", "{tap}");
}

#[test]
fn junit_is_valid_and_read_by_xmllint() {
    let folder = suite();
    let ended = test(folder.path(), &["--format", "junit"]);
    assert!(ended.stderr.ends_with("2 passed, 3 failed, 1 skipped\n"), "{ended}");
    let schema: PathBuf = vmoon_tests::project::root().join("tests/fixtures/junit.xsd");
    let schema = schema.to_str().expect("the path is text");
    let xml = &ended.stdout;
    let valid = ["--noout", "--nonet", "--schema", schema, "-"];
    if read_by("xmllint", &valid, xml, "libxml2-utils").is_none() {
        return;
    }
    for (path, expected) in [
        ("string(/testsuites/@tests)", "6"),
        ("string(/testsuites/testsuite/@failures)", "1"),
        ("string(/testsuites/testsuite/@errors)", "2"),
        ("string(/testsuites/testsuite/@skipped)", "1"),
        ("count(//testcase/flakyFailure)", "1"),
        ("string(//testcase[2]/failure/@message)", "the values differ"),
        ("string(/testsuites/testsuite/@file)", "all_test.lua"),
        ("normalize-space(//testcase[1]/system-out)", "printed <b>&</b> ]]>"),
    ] {
        let read = read_by("xmllint", &["--xpath", path, "-"], xml, "libxml2-utils");
        assert_eq!(read.as_deref().map(str::trim_end), Some(expected), "{path}\n{xml}");
    }
}

#[test]
fn json_lines_are_read_by_jq() {
    let folder = suite();
    let ended = test(folder.path(), &["--format", "json"]);
    for (filter, expected) in [
        (".", None),
        (
            "select(.event == \"test\") | .outcome",
            Some("passed failed failed flaky skipped failed"),
        ),
        ("select(.event == \"summary\") | .passed, .failed, .skipped, .flaky", Some("2 3 1 1")),
        ("select(.outcome == \"failed\") | .failures[0].line", Some("6 7 13")),
        ("select(.outcome == \"flaky\") | .attempts", Some("2")),
        (
            "select(.event == \"test\") | .failures[0].difference // empty | .[1][0] // empty",
            Some("- +"),
        ),
    ] {
        let Some(read) = read_by("jq", &["-r", filter], &ended.stdout, "jq") else { return };
        if let Some(expected) = expected {
            let words: Vec<&str> = read.split_whitespace().collect();
            assert_eq!(words.join(" "), expected, "{filter}\n{ended}");
        }
    }
}

#[test]
fn github_gets_annotations_and_a_summary() {
    let folder = suite();
    let summary = folder.path().join("summary.md");
    let mut command = vmoon(["test", "--format", "github"]);
    command.current_dir(folder.path()).env("GITHUB_STEP_SUMMARY", &summary);
    let ended = run(&mut command, DEADLINE);
    ended.expect_status(1);
    let commands: Vec<&str> = ended.stdout.lines().filter(|line| line.starts_with("::")).collect();
    assert_eq!(commands.len(), 4, "{ended}");
    assert!(commands[0].starts_with("::error file=all_test.lua,line=6,title=a <block>"), "{ended}");
    assert!(commands[0].contains("100%25 > fails%2C with%3A a"), "{ended}");
    assert!(
        commands[1].contains("50%25 <gone>%0D%0A") || commands[1].contains("50%25 <gone>%0A"),
        "{ended}"
    );
    assert!(commands.iter().any(|line| line.starts_with("::warning ") && line.contains("flaky")));
    assert_eq!(ended.stdout.lines().next_back(), Some("2 passed, 3 failed, 1 skipped"));
    let summary = std::fs::read_to_string(summary).expect("it was written");
    assert!(summary.starts_with("### ❌ 2 passed, 3 failed, 1 skipped"), "{summary}");
    assert!(summary.contains("a &lt;block&gt;"), "{summary}");
}

#[test]
fn a_report_goes_to_a_file_and_people_still_see_theirs() {
    let folder = suite();
    let ended = test(folder.path(), &["--format", "junit", "--output", "report.xml"]);
    assert_eq!(ended.stdout.lines().next_back(), Some("2 passed, 3 failed, 1 skipped"));
    let xml = std::fs::read_to_string(folder.path().join("report.xml")).expect("it was written");
    assert!(xml.starts_with("<?xml"), "{xml}");
    let missing = ["test", "--format", "tap", "--output", "no/such/folder/report.tap"];
    run(vmoon(missing).current_dir(folder.path()), DEADLINE).expect_status(2);
}

#[test]
fn the_page_and_the_trace_hold_what_happened() {
    let folder = suite();
    test(folder.path(), &["--html", "page.html", "--trace", "trace.json"]);
    let page = std::fs::read_to_string(folder.path().join("page.html")).expect("it was written");
    for left in ["/*STYLE*/", "/*SCRIPT*/", "{/*DATA*/}", "http:", "https:", "<block>"] {
        assert!(!page.contains(left), "{left} in the page");
    }
    let start = page.find("id=\"data\">").expect("the page has its data") + "id=\"data\">".len();
    let data = &page[start..start + page[start..].find("</script>").expect("it ends")];
    let outcomes = "[.tests[].outcome] | join(\" \")";
    let Some(read) = read_by("jq", &["-r", outcomes], data, "jq") else { return };
    assert_eq!(read.trim_end(), "passed failed failed flaky skipped failed");
    let trace = std::fs::read_to_string(folder.path().join("trace.json")).expect("it was written");
    let spans =
        "[.traceEvents[] | select(.ph == \"X\" and .cat == \"test\" and .dur >= 0)] | length";
    let read = read_by("jq", &[spans], &trace, "jq").expect("it was there");
    assert_eq!(read.trim_end(), "6", "{trace}");
}
