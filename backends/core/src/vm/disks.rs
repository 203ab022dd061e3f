//! Disks as the guest sees them, written to images.

use std::path::Path;
use std::sync::Arc;

use super::host::Host;
use super::machine::Vm;
use super::snapshot::Snapshot;
use crate::disk::{DiskContents, commit};
use crate::error::{Code, Error, Result};
use crate::lifecycle::Operation;
use crate::saved::Work;
use crate::spec::{DiskMode, MachineSpec};

impl Vm {
    /// Writes a disk as the guest's device has it now, image and overlay in one, to a raw image at
    /// `path`; see [`MachineSpec::disk`] for `number`. What the guest keeps in caches of its own
    /// is not on its disk yet.
    ///
    /// The machine does not wait: what is written is the disk between two requests. A disk that
    /// the guest writes in place cannot be held still so, and wants a machine that does not run.
    ///
    /// # Errors
    /// `vm.spec` when there is no such disk, `vm.state`, `backend.unsupported`, `file.*`.
    pub async fn commit_disk(&self, number: usize, path: &Path) -> Result<()> {
        self.check_open("commit_disk")?;
        let (index, disk) = self.spec.disk(number).ok_or_else(|| no_disk(&self.spec, number))?;
        let in_place = disk.mode == DiskMode::Direct && !disk.readonly;
        let mut watch = self.watch();
        if in_place {
            let status = watch.borrow_and_update().clone();
            status.state.allows(Operation::CopyDirectDisk)?;
        }
        let contents = self.machine.disk(index).await?;
        write(&self.host, contents, path, move || {
            // Closing ends the watch, and with it all writes.
            if in_place && watch.has_changed().unwrap_or(false) {
                return Err(Error::new(
                    Code::VmState,
                    "the machine went on while its disk was read",
                )
                .with_hint("let it pause until vm:commit_disk returns"));
            }
            Ok(())
        })
        .await
    }
}

impl Snapshot {
    /// Writes a disk as it was in the snapshot, as [`Vm::commit_disk`] does.
    ///
    /// # Errors
    /// `snapshot.not_found`, `vm.spec` when there is no such disk or its writes are in no
    /// snapshot, `snapshot.incompatible` when the image beneath has changed, `file.*`.
    pub async fn commit_disk(&self, number: usize, path: &Path) -> Result<()> {
        self.check_exists()?;
        let spec = &self.source.spec;
        let (index, disk) = spec.disk(number).ok_or_else(|| no_disk(spec, number))?;
        if disk.mode == DiskMode::Direct && !disk.readonly {
            return Err(Error::new(
                Code::VmSpec,
                format!("disk {number} is written in place, so that no snapshot holds it"),
            )
            .with_hint("mode = \"overlay\" makes a disk part of each snapshot")
            .with_detail("path", disk.path.display().to_string()));
        }
        let contents = self.image.disk(index).await?;
        write(&self.source.host, contents, path, || Ok(())).await
    }
}

/// Writes a disk, off the event loop. `check` has the last word.
async fn write(
    host: &Arc<Host>,
    contents: Arc<dyn DiskContents>,
    path: &Path,
    check: impl FnOnce() -> Result<()> + Send + 'static,
) -> Result<()> {
    let progress = host.works.begin(Work::Committing);
    // Whoever no longer waits does not want the file either.
    let _stop = progress.stop_on_drop();
    let path = path.to_owned();
    let work = move || commit::commit(&*contents, &path, &progress, check);
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(Error::new(Code::FileIo, "writing the disk died").with_source(error))
    })
}

pub(super) fn no_disk(spec: &MachineSpec, number: usize) -> Error {
    let numbers = spec.disk_numbers();
    let error = Error::new(Code::VmSpec, format!("the machine has no disk {number}"));
    let hint = match numbers.len() {
        0 => "it has no disks".to_owned(),
        1 => format!("it has disk {}", numbers.start),
        _ => format!("it has disks {} to {}", numbers.start, numbers.end - 1),
    };
    error.with_hint(hint).with_detail("disk", number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Disk;

    fn spec(count: usize, root: bool) -> MachineSpec {
        let disk = |index: usize| Disk {
            path: format!("/{index}").into(),
            readonly: false,
            mode: DiskMode::Overlay,
        };
        MachineSpec { disks: (0..count).map(disk).collect(), root, ..MachineSpec::default() }
    }

    #[test]
    fn disks_count_from_1_and_the_root_is_0() {
        let index = |spec: &MachineSpec, number| spec.disk(number).map(|(index, _)| index);
        let plain = spec(2, false);
        assert_eq!(
            [0, 1, 2, 3].map(|number| index(&plain, number)),
            [None, Some(0), Some(1), None]
        );
        let rooted = spec(2, true);
        assert_eq!([0, 1, 2].map(|number| index(&rooted, number)), [Some(0), Some(1), None]);
        let hint = |spec: &MachineSpec| no_disk(spec, 7).hint().unwrap().to_owned();
        assert_eq!(hint(&plain), "it has disks 1 to 2");
        assert_eq!(hint(&rooted), "it has disks 0 to 1");
        assert_eq!(hint(&spec(1, true)), "it has disk 0");
        assert_eq!(hint(&spec(0, false)), "it has no disks");
    }
}
