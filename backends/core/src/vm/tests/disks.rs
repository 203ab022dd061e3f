use crate::error::Code;
use crate::spec::{Disk, DiskMode, MachineSpec};
use crate::vm::fake::{Behaviour, host, spec};

#[tokio::test]
async fn a_disk_that_the_guest_writes_in_place_is_copied_while_nothing_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (image, copy) = (folder.path().join("image"), folder.path().join("copy"));
    std::fs::write(&image, [0; 512]).unwrap();
    let (host, _backend) = host(Behaviour::default());
    let disk = Disk { path: image, readonly: false, mode: DiskMode::Direct };
    let vm = host.boot(None, MachineSpec { disks: vec![disk], ..spec() }).await.unwrap();
    assert_eq!(vm.commit_disk(1, &copy).await.unwrap_err().code(), Code::VmState);
    assert!(!copy.exists());
    vm.pause().await.unwrap();
    vm.commit_disk(1, &copy).await.unwrap();
    assert_eq!(std::fs::read(&copy).unwrap(), [b'd'; 512]);
    let snapshot = vm.snapshot(None).await.unwrap();
    assert_eq!(snapshot.commit_disk(1, &copy).await.unwrap_err().code(), Code::VmSpec);
}
