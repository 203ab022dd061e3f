//! Saved snapshots: the commands for them, and writers that are killed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vmoon_tests::process::{Ended, run, start, vmoon};
use vmoon_tests::saved::READER;
use vmoon_tests::skip;

const DEADLINE: Duration = Duration::from_mins(1);

/// Two snapshots in a folder of their own; none where there is no KVM.
fn two_snapshots(test: &str) -> Option<(tempfile::TempDir, [PathBuf; 2])> {
    if let Some(missing) = skip::without_kvm() {
        skip::skip(test, &missing);
        return None;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let directories = ["one", "two"].map(|name| folder.path().join("saved").join(name));
    let code = "
        local vm <close> = require('vmoon').boot { name = 'source', memory = '16MiB' }
        for index, directory in ipairs(arg) do
          vm:succeed('put number ' .. index)
          vm:snapshot('number ' .. index):save(directory)
        end";
    let [one, two] = &directories;
    let mut command = vmoon(["run", "-e", code]);
    run(command.args([one, two]), DEADLINE).expect_status(0);
    Some((folder, directories))
}

fn snapshot(command: &str, directories: &[&Path]) -> Ended {
    run(vmoon(["snapshot", command]).args(directories), DEADLINE)
}

#[test]
fn snapshots_are_listed_inspected_verified_and_removed() {
    let Some((folder, [one, two])) = two_snapshots("vmoon snapshot") else { return };
    let listed = snapshot("ls", &[folder.path()]);
    listed.expect_status(0);
    let lines: Vec<&str> = listed.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{listed}");
    assert!(lines[0].starts_with("NAME") && lines[1].starts_with("number 1"), "{listed}");
    for word in ["16MiB", "kvm", one.to_str().expect("the path is text")] {
        assert!(lines[1].contains(word), "no {word}\n{listed}");
    }

    let inspected = snapshot("inspect", &[&one, &two]);
    inspected.expect_status(0);
    for word in ["number 1", "number 2", "source", "micro", "memory, 16777216 bytes"] {
        assert!(inspected.stdout.contains(word), "no {word}\n{inspected}");
    }
    let json = snapshot("inspect", &[Path::new("--json"), &one]);
    json.expect_status(0);
    for word in ["\"bytes_on_disk\"", "\"format\": 1", "\"name\": \"number 1\"", "\"cpuid\""] {
        assert!(json.stdout.contains(word), "no {word}\n{json}");
    }

    let verified = snapshot("verify", &[&one, &two]);
    verified.expect_status(0);
    assert_eq!(verified.stdout.matches(": ok\n").count(), 2, "{verified}");
    let memory = one.join("memory");
    let mut bytes = std::fs::read(&memory).expect("the pages can be read");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&memory, bytes).expect("the pages can be written");
    let damaged = snapshot("verify", &[&one, &two]);
    damaged.expect_status(1).expect_stderr(&["snapshot.corrupt", "one/memory", "hash"]);
    assert_eq!(damaged.stdout.matches(": ok\n").count(), 1, "{damaged}");

    let nothing = snapshot("rm", &[folder.path()]);
    nothing.expect_status(1).expect_stderr(&["is not a snapshot"]);
    snapshot("rm", &[&one, &two]).expect_status(0);
    snapshot("verify", &[&two]).expect_status(1).expect_stderr(&["snapshot.not_found"]);
    let left = std::fs::read_dir(folder.path().join("saved")).expect("the folder is there");
    assert_eq!(left.count(), 0, "something is left");
}

#[test]
fn wrong_use_is_explained() {
    for arguments in [&["snapshot"][..], &["snapshot", "verify"], &["snapshot", "mend", "x"]] {
        run(&mut vmoon(arguments), DEADLINE).expect_status(2).expect_stderr(&["usage"]);
    }
    let nowhere = snapshot("ls", &[Path::new("/no/such/place")]);
    nowhere.expect_status(1).expect_stderr(&["/no/such/place"]);
}

/// Saves ever new snapshots to one directory, and says when each is there.
const WRITER: &str = "
    local vm <close> = require('vmoon').boot { memory = '64MiB' }
    for number = 1, math.huge do
      vm:succeed('put number ' .. number, 'dirty 2000 ' .. number)
      local sum = vm:succeed 'checksum'
      local snap <close> = vm:snapshot(number .. ' ' .. sum:match '%S+')
      snap:save(arg[1])
      print(number) io.stdout:flush()
    end";

#[test]
fn a_killed_writer_leaves_the_old_snapshot_or_the_new_one() {
    if let Some(missing) = skip::without_kvm() {
        return skip::skip("a killed writer", &missing);
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let directory = folder.path().join("snapshot");
    // The first save takes this long; kills are spread over several.
    let mut writer = vmoon(["run", "-e", WRITER]);
    writer.arg(&directory);
    let begun = Instant::now();
    let running = start(&mut writer);
    while !directory.exists() {
        assert!(begun.elapsed() < DEADLINE, "nothing was saved");
        std::thread::sleep(Duration::from_millis(1));
    }
    let first = begun.elapsed();
    running.signal(libc::SIGKILL);
    running.wait(DEADLINE);

    let mut seen = 0;
    for round in 0..20_u32 {
        let running = start(&mut writer);
        // An irrational step meets every moment of a save in the long run.
        let share = (f64::from(round) * 0.618_033_988_75).fract();
        std::thread::sleep(first.mul_f64(0.7 + 1.6 * share));
        running.signal(libc::SIGKILL);
        let killed = running.wait(DEADLINE);
        assert_eq!(killed.status, 128 + libc::SIGKILL, "{killed}");
        let said: u64 =
            killed.stdout.lines().last().map_or(0, |line| line.parse().expect("a number"));
        let read = run(vmoon(["run", "-e", READER]).arg(&directory), DEADLINE);
        read.expect_status(0);
        let found: u64 = read.stdout.trim().parse().expect("a number");
        // What was announced is there, or what was under way; a writer that announced nothing
        // may have left an earlier one's.
        assert!(said == 0 || found == said || found == said + 1, "{said} was announced\n{read}");
        seen += said;
    }
    assert!(seen > 0, "no writer came to its second save");
    snapshot("verify", &[&directory]).expect_status(0);
    // What the killed writers left goes with the next save.
    let code = "require('vmoon').load(arg[1]):save(arg[1])";
    run(vmoon(["run", "-e", code]).arg(&directory), DEADLINE).expect_status(0);
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be listed").file_name())
        .collect();
    assert_eq!(left, ["snapshot"]);
}

#[test]
fn an_interrupted_writer_leaves_nothing_unfinished() {
    if let Some(missing) = skip::without_kvm() {
        return skip::skip("an interrupted writer", &missing);
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let directory = folder.path().join("snapshot");
    for round in 0..5 {
        let running = start(vmoon(["run", "-e", WRITER]).arg(&directory));
        let begun = Instant::now();
        while !directory.exists() && begun.elapsed() < DEADLINE {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(3 * round));
        running.signal(libc::SIGINT);
        running.wait(DEADLINE).expect_status(130);
        let left = std::fs::read_dir(folder.path()).expect("the folder is there");
        assert_eq!(left.count(), 1, "round {round}: something unfinished is left");
    }
}
