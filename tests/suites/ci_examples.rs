//! `examples/ci`: the files parse, and `vmoon` takes the command lines in them.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use vmoon_tests::process::{run, vmoon};
use vmoon_tests::{project, skip};

const DEADLINE: Duration = Duration::from_mins(1);

fn folder() -> PathBuf {
    project::root().join("examples/ci")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A file of YAML, read by Python; `None`, said aloud, where it cannot read YAML.
fn yaml(name: &str) -> Option<Value> {
    let python = |code: &str| {
        let mut command = Command::new("python3");
        command.args(["-c", code]).arg(folder().join(name)).stdin(Stdio::null());
        command
    };
    let there = python("import yaml").stderr(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        skip::skip(name, "python3 cannot read YAML; install python3-yaml");
        return None;
    }
    // The base loader leaves every scalar a text, so that `on:` is not the value true.
    let code = "import json, sys, yaml
print(json.dumps(yaml.load(open(sys.argv[1]), yaml.BaseLoader)))";
    let ended = run(&mut python(code), DEADLINE);
    ended.expect_status(0);
    Some(serde_json::from_str(&ended.stdout).expect("Python writes JSON"))
}

/// The `vmoon` command lines of a script or of a file, with what the service fills in.
fn commands(text: &str) -> Vec<Vec<String>> {
    let filled = [
        ("${{ matrix.shard }}", "2"),
        ("$CI_NODE_INDEX", "1"),
        ("$CI_NODE_TOTAL", "4"),
        ("$((JOB_COMPLETION_INDEX + 1))", "1"),
        ("$((NOMAD_ALLOC_INDEX + 1))", "1"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (variable, value)| text.replace(variable, value));
    filled
        .lines()
        .filter_map(|line| line.trim().strip_prefix("vmoon "))
        .map(|line| line.split_whitespace().map(str::to_owned).collect())
        .collect()
}

/// Each command line must be one that `vmoon` takes: with `--list` a run of tests begins none,
/// and the file of a report must not appear in the project.
#[track_caller]
fn expect_accepted(commands: &[Vec<String>]) {
    let tests: Vec<_> = commands.iter().filter(|command| command[0] == "test").collect();
    assert_eq!(tests.len(), 1, "{commands:?}");
    let report = tempfile::tempdir().expect("a temporary folder");
    for command in commands {
        let mut arguments = command.clone();
        if command[0] == "test" {
            let tests = project::root().join("examples/tests").display().to_string();
            arguments[1] = tests;
            arguments.push("--list".to_owned());
        } else {
            arguments.push("--help".to_owned());
        }
        let ended = run(vmoon(&arguments).current_dir(report.path()), DEADLINE);
        ended.expect_status(0);
    }
}

/// The text of every string in a value, one a line.
fn texts(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text}\n"),
        Value::Array(list) => list.iter().map(texts).collect(),
        Value::Object(map) => map.values().map(texts).collect(),
        _ => String::new(),
    }
}

#[test]
fn github() {
    let Some(file) = yaml("github-actions.yml") else { return };
    let job = &file["jobs"]["test"];
    let shards = job["strategy"]["matrix"]["shard"].as_array().expect("a list of shards");
    let steps = texts(&job["steps"]);
    assert!(steps.contains(&format!("--shard ${{{{ matrix.shard }}}}/{}\n", shards.len())));
    assert!(steps.contains("KERNEL==\"kvm\""), "{steps}");
    assert!(steps.contains("--format github"), "{steps}");
    expect_accepted(&commands(&steps));
}

#[test]
fn gitlab() {
    let Some(file) = yaml("gitlab-ci.yml") else { return };
    let job = &file["machines"];
    let script = texts(&job["script"]);
    let report = job["artifacts"]["reports"]["junit"].as_str().expect("a report");
    assert!(script.contains(&format!("--format junit --output {report}")), "{script}");
    assert!(job["parallel"].is_string(), "{job}");
    expect_accepted(&commands(&script));
}

#[test]
fn kubernetes() {
    let Some(file) = yaml("kubernetes-job.yml") else { return };
    let spec = &file["spec"];
    assert_eq!(spec["completionMode"], "Indexed");
    let command = texts(&spec["template"]["spec"]["containers"][0]["command"]);
    let count = spec["completions"].as_str().expect("a count");
    assert!(command.contains(&format!("+ 1))/{count}\n")), "{command}");
    expect_accepted(&commands(&command));
}

#[test]
fn nomad() {
    let file = read("nomad-job.hcl");
    let opened = file.matches(['{', '[']).count();
    assert_eq!(opened, file.matches(['}', ']']).count(), "brackets of nomad-job.hcl");
    let count =
        file.lines().find_map(|line| line.trim().strip_prefix("count = ")).expect("a count");
    assert!(file.contains(&format!("+ 1))/{count}\"")), "{file}");
    expect_accepted(&commands(&file.replace('"', "\n")));
}

#[test]
fn container() {
    let file = read("Containerfile");
    let command = file.lines().find_map(|line| line.strip_prefix("CMD ")).expect("a command");
    let words: Vec<String> = serde_json::from_str(command).expect("the command is a list");
    assert_eq!(words[0], "vmoon");
    expect_accepted(&[words[1..].to_vec()]);
    for source in file.lines().filter_map(|line| line.strip_prefix("COPY ")) {
        if !source.starts_with("--from") {
            let path = source.split(' ').next().expect("a path");
            assert!(project::root().join(path).exists(), "COPY {source}");
        }
    }
}

#[test]
fn the_page_tells_of_every_file() {
    let page = read("README.md");
    for entry in std::fs::read_dir(folder()).expect("the folder is there") {
        let name = entry.expect("it can be listed").file_name().into_string().expect("a text");
        assert!(name == "README.md" || page.contains(&format!("({name})")), "{name}");
    }
}
