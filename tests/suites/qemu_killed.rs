//! Killing vmoon, or QEMU under it, whatever they are doing: nothing is left behind, and no saved
//! snapshot is lost.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::time::{Duration, SystemTime};

use vmoon_tests::process::{run, start, vmoon};
use vmoon_tests::processes::{MARK, children, eventually, is_alive, kill, marked};
use vmoon_tests::saved::READER;
use vmoon_tests::skip;

const DEADLINE: Duration = Duration::from_mins(5);

/// Random moments: from `VMOON_SEED` where it is set. `VMOON_KILLS` says how many.
struct Moments {
    state: u64,
    kills: u32,
}

impl Moments {
    fn new(kills: u32) -> Self {
        let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
        let now =
            SystemTime::UNIX_EPOCH.elapsed().map_or(1, |since| u64::from(since.subsec_nanos()));
        let seed = number("VMOON_SEED").unwrap_or(now);
        let kills = number("VMOON_KILLS").map_or(kills, |it| u32::try_from(it).expect("few"));
        println!("{kills} kills, seed {seed}");
        Self { state: seed, kills }
    }

    /// A number below `end` (Knuth's linear congruential generator, of which the high bits count).
    fn below(&mut self, end: u64) -> u64 {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % end
    }

    fn sleep(&mut self, milliseconds: u64) {
        std::thread::sleep(Duration::from_millis(self.below(milliseconds)));
    }
}

fn assert_empty(folder: &Path) {
    let left: Vec<_> = std::fs::read_dir(folder).expect("the folder is there").collect();
    assert!(left.is_empty(), "{left:?}");
}

/// All that a machine can be doing, over and over; each round replaces the saved snapshot.
const WORK: &str = "
    local vm <close> = vmoon.boot { memory = '32MiB' }
    for number = 1, math.huge do
      vm:succeed('put number ' .. number, 'dirty 500 ' .. number)
      local sum = vm:succeed('checksum'):match '%S+'
      local snap <close> = vm:snapshot(number .. ' ' .. sum)
      snap:save(arg[1])
      print(number) io.stdout:flush()
      vm:succeed 'dirty 300 7'
      vm:restore(snap)
      local fork <close> = snap:fork()
      local loaded <close> = vmoon.load(arg[1])
      local again <close> = loaded:fork()
      assert(again:succeed 'get number' == number .. '\\n')
    end";

