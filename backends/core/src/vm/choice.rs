//! Which backend a machine gets, and why.

use std::sync::Arc;

use super::check;
use crate::backend::{Backend, check_capability};
use crate::capabilities::Capabilities;
use crate::disk::format::{Head, ImageFormat};
use crate::error::{Code, Error, Result};
use crate::spec::{Disk, Guest, MachineSpec};

/// A backend, and why not the one that is tried before it.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) backend: Arc<dyn Backend>,
    /// The first that was passed over, and why; none where the user named the backend.
    pub(super) passed_over: Option<(&'static str, String)>,
}

/// The backend that was asked for, or the first that works here and can do what the spec asks.
///
/// # Errors
/// `backend.unavailable` when none works, `backend.unsupported` or `vm.spec` when those that work
/// cannot do what is asked.
pub(super) fn choose(
    backends: &[Arc<dyn Backend>],
    wanted: Option<&str>,
    spec: &MachineSpec,
) -> Result<Choice> {
    match wanted {
        None | Some("auto") => choose_any(backends, spec),
        Some(name) => {
            let backend = backends
                .iter()
                .find(|backend| backend.name() == name)
                .ok_or_else(|| unknown(backends, name))?;
            backend.probe()?;
            can(backend.as_ref(), spec)?;
            tracing::info!(backend = name, "backend chosen: the spec asks for it");
            Ok(Choice { backend: backend.clone(), passed_over: None })
        }
    }
}

fn choose_any(backends: &[Arc<dyn Backend>], spec: &MachineSpec) -> Result<Choice> {
    let mut absent = Vec::new();
    let mut unable = None;
    for backend in backends {
        let name = backend.name();
        if let Err(error) = backend.probe() {
            tracing::info!(backend = name, reason = %error.full_message(), "backend passed over");
            absent.push((name, error));
            continue;
        }
        match can(backend.as_ref(), spec) {
            Ok(()) => {
                tracing::info!(backend = name, "backend chosen: it works here");
                let reason = |(name, error): (&'static str, Error)| (name, error.full_message());
                let first = absent.into_iter().next().map(reason);
                let passed_over = first.or_else(|| unable.map(reason));
                return Ok(Choice { backend: backend.clone(), passed_over });
            }
            Err(error) => {
                tracing::info!(backend = name, reason = error.message(), "backend passed over");
                unable.get_or_insert((name, error));
            }
        }
    }
    Err(unable.map_or_else(|| none_works(absent), |(_, error)| error))
}

fn none_works(mut absent: Vec<(&'static str, Error)>) -> Error {
    match absent.len() {
        0 => Error::new(Code::BackendUnavailable, "this vmoon was built without any backend"),
        1 => absent.remove(0).1,
        _ => {
            let reasons: Vec<String> = absent
                .iter()
                .map(|(name, error)| format!("{name}: {}", error.full_message()))
                .collect();
            let hints: Vec<&str> = absent.iter().filter_map(|(_, error)| error.hint()).collect();
            Error::new(
                Code::BackendUnavailable,
                format!("no backend works here ({})", reasons.join("; ")),
            )
            .with_hint(if hints.is_empty() {
                "`vmoon doctor` says what to do".to_owned()
            } else {
                hints.join("; or: ")
            })
        }
    }
}

fn unknown(backends: &[Arc<dyn Backend>], name: &str) -> Error {
    let known: Vec<&str> = backends.iter().map(|backend| backend.name()).collect();
    Error::new(Code::BackendUnavailable, format!("there is no backend named {name:?} here"))
        .with_hint(format!("this vmoon has: auto, {}", known.join(", ")))
        .with_detail("backend", name)
}

fn is_qcow2(disk: &Disk) -> bool {
    Head::of(&disk.path).is_ok_and(|head| head.format() == ImageFormat::Qcow2)
}

/// Checks everything that the spec asks for.
fn can(backend: &dyn Backend, spec: &MachineSpec) -> Result<()> {
    let name = backend.name();
    let capabilities = backend.capabilities();
    check::cpus(spec.cpus, capabilities.max_cpus, name)?;
    let Capabilities { disks, qcow2, shares, net, vsock, balloon, entropy, rosetta, linux, .. } =
        &capabilities;
    let asked = [
        (!spec.disks.is_empty(), "a disk", disks),
        (spec.disks.iter().any(is_qcow2), "a qcow2 image", qcow2),
        (!spec.shares.is_empty(), "a shared directory", shares),
        (spec.net, "a network interface", net),
        (spec.vsock.is_some(), "vsock", vsock),
        (spec.balloon, "a memory balloon", balloon),
        (spec.entropy, "an entropy device", entropy),
        (spec.rosetta, "Rosetta", rosetta),
        (matches!(spec.guest, Guest::Linux { .. }), "a Linux guest", linux),
    ];
    asked
        .into_iter()
        .filter(|(asked, ..)| *asked)
        .try_for_each(|(_, feature, capability)| check_capability(name, feature, capability))
        .map_err(|error| {
            error.with_hint("vmoon.capabilities() tells what each backend can do on this host")
        })
}
