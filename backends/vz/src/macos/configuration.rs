//! From a plan to the framework's configuration.

use std::os::fd::{IntoRawFd, OwnedFd};
use std::path::Path;

use objc2::AnyThread;
use objc2::rc::Retained;
use objc2_foundation::{NSArray, NSData, NSFileHandle, NSString, NSURL};
use objc2_virtualization::{
    VZDirectoryShare, VZDirectorySharingDeviceConfiguration, VZDiskImageCachingMode,
    VZDiskImageStorageDeviceAttachment, VZDiskImageSynchronizationMode,
    VZFileHandleSerialPortAttachment, VZGenericMachineIdentifier, VZGenericPlatformConfiguration,
    VZLinuxBootLoader, VZLinuxRosettaDirectoryShare, VZMACAddress, VZNATNetworkDeviceAttachment,
    VZSharedDirectory, VZSingleDirectoryShare, VZStorageDeviceConfiguration,
    VZVirtioBlockDeviceConfiguration, VZVirtioConsoleDeviceSerialPortConfiguration,
    VZVirtioEntropyDeviceConfiguration, VZVirtioFileSystemDeviceConfiguration,
    VZVirtioNetworkDeviceConfiguration, VZVirtioSocketDeviceConfiguration,
    VZVirtioTraditionalMemoryBalloonDeviceConfiguration, VZVirtualMachineConfiguration,
};
use vmoon_core::{Code, Error, Result};

use super::completion::{owned_words, words};
use crate::plan::{Files, Plan, PlannedShare, ROSETTA_TAG};

/// A configuration that the framework has found valid.
pub(super) struct Built {
    pub(super) configuration: Retained<VZVirtualMachineConfiguration>,
    /// The framework's own form of the machine's identifier.
    pub(super) identifier: Vec<u8>,
}

/// Builds a configuration and has the framework check it.
///
/// # Errors
/// `vm.spec` and `file.*`, with the framework's words.
pub(super) fn build(
    plan: &Plan,
    files: &Files,
    identifier: Option<&[u8]>,
    console: (OwnedFd, OwnedFd),
) -> Result<Built> {
    let identifier = machine_identifier(identifier)?;
    // SAFETY: configurations are plain objects that may be made and changed on any one thread;
    // each setter retains or copies what it is given. So it is in all of this module.
    let configuration = unsafe { VZVirtualMachineConfiguration::new() };
    // SAFETY: as above.
    unsafe {
        configuration.setCPUCount(plan.cpus as usize);
        configuration.setMemorySize(plan.memory.get());
        let platform = VZGenericPlatformConfiguration::new();
        platform.setMachineIdentifier(&identifier);
        configuration.setPlatform(&platform);
        let loader = boot_loader(plan, files)?;
        configuration.setBootLoader(Some(&loader));
        configuration.setSerialPorts(&NSArray::from_retained_slice(&[Retained::into_super(
            serial_port(console),
        )]));
        configuration.setStorageDevices(&NSArray::from_retained_slice(&disks(plan, files)?));
        configuration.setDirectorySharingDevices(&NSArray::from_retained_slice(&shares(plan)?));
        if let Some(mac) = plan.mac {
            let device = network(mac)?;
            let devices = NSArray::from_retained_slice(&[Retained::into_super(device)]);
            configuration.setNetworkDevices(&devices);
        }
        if plan.vsock {
            let device = VZVirtioSocketDeviceConfiguration::new();
            let devices = NSArray::from_retained_slice(&[Retained::into_super(device)]);
            configuration.setSocketDevices(&devices);
        }
        if plan.balloon {
            let device = VZVirtioTraditionalMemoryBalloonDeviceConfiguration::new();
            let devices = NSArray::from_retained_slice(&[Retained::into_super(device)]);
            configuration.setMemoryBalloonDevices(&devices);
        }
        if plan.entropy {
            let device = VZVirtioEntropyDeviceConfiguration::new();
            let devices = NSArray::from_retained_slice(&[Retained::into_super(device)]);
            configuration.setEntropyDevices(&devices);
        }
        configuration.validateWithError().map_err(|error| {
            spec(format!("the framework refuses the machine: {}", words(&error))).with_hint(
                "where it speaks of entitlements, sign the program: see CONTRIBUTING.md, macOS",
            )
        })?;
    }
    // SAFETY: as above.
    let identifier = unsafe { identifier.dataRepresentation() }.to_vec();
    Ok(Built { configuration, identifier })
}

