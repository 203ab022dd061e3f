//! The machine that is measured on.

use std::fs;

use serde_json::{Value, json};
use vmoon_core::Backend;

/// What explains figures.
#[derive(Debug)]
pub(super) struct Environment {
    pub(super) cpu: Option<String>,
    pub(super) cpus: usize,
    pub(super) kernel: Option<String>,
    pub(super) backend: &'static str,
    /// Whether guest code is emulated, one instruction after the other.
    pub(super) emulated: bool,
    /// How busy the machine was when the measurements began, in runnable threads.
    pub(super) load: Option<f64>,
}

impl Environment {
    /// Looks around; what the host does not tell stays out.
    pub(super) fn look(backend: &dyn Backend) -> Self {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = processors
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
            .map(|(_, name)| name.trim().to_owned());
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").ok();
        let load = fs::read_to_string("/proc/loadavg")
            .ok()
            .and_then(|text| text.split(' ').next()?.parse().ok());
        Self {
            cpu,
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: kernel.map(|text| text.trim().to_owned()),
            backend: backend.name(),
            emulated: !backend.capabilities().linux.is_yes(),
            load,
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "cpu": self.cpu,
            "cpus": self.cpus,
            "kernel": self.kernel,
            "os": std::env::consts::OS,
            "arch": std::env::consts::ARCH,
            "backend": self.backend,
            "emulated": self.emulated,
            "load": self.load,
            "vmoon": env!("CARGO_PKG_VERSION"),
        })
    }
}
