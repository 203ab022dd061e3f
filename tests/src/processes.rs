//! Processes that a test has started through others.

use std::time::{Duration, Instant};

/// The variable that marks a program and all that it starts.
pub const MARK: &str = "VMOON_TEST_MARK";

/// The live processes whose environment has this mark, and their names.
pub fn marked(mark: &str) -> Vec<(i32, String)> {
    let wanted = format!("{MARK}={mark}");
    all()
        .filter(|pid| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
        })
        .filter(|pid| is_alive(*pid))
        .map(|pid| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            (pid, name.trim().to_owned())
        })
        .collect()
}

/// The processes whose parent is this one.
pub fn children(parent: i32) -> Vec<i32> {
    all()
        .filter(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let behind_name = stat.rsplit(')').next().unwrap_or_default();
            behind_name.split_whitespace().nth(1) == Some(parent.to_string().as_str())
        })
        .collect()
}

fn all() -> impl Iterator<Item = i32> {
    let all = std::fs::read_dir("/proc").expect("procfs").flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Whether a process still runs; one that only waits to be reaped does not.
pub fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
    !matches!(state, None | Some("Z" | "X"))
}

/// Kills a process that the test has started; one that has ended meanwhile is no error.
pub fn kill(pid: i32) {
    // SAFETY: the call takes no pointers.
    let killed = unsafe { libc::kill(pid, libc::SIGKILL) };
    let gone = std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH);
    assert!(killed == 0 || gone, "process {pid} cannot be killed");
}

/// Looks until there is something; fails after two minutes.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_mins(2), "waited for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