/// Why the framework cannot save such a machine, if it cannot. Needs macOS 14.
pub(super) fn why_unsaveable(configuration: &VZVirtualMachineConfiguration) -> Option<String> {
    // SAFETY: as in `build`.
    unsafe { configuration.validateSaveRestoreSupportWithError() }.err().map(owned_words)
}

fn spec(message: String) -> Error {
    Error::new(Code::VmSpec, message).with_detail("backend", "vz")
}

fn machine_identifier(saved: Option<&[u8]>) -> Result<Retained<VZGenericMachineIdentifier>> {
    let Some(bytes) = saved else {
        // SAFETY: as in `build`.
        return Ok(unsafe { VZGenericMachineIdentifier::new() });
    };
    let data = NSData::with_bytes(bytes);
    // SAFETY: as in `build`.
    unsafe {
        VZGenericMachineIdentifier::initWithDataRepresentation(
            VZGenericMachineIdentifier::alloc(),
            &data,
        )
    }
    .ok_or_else(|| {
        Error::new(Code::SnapshotCorrupt, "the saved identifier is not one of the framework's")
    })
}

fn url(path: &Path) -> Result<Retained<NSURL>> {
    NSURL::from_file_path(path).ok_or_else(|| {
        Error::new(Code::FileNotFound, format!("{} is no path for it", path.display()))
            .with_detail("path", path.display().to_string())
    })
}

fn boot_loader(plan: &Plan, files: &Files) -> Result<Retained<VZLinuxBootLoader>> {
    let kernel = url(&files.kernel)?;
    let initrd = files.initrd.as_deref().map(url).transpose()?;
    // SAFETY: as in `build`.
    Ok(unsafe {
        let loader = VZLinuxBootLoader::initWithKernelURL(VZLinuxBootLoader::alloc(), &kernel);
        loader.setCommandLine(&NSString::from_str(&plan.cmdline));
        loader.setInitialRamdiskURL(initrd.as_deref());
        loader
    })
}

/// The console: the guest reads from the first descriptor and writes to the second.
fn serial_port(
    (input, output): (OwnedFd, OwnedFd),
) -> Retained<VZVirtioConsoleDeviceSerialPortConfiguration> {
    // The handles own the descriptors from here on, and close them.
    let handle = |descriptor: OwnedFd| {
        let descriptor = descriptor.into_raw_fd();
        NSFileHandle::initWithFileDescriptor_closeOnDealloc(NSFileHandle::alloc(), descriptor, true)
    };
    let (input, output) = (handle(input), handle(output));
    // SAFETY: as in `build`.
    unsafe {
        let attachment =
            VZFileHandleSerialPortAttachment::initWithFileHandleForReading_fileHandleForWriting(
                VZFileHandleSerialPortAttachment::alloc(),
                Some(&input),
                Some(&output),
            );
        let port = VZVirtioConsoleDeviceSerialPortConfiguration::new();
        port.setAttachment(Some(&attachment));
        port
    }
}