#[test]
fn vmoon_killed_at_any_moment_leaves_nothing_and_loses_no_snapshot() {
    if let Some(missing) = skip::without_qemu() {
        return skip::skip("a killed vmoon", &missing);
    }
    let (folder, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let directory = folder.path().join("snapshot");
    let mark = format!("vmoon-{}", std::process::id());
    let work = || {
        let mut command = vmoon(["run", "--backend", "qemu", "-e", WORK]);
        command.arg(&directory).env("TMPDIR", temporary.path()).env(MARK, &mark);
        start(&mut command)
    };
    let mut moments = Moments::new(6);
    let mut saved = 0;
    for round in 0..moments.kills {
        let running = work();
        if round == 0 {
            eventually("the first save", || directory.exists().then_some(()));
        }
        moments.sleep(1500);
        running.signal(libc::SIGKILL);
        let killed = running.wait(DEADLINE);
        assert_eq!(killed.status, 128 + libc::SIGKILL, "{killed}");
        eventually("all processes to end", || marked(&mark).is_empty().then_some(()));
        assert_empty(temporary.path());
        let said = killed.stdout.lines().last().map(|line| line.parse::<u64>().expect("a number"));
        let read = run(vmoon(["run", "--backend", "qemu", "-e", READER]).arg(&directory), DEADLINE);
        read.expect_status(0);
        let found: u64 = read.stdout.trim().parse().expect("a number");
        // What was announced last is there, or what was under way.
        assert!(said.is_none_or(|said| found == said || found == said + 1), "{said:?}\n{read}");
        saved += said.unwrap_or(0);
    }
    println!("{saved} snapshots were announced");
    assert!(saved > 0, "nothing was saved");
    run(&mut vmoon(["snapshot".as_ref(), "verify".as_ref(), directory.as_os_str()]), DEADLINE)
        .expect_status(0);
}

/// Goes on whatever happens to QEMU, until it is told to end: each error is one that scripts can
/// tell, and the machine and its snapshots come back from it.
const SURVIVOR: &str = "
    local function descriptors()
      collectgarbage()
      local count <close> = io.popen 'ls /proc/$PPID/fd | wc -l'
      return count:read 'n'
    end
    local vm <close> = vmoon.boot { memory = '32MiB' }
    vm:succeed('put colour green', 'dirty 500 1')
    local sum = vm:succeed 'checksum'
    local clean <close> = vm:snapshot 'clean'
    local before = descriptors()
    clean:save(arg[1])
    local codes, survived = {}, 0
    local function attempt(fn)
      local ok, err = pcall(fn)
      if ok then return true end
      assert(type(err) == 'table' and err.code and err.message, tostring(err))
      codes[err.code] = (codes[err.code] or 0) + 1
    end
    local function ended() local file = io.open(arg[2]) return file and file:close() end
    while not ended() do
      local ok = attempt(function()
        vm:succeed 'dirty 100 7'
        local other <close> = vm:snapshot 'other'
        local fork <close> = clean:fork()
        assert(fork:succeed 'checksum' == sum, 'a fork is not what it was made of')
        clean:save(arg[1])
        vm:restore(other)
        vm:restore(clean)
      end)
      if not ok then
        survived = survived + 1
        local tries = 0
        repeat
          tries = tries + 1
          assert(tries < 100, 'the machine does not come back')
        until attempt(function()
          vm:restore(clean)
          assert(vm:succeed 'checksum' == sum, 'the memory is not what it was')
        end)
      end
    end
    vm:restore(clean)
    assert(vm:succeed 'checksum' == sum and vm.state == 'running')
    do
      local loaded <close> = vmoon.load(arg[1])
      local fork <close> = loaded:fork()
      assert(fork:succeed 'checksum' == sum)
    end
    -- Whatever is kept for reuse is not kept for each kill.
    local after = descriptors()
    assert(after < before + 6, before .. ' descriptors became ' .. after)
    for code, count in pairs(codes) do print(code, count) end
    print('survived', survived)";

#[test]
fn qemu_killed_at_any_moment_is_an_error_that_a_restore_mends() {
    if let Some(missing) = skip::without_qemu() {
        return skip::skip("a qemu killed at random", &missing);
    }
    let (folder, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (directory, end) = (folder.path().join("snapshot"), folder.path().join("end"));
    let mark = format!("qemu-{}", std::process::id());
    let mut command = vmoon(["run", "--backend", "qemu", "-e", SURVIVOR]);
    command.arg(&directory).arg(&end).env("TMPDIR", temporary.path()).env(MARK, &mark);
    let running = start(&mut command);
    eventually("the first save", || (directory.exists() || !is_alive(running.id())).then_some(()));
    let mut moments = Moments::new(12);
    for _ in 0..moments.kills {
        moments.sleep(400);
        let mut found = marked(&mark);
        found.retain(|(_, name)| name.starts_with("qemu"));
        if !found.is_empty() {
            let chosen = moments.below(found.len() as u64);
            kill(found[usize::try_from(chosen).expect("few")].0);
        }
    }
    std::fs::write(&end, "").unwrap();
    let ended = running.wait(DEADLINE);
    ended.expect_status(0);
    println!("{ended}");
    assert!(!ended.stdout.ends_with("survived\t0\n"), "no kill met a machine\n{ended}");
    assert!(marked(&mark).is_empty(), "{:?}", marked(&mark));
    assert_empty(temporary.path());
    run(&mut vmoon(["snapshot".as_ref(), "verify".as_ref(), directory.as_os_str()]), DEADLINE)
        .expect_status(0);
}

/// However vmoon ends, its QEMU ends too, and nothing is left in the folder for temporary files.
#[test]
fn qemu_ends_with_vmoon() {
    if let Some(missing) = skip::without_qemu() {
        return skip::skip("qemu ends with vmoon", &missing);
    }
    let code = "local vm = vmoon.boot { memory = '32MiB' } local s = vm:snapshot 'a' \
                while true do vm:restore(s) vm:succeed 'put a b' end";
    // At different moments of its life: starting, booting, saving, restoring.
    for milliseconds in [0, 30, 90, 200, 450, 900] {
        let temporary = tempfile::tempdir().unwrap();
        let mut command = vmoon(["run", "--backend", "qemu", "-e", code]);
        command.env("TMPDIR", temporary.path());
        let running = start(&mut command);
        let vmoon = running.id();
        let qemu = eventually("QEMU to start", || children(vmoon).first().copied());
        std::thread::sleep(Duration::from_millis(milliseconds));
        kill(vmoon);
        running.wait(DEADLINE);
        eventually("QEMU to end", || (!is_alive(qemu)).then_some(()));
        assert_empty(temporary.path());
    }
}

/// A machine whose QEMU was killed has crashed, says so, and comes back in a new process.
#[test]
fn a_machine_whose_qemu_was_killed_has_crashed_and_comes_back() {
    if let Some(missing) = skip::without_qemu() {
        return skip::skip("a killed qemu", &missing);
    }
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let code = format!(
        "local vm = vmoon.boot {{ memory = '32MiB' }} \
         vm:succeed 'put a b' local s = vm:snapshot 'a' io.open({:?}, 'w'):close() \
         local ok, err = pcall(vm.exec, vm, 'sleep 600000') \
         print(vm.state, err.code, err.message) \
         vm:restore(s) print(vm:succeed 'get a')",
        mark.display().to_string()
    );
    let running = start(&mut vmoon(["run", "--backend", "qemu", "-e", &code]));
    eventually("the snapshot", || mark.exists().then_some(()));
    kill(*children(running.id()).first().expect("QEMU runs"));
    let ended = running.wait(DEADLINE);
    ended.expect_status(0);
    assert!(ended.stdout.starts_with("crashed\tguest.panic\t"), "{ended}");
    assert!(ended.stdout.contains("QEMU ended (signal: 9"), "{ended}");
    assert!(ended.stdout.ends_with("b\n\n"), "{ended}");
}
