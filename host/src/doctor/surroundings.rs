//! What of the host matters to every backend.

use std::fs;

use rustix::process::{Resource, getrlimit};
use vmoon_core::{Bytes, Fact};

/// Fewer open files than this and a few dozen machines fill them.
const FEW_FILES: u64 = 4096;

/// Less free memory than this and a Linux guest with its host is tight.
const LITTLE_MEMORY: Bytes = Bytes::mib(512);

/// What the host tells.
pub(super) fn facts() -> Vec<Fact> {
    let mut facts = vec![system()];
    facts.extend(processor(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()));
    facts.extend(memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default()));
    facts.push(files(getrlimit(Resource::Nofile).current, getrlimit(Resource::Nofile).maximum));
    facts
}

fn system() -> Fact {
    let name = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    Fact::new(
        "system",
        format!("{} {} ({})", text(name.sysname()), text(name.release()), text(name.machine())),
    )
}

fn processor(cpuinfo: &str) -> Option<Fact> {
    let (_, name) =
        cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'))?;
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    Some(Fact::new("processors", format!("{count}, {}", name.trim())))
}

fn memory(meminfo: &str) -> Option<Fact> {
    let field = |name: &str| -> Option<Bytes> {
        let rest = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: u64 = rest.trim().trim_end_matches(" kB").parse().ok()?;
        Some(Bytes(kibibytes * 1024))
    };
    let (total, free) = (field("MemTotal:")?, field("MemAvailable:")?);
    let mebibytes = |size: Bytes| size.get() >> 20;
    let value = format!("{} MiB of {} MiB are available", mebibytes(free), mebibytes(total));
    Some(if free < LITTLE_MEMORY {
        Fact::with_advice(
            "memory",
            value,
            "give machines less (memory = \"64MiB\"), or end programs",
        )
    } else {
        Fact::new("memory", value)
    })
}

fn files(soft: Option<u64>, hard: Option<u64>) -> Fact {
    let text =
        |limit: Option<u64>| limit.map_or("any number".to_owned(), |limit| limit.to_string());
    let value = format!("{} at a time (at most {})", text(soft), text(hard));
    match soft {
        Some(limit) if limit < FEW_FILES => {
            let advice = format!("for dozens of machines, raise it: ulimit -n {}", text(hard));
            Fact::with_advice("open files", value, advice)
        }
        _ => Fact::new("open files", value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_scarce_has_advice() {
        assert!(files(Some(1024), Some(4096)).advice.unwrap().contains("ulimit -n 4096"));
        assert_eq!(files(Some(1 << 20), None).advice, None);
        let little = "MemTotal:       4096000 kB\nMemAvailable:    100000 kB\n";
        assert!(memory(little).unwrap().advice.is_some());
        let plenty = "MemTotal:       4194304 kB\nMemAvailable:    2097152 kB\n";
        assert_eq!(
            memory(plenty).unwrap(),
            Fact::new("memory", "2048 MiB of 4096 MiB are available")
        );
        assert_eq!(memory(""), None);
    }
}