fn disks(plan: &Plan, files: &Files) -> Result<Vec<Retained<VZStorageDeviceConfiguration>>> {
    let disks = plan.disks.iter().zip(&files.disks).enumerate();
    disks
        .map(|(index, (disk, path))| {
            let url = url(path)?;
            // What the guest flushes is on the medium when it hears of it; a clone is gone with
            // the machine, so that the file system's own order is enough.
            let synchronization = if disk.cloned {
                VZDiskImageSynchronizationMode::Fsync
            } else {
                VZDiskImageSynchronizationMode::Full
            };
            // SAFETY: as in `build`.
            let attachment = unsafe {
                VZDiskImageStorageDeviceAttachment::initWithURL_readOnly_cachingMode_synchronizationMode_error(
                    VZDiskImageStorageDeviceAttachment::alloc(),
                    &url,
                    disk.readonly,
                    VZDiskImageCachingMode::Automatic,
                    synchronization,
                )
            }
            .map_err(|error| {
                let shown = disk.image.display();
                spec(format!("disk {} ({shown}) cannot be used: {}", index + 1, words(&error)))
                    .with_hint("give a raw image, a whole number of 512-byte sectors long")
                    .with_detail("path", shown.to_string())
            })?;
            // SAFETY: as in `build`.
            let device = unsafe {
                VZVirtioBlockDeviceConfiguration::initWithAttachment(
                    VZVirtioBlockDeviceConfiguration::alloc(),
                    &attachment,
                )
            };
            Ok(Retained::into_super(device))
        })
        .collect()
}

fn shares(plan: &Plan) -> Result<Vec<Retained<VZDirectorySharingDeviceConfiguration>>> {
    let mut devices = Vec::new();
    for share in &plan.shares {
        let directory = directory_share(share)?;
        devices.push(sharing_device(&share.tag, &directory)?);
    }
    if plan.rosetta {
        // SAFETY: as in `build`; the class exists where Rosetta is installed.
        let share = unsafe {
            VZLinuxRosettaDirectoryShare::initWithError(VZLinuxRosettaDirectoryShare::alloc())
        }
        .map_err(|error| spec(format!("Rosetta cannot be shared: {}", words(&error))))?;
        devices.push(sharing_device(ROSETTA_TAG, &share)?);
    }
    Ok(devices)
}

fn directory_share(share: &PlannedShare) -> Result<Retained<VZSingleDirectoryShare>> {
    let url = url(&share.path)?;
    // SAFETY: as in `build`.
    Ok(unsafe {
        let directory = VZSharedDirectory::initWithURL_readOnly(
            VZSharedDirectory::alloc(),
            &url,
            share.readonly,
        );
        VZSingleDirectoryShare::initWithDirectory(VZSingleDirectoryShare::alloc(), &directory)
    })
}

fn sharing_device(
    tag: &str,
    share: &VZDirectoryShare,
) -> Result<Retained<VZDirectorySharingDeviceConfiguration>> {
    let name = NSString::from_str(tag);
    // SAFETY: as in `build`; a tag that is not valid would raise an exception, so it is checked.
    unsafe {
        VZVirtioFileSystemDeviceConfiguration::validateTag_error(&name).map_err(|error| {
            spec(format!("the tag {tag:?} of a shared directory is not valid: {}", words(&error)))
        })?;
        let device = VZVirtioFileSystemDeviceConfiguration::initWithTag(
            VZVirtioFileSystemDeviceConfiguration::alloc(),
            &name,
        );
        device.setShare(Some(share));
        Ok(Retained::into_super(device))
    }
}

/// A network interface behind the host's address translation.
fn network(mac: [u8; 6]) -> Result<Retained<VZVirtioNetworkDeviceConfiguration>> {
    let text = mac.map(|byte| format!("{byte:02x}")).join(":");
    let name = NSString::from_str(&text);
    // SAFETY: as in `build`.
    unsafe {
        let address = VZMACAddress::initWithString(VZMACAddress::alloc(), &name)
            .ok_or_else(|| spec(format!("{text} is not a network address")))?;
        let device = VZVirtioNetworkDeviceConfiguration::new();
        device.setMACAddress(&address);
        device.setAttachment(Some(&VZNATNetworkDeviceAttachment::new()));
        Ok(device)
    }
}
