//! Processes end.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use vmoon_protocol::watch::Process;

use super::wait::{Condition, Look, RARELY};
use crate::sys;

/// How many processes are listed for people.
const MOST_LISTED: usize = 8;

/// The wait for the end of a process, or of all of a name.
#[derive(Debug)]
pub(super) struct ExitCondition {
    process: Process,
    /// Of the processes that run: each becomes readable at the end.
    running: Vec<OwnedFd>,
}

impl ExitCondition {
    pub(super) fn new(process: &Process) -> Self {
        Self { process: process.clone(), running: Vec::new() }
    }

    fn candidates(&self) -> io::Result<Vec<u32>> {
        match &self.process {
            Process::Id(id) => Ok(vec![*id]),
            Process::Name(name) => Ok(processes()?.filter(|id| is_named(*id, name)).collect()),
        }
    }
}

impl Condition for ExitCondition {
    fn look(&mut self) -> io::Result<Look> {
        self.running.clear();
        let mut running = Vec::new();
        for id in self.candidates()? {
            if let Some(end) = open(id)? {
                self.running.push(end);
                running.push(describe(id));
            }
        }
        if running.is_empty() {
            return Ok(Look::True);
        }
        let count = running.len();
        running.truncate(MOST_LISTED);
        let listed = running.join(", ");
        Ok(Look::NotYet(match count {
            1 => format!("process {listed} runs"),
            _ if count > MOST_LISTED => format!("{count} processes run: {listed}, …"),
            _ => format!("{count} processes run: {listed}"),
        }))
    }

    fn wakers(&self) -> Vec<RawFd> {
        self.running.iter().map(AsRawFd::as_raw_fd).collect()
    }

    fn interval(&self) -> Duration {
        RARELY
    }
}

/// A descriptor that becomes readable when the process ends; none when it has.
fn open(id: u32) -> io::Result<Option<OwnedFd>> {
    let end = match sys::pidfd(id) {
        // No such process; or the number of a thread, which is nobody's process.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EINVAL)) => {
            return Ok(None);
        }
        other => other?,
    };
    // A zombie whose parent has not asked for its status has ended too.
    let ended = sys::poll(&mut [sys::entry(Some(&end), libc::POLLIN)], Some(Duration::ZERO))? > 0;
    Ok((!ended).then_some(end))
}

/// The ids of all processes.
fn processes() -> io::Result<impl Iterator<Item = u32>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// Whether a process bears a name: the kernel's for it, which is cut to 15 bytes, or the file name
/// of the program as it was started.
fn is_named(id: u32, name: &[u8]) -> bool {
    let short = fs::read(format!("/proc/{id}/comm")).unwrap_or_default();
    if short.strip_suffix(b"\n").unwrap_or(&short) == name {
        return true;
    }
    program(id) == name && !name.is_empty()
}

/// The file name of the program as it was started; empty for the kernel's own threads.
fn program(id: u32) -> Vec<u8> {
    let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    let path = line.split(|byte| *byte == 0).next().unwrap_or_default();
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec()
}

/// `12 (sleep)`.
fn describe(id: u32) -> String {
    let mut name = program(id);
    if name.is_empty() {
        name = fs::read(format!("/proc/{id}/comm")).unwrap_or_default();
    }
    format!("{id} ({})", String::from_utf8_lossy(&name).trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_is_found_by_id_and_name_until_it_ends() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let mut by_id = ExitCondition::new(&Process::Id(child.id()));
        assert!(matches!(by_id.look().unwrap(), Look::NotYet(seen) if seen.contains("sleep")));
        let mut by_name = ExitCondition::new(&Process::Name(b"sleep".to_vec()));
        assert!(matches!(by_name.look().unwrap(), Look::NotYet(_)));
        assert!(!by_name.wakers().is_empty());
        child.kill().unwrap();
        // A zombie until it is waited for.
        let mut ends = [sys::entry(Some(&by_id.running[0]), libc::POLLIN)];
        assert_eq!(sys::poll(&mut ends, Some(Duration::from_secs(20))).unwrap(), 1);
        assert_eq!(by_id.look().unwrap(), Look::True);
        child.wait().unwrap();
        assert_eq!(by_id.look().unwrap(), Look::True);
        let mut none = ExitCondition::new(&Process::Name(b"no-such-program".to_vec()));
        assert_eq!(none.look().unwrap(), Look::True);
    }
}
