//! A machine's files: kernel, disks, snapshots.
//!
//! The framework wants paths, so that what vmoon holds in memory is written here. The folder goes
//! with the last that needs it: the machine, and each snapshot of it.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use vmoon_core::spec::BootSource;
use vmoon_core::{Code, Error, Result, SnapshotId};

use crate::disk::RawImage;
use crate::plan::{Files, Plan};

/// The name of a machine's memory and devices in a snapshot.
pub(crate) const STATE: &str = "state";
/// The names of the files that a machine boots from.
pub(crate) const KERNEL: &str = "kernel";
/// See [`KERNEL`].
pub(crate) const INITRD: &str = "initrd";

/// The name of a disk's file.
pub(crate) fn disk_name(index: usize) -> String {
    format!("disk-{index}")
}

/// A folder of one machine's.
#[derive(Debug)]
pub(crate) struct Folder(TempDir);

impl Folder {
    /// An empty folder.
    pub(crate) fn new() -> Result<Arc<Self>> {
        // A machine's memory is nobody else's business.
        let permissions = fs::Permissions::from_mode(0o700);
        tempfile::Builder::new()
            .prefix("vmoon-vz-")
            .permissions(permissions)
            .tempdir()
            .map(|folder| Arc::new(Self(folder)))
            .map_err(|error| failed("make a folder for the machine", &std::env::temp_dir(), error))
    }

    /// Writes what a machine boots from, and clones its disks.
    pub(crate) fn fill(&self, plan: &Plan, boot: &BootSource) -> Result<Files> {
        self.write(KERNEL, boot.kernel.bytes())?;
        if let Some(initrd) = &boot.initrd {
            self.write(INITRD, initrd.bytes())?;
        }
        self.clone_disks(plan, |index| plan.disks[index].image.clone())?;
        Ok(self.files(plan))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path(name);
        fs::write(&path, bytes).map_err(|error| failed("write", &path, error))
    }

    /// Puts fresh clones in the place of the machine's own disks: all of them, or none.
    pub(crate) fn clone_disks(&self, plan: &Plan, from: impl Fn(usize) -> PathBuf) -> Result<()> {
        let own = || (0..plan.disks.len()).filter(|index| plan.disks[*index].cloned);
        let draft = |index| self.path(&format!(".{}", disk_name(index)));
        for index in own() {
            clone_file(&from(index), &draft(index))?;
        }
        own().try_for_each(|index| rename(&draft(index), &self.path(&disk_name(index))))
    }

    /// A disk as the guest's device has it now. A clone is taken at one moment, and has no name.
    pub(crate) fn disk(&self, plan: &Plan, index: usize) -> Result<RawImage> {
        if !plan.disks[index].cloned {
            return RawImage::open(&plan.disks[index].image);
        }
        let copy = self.path(&format!(".copy-of-{}", disk_name(index)));
        clone_file(&self.path(&disk_name(index)), &copy)?;
        let image = RawImage::open(&copy);
        fs::remove_file(&copy).map_err(|error| failed("remove", &copy, error))?;
        image
    }

    /// Where the machine's files are.
    pub(crate) fn files(&self, plan: &Plan) -> Files {
        let disks = plan.disks.iter().enumerate().map(|(index, disk)| {
            if disk.cloned { self.path(&disk_name(index)) } else { disk.image.clone() }
        });
        Files {
            kernel: self.path(KERNEL),
            initrd: plan.initrd.then(|| self.path(INITRD)),
            disks: disks.collect(),
        }
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Begins a snapshot, under a name that nobody looks for.
    pub(crate) fn draft(self: &Arc<Self>, id: SnapshotId) -> Result<Draft> {
        let path = self.path(&format!(".snapshot-{id}"));
        fs::create_dir(&path).map_err(|error| failed("make", &path, error))?;
        Ok(Draft { folder: self.clone(), id, path })
    }
}

/// A snapshot while it is written; removed unless it is finished.
#[derive(Debug)]
pub(crate) struct Draft {
    folder: Arc<Folder>,
    id: SnapshotId,
    path: PathBuf,
}

impl Draft {
    /// The path of a file of the snapshot.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Clones the disks of the machine, which must be paused.
    pub(crate) fn take_disks(&self, plan: &Plan) -> Result<()> {
        let own = (0..plan.disks.len()).filter(|index| plan.disks[*index].cloned);
        for name in own.map(disk_name) {
            clone_file(&self.folder.path(&name), &self.file(&name))?;
        }
        Ok(())
    }

