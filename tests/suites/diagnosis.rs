//! What vmoon tells shells, readers and operators: `doctor`, `man` and `completions`.

use std::time::Duration;

use serde_json::Value;
use vmoon_tests::process::{run, vmoon};

const DEADLINE: Duration = Duration::from_mins(1);

/// The commands that `vmoon --help` lists.
fn commands() -> Vec<String> {
    let ended = run(&mut vmoon(["--help"]), DEADLINE);
    ended.expect_status(0);
    let (_, list) = ended.stdout.split_once("Commands:\n").expect("a list of commands");
    list.lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

fn expect_facts(facts: &Value) {
    for fact in facts.as_array().expect("a list of facts") {
        assert!(fact["name"].is_string() && fact["value"].is_string(), "{fact}");
        assert!(fact["advice"].is_string() || fact["advice"].is_null(), "{fact}");
    }
}

#[test]
fn doctor_in_json() {
    let ended = run(&mut vmoon(["doctor", "--json"]), DEADLINE);
    let found: Value = serde_json::from_str(&ended.stdout).expect("standard output is JSON");
    let backends = found["backends"].as_array().expect("a list of backends");
    let well = backends.iter().any(|backend| backend["ok"] == true);
    assert_eq!(found["ok"], well, "{ended}");
    ended.expect_status(if well { 0 } else { 3 });
    assert!(found["vmoon"].is_string(), "{ended}");
    expect_facts(&found["host"]);
    let names: Vec<&str> = backends.iter().filter_map(|backend| backend["name"].as_str()).collect();
    let expected: &[&str] = if cfg!(target_os = "linux") { &["kvm", "qemu"] } else { &["vz"] };
    for name in expected {
        assert!(names.contains(name), "no {name} in {names:?}");
    }
    for backend in backends {
        expect_facts(&backend["facts"]);
        if backend["available"] == true {
            for name in ["snapshot", "fork", "save", "vsock", "disks", "linux"] {
                let can = &backend["capabilities"][name];
                assert!(*can == true || can.is_string(), "{name} of {backend}");
            }
        }
        if backend["ok"] == true {
            for name in ["boot_us", "exec_us", "snapshot_us", "restore_us"] {
                assert!(backend["figures"][name].is_u64(), "{name} of {backend}");
            }
        } else {
            let error = &backend["error"];
            assert!(error["code"].is_string() && error["message"].is_string(), "{backend}");
        }
    }
}

#[test]
fn doctor_for_people() {
    let ended = run(&mut vmoon(["doctor"]), DEADLINE);
    let well = ended.stdout.contains("\nok kvm") || ended.stdout.contains("\nok qemu");
    ended.expect_status(if well || ended.stdout.contains("\nok vz") { 0 } else { 3 });
    assert!(!ended.stdout.contains('\x1b'), "colours without a terminal\n{ended}");
    let last = if ended.status == 0 { "Machines run here, on " } else { "No backend works here" };
    assert!(ended.stdout.lines().next_back().is_some_and(|line| line.starts_with(last)), "{ended}");
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pages = folder.path().join("man1");
    let path = pages.to_str().expect("the path is text");
    run(&mut vmoon(["man", path]), DEADLINE).expect_status(0);
    let commands = commands();
    assert!(commands.iter().any(|name| name == "test"), "{commands:?}");
    for name in &commands {
        let page = format!("vmoon-{name}.1");
        let text = std::fs::read_to_string(pages.join(&page)).expect(&page);
        assert!(text.lines().any(|line| line.starts_with(".TH ")), "{page}\n{text}");
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION"] {
            assert!(text.contains(&format!(".SH {section}\n")), "no {section} in {page}\n{text}");
        }
    }
    let main = run(&mut vmoon(["man"]), DEADLINE);
    main.expect_status(0);
    let written = std::fs::read_to_string(pages.join("vmoon.1")).expect("vmoon.1");
    assert!(main.stdout.contains(".SH NAME") && written.contains(".SH NAME"), "{main}");
    for name in &commands {
        // A hyphen is escaped in a manual page.
        assert!(main.stdout.contains(&format!("vmoon\\-{name}(1)")), "no {name}\n{main}");
    }
}

#[test]
fn completions_name_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ended = run(&mut vmoon(["completions", shell]), DEADLINE);
        ended.expect_status(0);
        for name in commands() {
            assert!(ended.stdout.contains(&name), "no {name} for {shell}");
        }
    }
    let script = run(&mut vmoon(["completions", "bash"]), DEADLINE).stdout;
    let mut bash = std::process::Command::new("bash");
    bash.args(["--norc", "-c", &format!(
        "{script}\nCOMP_WORDS=(vmoon sn) COMP_CWORD=1\n_vmoon vmoon sn vmoon\necho \"${{COMPREPLY[*]}}\""
    )]);
    let ended = run(&mut bash, DEADLINE);
    assert_eq!(ended.expect_status(0).stdout, "snapshot\n", "{ended}");
    run(&mut vmoon(["completions", "no-such-shell"]), DEADLINE).expect_status(2);
}
