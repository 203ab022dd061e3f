//! What newcomers are told about their mistakes: each script of `mistakes/` as `vmoon run` shows
//! its error, beside it in a snapshot. After a change that is meant, review what
//! `INSTA_UPDATE=always cargo test -p vmoon-tests --test mistakes` wrote.

use std::time::Duration;

use vmoon_tests::process::{run, vmoon};
use vmoon_tests::{project, skip};

const DEADLINE: Duration = Duration::from_mins(1);

#[test]
fn every_mistake_is_explained() {
    if let Some(missing) = skip::without_kvm() {
        return skip::skip("tests/mistakes", &missing);
    }
    let mut scripts: Vec<String> = std::fs::read_dir(project::root().join("tests/mistakes"))
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "lua"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    scripts.sort_unstable();
    assert!(scripts.len() >= 30, "only {} mistakes", scripts.len());
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../mistakes");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for (pattern, placeholder) in [
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<id>"),
        (r"\d+\.\d+ s\)", "<time>)"),
        (r"\bvm-\d+\b", "<name>"),
        // These grow with the API, and with the backends of the platform.
        (r"(vm has|valid options|the capabilities|this vmoon has): .*", "$1: <names>"),
    ] {
        settings.add_filter(pattern, placeholder);
    }
    let mut wrong = Vec::new();
    settings.bind(|| {
        for script in &scripts {
            let path = format!("tests/mistakes/{script}.lua");
            let ended = run(&mut vmoon(["run", &path]), DEADLINE);
            let text = format!("exit status {}\n{}", ended.status, ended.stderr);
            // All of them are compared before the test fails.
            let compared =
                std::panic::catch_unwind(|| insta::assert_snapshot!(script.as_str(), text));
            if compared.is_err() {
                wrong.push(script.clone());
            }
        }
    });
    assert!(wrong.is_empty(), "not as in their snapshots: {wrong:?}");
}