    /// Gives the snapshot its name, at one moment.
    pub(crate) fn finish(self) -> Result<Kept> {
        let path = self.folder.path(&format!("snapshot-{}", self.id));
        rename(&self.path, &path)?;
        Ok(Kept { path, _folder: self.folder.clone() })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // One that was finished is no longer there.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The files of a snapshot, removed with it.
#[derive(Debug)]
pub(crate) struct Kept {
    path: PathBuf,
    /// The folder that it lies in.
    _folder: Arc<Folder>,
}

impl Kept {
    /// The path of a file of the snapshot.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// What the files take on disk. Clones share blocks, which count for each.
    pub(crate) fn size_on_disk(&self) -> u64 {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.metadata().ok()).map(|it| it.blocks() * 512).sum()
    }

    /// Checks that what a restore needs is there.
    ///
    /// # Errors
    /// `snapshot.corrupt`.
    pub(crate) fn check(&self, plan: &Plan) -> Result<()> {
        let disks = (0..plan.disks.len()).filter(|index| plan.disks[*index].cloned);
        for name in disks.map(disk_name).chain([STATE.to_owned()]) {
            let path = self.file(&name);
            fs::metadata(&path).map_err(|error| {
                vmoon_core::saved::manifest::corrupt(&path, "cannot be read").with_source(error)
            })?;
        }
        Ok(())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "a snapshot's files stay");
        }
    }
}

/// Clones a file: on APFS the two share their blocks until either is written (`clonefile(2)`,
/// which `fs::copy` uses), elsewhere it is a copy.
pub(crate) fn clone_file(from: &Path, to: &Path) -> Result<()> {
    match fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("replace", to, error));
        }
        _ => {}
    }
    fs::copy(from, to)
        .and_then(|_| fs::set_permissions(to, fs::Permissions::from_mode(0o600)))
        .map_err(|error| failed("clone", from, error))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|error| failed("put in place", to, error))
}

fn failed(verb: &str, path: &Path, error: io::Error) -> Error {
    let code = match error.kind() {
        io::ErrorKind::NotFound => Code::FileNotFound,
        io::ErrorKind::PermissionDenied => Code::FilePermission,
        _ => Code::FileIo,
    };
    let full = error.kind() == io::ErrorKind::StorageFull;
    let error = Error::new(code, format!("cannot {verb} {}", path.display()))
        .with_source(error)
        .with_detail("path", path.display().to_string());
    if full { error.with_hint("free space on the disk") } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::PlannedDisk;
    use crate::plan::tests::{boot, identity, linux};

    fn plan(image: &Path) -> Plan {
        let host = crate::host::tests::modern();
        let plan = Plan::new(&linux(), &identity(), &boot(), &host).unwrap();
        let disk = |cloned| PlannedDisk { image: image.to_owned(), readonly: false, cloned };
        Plan { disks: vec![disk(false), disk(true)], ..plan }
    }

    #[test]
    fn a_machine_writes_to_clones_and_a_snapshot_keeps_them() {
        let elsewhere = tempfile::tempdir().unwrap();
        let image = elsewhere.path().join("a.img");
        fs::write(&image, b"base").unwrap();
        fs::set_permissions(&image, fs::Permissions::from_mode(0o444)).unwrap();
        let plan = plan(&image);
        let folder = Folder::new().unwrap();
        let files = folder.fill(&plan, &boot()).unwrap();
        assert_eq!(files.disks[0], image);
        fs::write(&files.disks[1], b"first").unwrap();
        let draft = folder.draft(SnapshotId::random()).unwrap();
        fs::write(draft.file(STATE), b"memory").unwrap();
        draft.take_disks(&plan).unwrap();
        let kept = draft.finish().unwrap();
        fs::write(&files.disks[1], b"second").unwrap();
        kept.check(&plan).unwrap();
        assert!(kept.size_on_disk() > 0);
        folder.clone_disks(&plan, |index| kept.file(&disk_name(index))).unwrap();
        assert_eq!(fs::read(&files.disks[1]).unwrap(), b"first");
        assert_eq!(fs::read(&image).unwrap(), b"base");
        fs::remove_file(kept.file(STATE)).unwrap();
        assert_eq!(kept.check(&plan).unwrap_err().code(), Code::SnapshotCorrupt);
        let path = kept.file("");
        drop(kept);
        assert!(!path.exists());
    }

    #[test]
    fn an_unfinished_snapshot_and_the_folder_leave_nothing() {
        let folder = Folder::new().unwrap();
        let draft = folder.draft(SnapshotId::random()).unwrap();
        let (path, root) = (draft.file(""), folder.path(""));
        assert!(path.exists());
        drop(draft);
        assert!(!path.exists() && root.exists());
        drop(folder);
        assert!(!root.exists());
    }

    #[test]
    fn a_missing_image_changes_no_disk() {
        let plan = plan(Path::new("/nowhere/a.img"));
        let folder = Folder::new().unwrap();
        fs::write(folder.path(&disk_name(1)), b"own").unwrap();
        let missing = folder.clone_disks(&plan, |_| "/nowhere/a.img".into()).unwrap_err();
        assert_eq!(missing.code(), Code::FileNotFound);
        assert_eq!(fs::read(folder.path(&disk_name(1))).unwrap(), b"own");
    }
}
