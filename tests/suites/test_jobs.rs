//! Files of tests that run side by side share the computer's memory.

use std::time::Duration;

use vmoon_tests::process::{run, vmoon};
use vmoon_tests::skip;

const DEADLINE: Duration = Duration::from_mins(2);

/// The memory that is available, in MiB.
fn available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("Linux tells it");
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.expect("a number of KiB") >> 10
}

/// Runs two files with a guest of `memory` MiB each; whether both guests were there at once.
fn met(memory: u64) -> bool {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (own, other) in [("one", "two"), ("two", "one")] {
        let code = format!(
            "local test, vmoon = require 'vmoon.test', require 'vmoon'
            local machine = test.fixture {{ name = '{own}', memory = '{memory}MiB' }}
            local function exists(name)
              local file <close> = io.open(name)
              return file ~= nil
            end
            test.it('looks for the other', function()
              machine():succeed 'true'
              assert(io.open('{own}.here', 'w')):close()
              for _ = 1, 60 do
                if exists '{other}.here' then
                  assert(io.open('met', 'w')):close()
                  break
                end
                if exists '{other}.gone' then break end
                vmoon.sleep '25ms'
              end
              assert(os.rename('{own}.here', '{own}.gone'))
            end)"
        );
        std::fs::write(folder.path().join(format!("{own}_test.lua")), code)
            .expect("it can be written");
    }
    let ended = run(vmoon(["test", "--jobs", "2"]).current_dir(folder.path()), DEADLINE);
    ended.expect_status(0);
    folder.path().join("met").exists()
}

#[test]
fn guests_that_do_not_fit_beside_each_other_wait() {
    if let Some(missing) = skip::without_kvm() {
        return skip::skip("files side by side", &missing);
    }
    assert!(met(64), "two small guests fit");
    assert!(!met(available() / 10 * 7), "two of seven tenths do not");
}
