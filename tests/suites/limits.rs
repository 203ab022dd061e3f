//! Hosts that give little: few open files.

use std::process::{Command, Stdio};
use std::time::Duration;

use vmoon_tests::process::{Ended, run};
use vmoon_tests::{project, skip};

const DEADLINE: Duration = Duration::from_mins(2);

/// Runs Lua code under a limit of open files, as the shell's `ulimit` sets it; none where there is
/// no KVM.
fn limited(test: &str, limit: &str, code: &str) -> Option<Ended> {
    if let Some(missing) = skip::without_kvm() {
        skip::skip(test, &missing);
        return None;
    }
    let shell = format!("ulimit {limit} && exec \"$0\" run -e \"$1\"");
    let mut command = Command::new("sh");
    command.args(["-c", &shell]).arg(project::vmoon()).arg(code);
    Some(run(command.current_dir(project::root()).stdin(Stdio::null()), DEADLINE))
}

#[test]
fn a_hundred_forks_need_no_settings() {
    let code = "
        local vm <close> = require('vmoon').boot { memory = '16MiB' }
        local forks = vm:snapshot():fork(100)
        for _, fork in ipairs(forks) do assert(fork:succeed 'echo here' == 'here\\n') end
        print(#forks)";
    let Some(ended) = limited("a hundred forks", "-Sn 256", code) else { return };
    ended.expect_status(0);
    assert_eq!(ended.stdout, "100\n", "{ended}");
}

#[test]
fn where_files_run_out_the_limit_is_named_and_nothing_is_lost() {
    let code = "
        local vm <close> = require('vmoon').boot { memory = '16MiB' }
        vm:succeed 'put colour green'
        local snap = vm:snapshot()
        local ok, err = pcall(snap.fork, snap, 100)
        assert(not ok and err.code == 'backend.unavailable', tostring(err))
        print(err.hint)
        assert(#require('vmoon').list() == 1, 'forks are left')
        vm:succeed 'put colour red'
        vm:restore(snap)
        assert(vm:succeed 'get colour' == 'green\\n')
        vm:close()";
    let Some(ended) = limited("few files", "-n 300", code) else { return };
    ended.expect_status(0);
    assert!(ended.stdout.contains("300 files open"), "{ended}");
}
