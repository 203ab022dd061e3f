//! Machines of the qemu backend beside a QEMU that is scripted by hand: `savevm` and `loadvm` over
//! QMP, commands typed into a shell on the serial port.
//!
//! Both run the same guest with the same memory and, but for vsock, the same devices; each thing is
//! done by one and then by the other, so that a busy host slows both. What is scripted by hand is
//! given every advantage: its image is never flushed to the disk, and its shell runs already.
//! `VMOON_ROUNDS` says how many machines of each are booted; a guest whose files are missing is
//! left out, and said to be.

mod monitor;
mod pair;
mod plain;
mod table;

use std::sync::Arc;

use anyhow::{Context, Result};
use vmoon_core::guest::{self, GuestImages};
use vmoon_core::spec::{Guest, MachineSpec};
use vmoon_core::{Bytes, Host};

const IMAGES: GuestImages =
    GuestImages { micro: vmoon_micro::IMAGE, agent: include_bytes!(env!("VMOON_AGENT_IMAGE")) };

const MEMORY: Bytes = Bytes(512 << 20);

pub(super) fn run() -> Result<()> {
    let rounds = match std::env::var("VMOON_ROUNDS") {
        Ok(text) => text.parse().context("VMOON_ROUNDS is a number")?,
        Err(_) => 5,
    };
    let host = Host::new(vec![Arc::new(vmoon_qemu::QemuBackend::new())], IMAGES);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // QEMU is looked for, and asked what it can do, once in a process.
    host.backends()[0].probe()?;
    for kind in [Guest::Micro, Guest::Linux { kernel: None, initrd: None }] {
        // The built-in guest is told at once to write to some pages: by hand nobody can tell it later.
        let cmdline = (kind == Guest::Micro).then(|| "vmoon.run=dirty,200".to_owned());
        let spec = MachineSpec { guest: kind, memory: MEMORY, cmdline, ..MachineSpec::default() };
        match guest::resolve(&spec, &IMAGES) {
            Ok(files) => {
                let table = runtime.block_on(pair::measure(&host, &spec, &files, rounds))?;
                println!("{table}");
            }
            Err(error) => println!("{:?}: left out: {}", spec.guest, error.full_message()),
        }
    }
    Ok(())
}
