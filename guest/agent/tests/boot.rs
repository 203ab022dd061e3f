//! Boots a distribution's kernel with the assembled initramfs in QEMU, where both are installed.
//! QEMU has no vsock without the host's vhost module, so that this shows PID 1's work: mounts,
//! modules, a shell, the power button.

#[path = "../static_build.rs"]
mod static_build;

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use vmoon_core::guest::{GuestImages, resolve};
use vmoon_core::spec::{Guest, MachineSpec};

/// Typed at the console's shell; the answers are looked for in its output.
const SCRIPT: &str = "\
hostname
cat /proc/modules | cut -d' ' -f1 | tr '\\n' ' '
grep -c . /etc/vmoon/modules
ls -ld /tmp /dev/fd /dev/pts/ptmx; mount
cat /sys/class/net/lo/operstate; ip addr show lo
cd /bin && ls -l vmoon-agent; id nobody
sleep 0.1 & true
dmesg | grep -i -e virtio -e pvpanic -e 'vmoon' | tail
(sleep 0.05 &); sleep 0.2; echo zombies=$(cat /proc/[0-9]*/status | grep -c 'State:.Z')
cat /proc/uptime; echo the end
";

#[test]
fn a_stock_kernel_boots_the_assembled_initramfs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("static");
    let agent = static_build::Guest::of_host("linux", std::env::consts::ARCH)
        .expect("guests run here")
        .build(&root, &target)
        .expect("a static agent");
    let agent: &'static [u8] = fs::read(agent).expect("its bytes").leak();
    eprintln!("agent: {} bytes", agent.len());
    for source in static_build::SOURCES {
        assert!(root.join(source).exists(), "a build script watches {source}");
    }

    let spec = MachineSpec {
        name: Some("boot-test".to_owned()),
        guest: Guest::Linux { kernel: None, initrd: None },
        cmdline: Some("vmoon.shell=on vmoon.agent=off".to_owned()),
        ..MachineSpec::default()
    };
    let images = GuestImages { micro: None, agent };
    let has_qemu = Command::new("qemu-system-x86_64").arg("--version").output().is_ok();
    let boot = match resolve(&spec, &images) {
        Ok(boot) if has_qemu => boot,
        other => {
            eprintln!("skipped: QEMU {has_qemu}, kernel {:?}", other.err());
            return;
        }
    };
    let again = Instant::now();
    let second = resolve(&spec, &images).expect("the second time");
    let initrd = boot.initrd.as_ref().expect("an initramfs").bytes();
    eprintln!("initramfs: {} bytes; again in {:?}", initrd.len(), again.elapsed());
    assert!(std::ptr::eq(initrd, second.initrd.as_ref().expect("the same").bytes()));

    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("initramfs");
    fs::write(&path, initrd).expect("written");
    let output = run_qemu(boot.kernel.origin(), &path, &boot.cmdline);
    for expected in [
        "Linux version",
        "boot-test",
        "virtio_mmio",
        "vmw_vsock_virtio_transport",
        "drwxrwxrwt",
        "/dev/fd -> /proc/self/fd",
        "devtmpfs on /dev type devtmpfs",
        "127.0.0.1/8",
        "vmoon-agent -> /init",
        "uid=65534(nobody)",
        "zombies=0",
        "the end",
        "reboot: Power down",
    ] {
        assert!(output.contains(expected), "no {expected:?} in:\n{output}");
    }
    assert!(!output.contains("vmoon-agent: cannot"), "{output}");
}

/// Types [`SCRIPT`], presses the power button and returns what the console printed until the machine powered off.
fn run_qemu(kernel: &Path, initramfs: &Path, cmdline: &str) -> String {
    let began = Instant::now();
    let monitor = initramfs.with_extension("monitor");
    let mut qemu = Command::new("qemu-system-x86_64")
        .args([
            "-M",
            "q35",
            "-accel",
            "tcg",
            "-cpu",
            "max",
            "-m",
            "256",
            "-nographic",
            "-no-reboot",
        ])
        .args(["-device", "pvpanic-pci", "-device", "virtio-rng-pci", "-device", "virtio-balloon"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", cmdline, "-serial", "stdio", "-display", "none", "-monitor"])
        .arg(format!("unix:{},server,nowait", monitor.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("QEMU starts");
    let mut input = qemu.stdin.take().expect("a console");
    let mut output = qemu.stdout.take().expect("a console");
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        let mut text = Vec::new();
        let mut buffer = [0; 4096];
        let (mut prompted, mut pressed, mut kept) = (false, false, None);
        while let Ok(count) = output.read(&mut buffer) {
            if count == 0 {
                break;
            }
            text.extend_from_slice(&buffer[..count]);
            if !prompted && text.windows(4).any(|window| window == b"~ # ") {
                prompted = true;
                eprintln!("shell after {:?}", began.elapsed());
                input.write_all(SCRIPT.as_bytes()).expect("typed");
            }
            // The echo of the script holds the words too, but not at the start of a line.
            if !pressed && text.windows(9).any(|window| window == b"\nthe end\r") {
                pressed = true;
                let mut monitor = UnixStream::connect(&monitor).expect("QEMU's monitor");
                monitor.write_all(b"system_powerdown\n").expect("the button is pressed");
                // QEMU drops what it has not read yet when the connection closes.
                kept = Some(monitor);
            }
        }
        drop(kept);
        sender.send(String::from_utf8_lossy(&text).into_owned()).expect("the test waits");
    });
    let text = receiver.recv_timeout(Duration::from_mins(2));
    let in_time = text.is_ok();
    if !in_time {
        qemu.kill().expect("killed");
    }
    qemu.wait().expect("ended");
    let text = text.or_else(|_| receiver.recv()).expect("the reader ends with the machine");
    assert!(in_time, "not powered off after two minutes:\n{text}");
    text
}
