//! The guest in QEMU, entered through its PVH note: the devices that `tests/guest` does not have,
//! and another implementation of them than this project's.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// What the guest prints when it has booted.
const READY: &str = "vmoon micro: ready";

/// A running QEMU, killed when dropped.
struct Qemu {
    child: Child,
    disk: PathBuf,
}

impl Qemu {
    /// Boots the guest with a disk of 1 MiB and lets it run a command; none, with a word about it,
    /// where there is no QEMU.
    fn boot(name: &str, memory: &str, command: &str, more: &[&str]) -> Option<Self> {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let (kernel, disk) =
            (directory.join(format!("{name}.elf")), directory.join(format!("{name}.img")));
        fs::write(&kernel, vmoon_micro::IMAGE.expect("the guest is built on Linux")).unwrap();
        fs::write(&disk, vec![0; 1 << 20]).unwrap();
        let spawned = Command::new("qemu-system-x86_64")
            .args(["-M", "microvm,acpi=off,pit=off,pic=off,rtc=off,auto-kernel-cmdline=on"])
            .args(["-accel", "tcg", "-m", memory, "-smp", "2", "-nodefaults", "-no-reboot"])
            .args(["-display", "none", "-serial"])
            .arg(if more.contains(&"stdio") { "null" } else { "stdio" })
            .args(["-device", "isa-debug-exit,iobase=0x501"])
            .args(["-global", "virtio-mmio.force-legacy=false"])
            .args(["-device", "virtio-rng-device", "-device", "virtio-balloon-device"])
            .args(["-device", "virtio-blk-device,drive=disk", "-drive"])
            .arg(format!("id=disk,file={},format=raw,if=none", disk.display()))
            .arg("-kernel")
            .arg(&kernel)
            .arg("-append")
            .arg(format!("vmoon.poweroff=0x501:0x10 vmoon.run={command}"))
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        match spawned {
            Ok(child) => Some(Self { child, disk }),
            Err(error) => {
                assert!(std::env::var("CI").as_deref() != Ok("true"), "no QEMU: {error}");
                println!("skipped: qemu-system-x86_64 ({error}); install qemu-system-x86");
                None
            }
        }
    }

    /// Reads lines of the console until one is wanted.
    fn line(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        let output = self.child.stdout.as_mut().expect("piped");
        let mut seen = String::new();
        for line in BufReader::new(output).lines() {
            let line = line.unwrap();
            if wanted(&line) {
                return line;
            }
            seen.push_str(&line);
            seen.push('\n');
        }
        panic!("the guest ended after:\n{seen}");
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_hex(line: &str, digits: usize) -> bool {
    line.len() == digits && line.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[test]
fn seeds_from_the_entropy_device() {
    let mut seen = Vec::new();
    for name in ["entropy-1", "entropy-2"] {
        let Some(mut qemu) = Qemu::boot(name, "16", "random,8", &[]) else { return };
        seen.push(qemu.line(|line| is_hex(line, 16)));
    }
    assert_ne!(seen[0], seen[1]);
}

#[test]
fn reads_and_writes_the_disk() {
    let Some(mut qemu) = Qemu::boot("read", "64", "blk,read,7,2", &[]) else { return };
    assert!(qemu.line(|line| is_hex(line, 2048)).bytes().all(|byte| byte == b'0'));

    let Some(qemu) = Qemu::boot("write", "64", "blk,write,3,c0ffee", &[]) else { return };
    let start = std::time::Instant::now();
    loop {
        let bytes = fs::read(&qemu.disk).unwrap();
        if bytes[1536..1540] == [0xc0, 0xff, 0xee, 0] {
            break;
        }
        assert!(start.elapsed().as_secs() < 20, "nothing was written");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn powers_off() {
    let Some(mut qemu) = Qemu::boot("poweroff", "64", "poweroff", &[]) else { return };
    let mut text = String::new();
    qemu.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text.trim(), READY);
    // QEMU's debug exit device ends it with twice the value, plus one.
    assert_eq!(qemu.child.wait().unwrap().code(), Some(0x21));
}

#[test]
fn prints_on_the_virtio_console() {
    let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("console.log");
    let chardev = format!("file,id=log,path={}", log.display());
    let more = [
        "-device",
        "virtio-serial-device",
        "-chardev",
        chardev.as_str(),
        "-device",
        "virtconsole,chardev=log",
    ];
    let Some(mut qemu) = Qemu::boot("console", "64", "poweroff", &more) else { return };
    qemu.child.wait().unwrap();
    assert_eq!(fs::read_to_string(&log).unwrap().trim(), READY);
}

#[test]
fn the_balloon_follows_its_target() {
    let more = ["-qmp", "stdio"];
    let Some(mut qemu) = Qemu::boot("balloon", "128", "true", &more) else { return };
    let mut input = qemu.child.stdin.take().unwrap();
    let mut output = BufReader::new(qemu.child.stdout.take().unwrap());
    let mut ask = |command: &str| {
        writeln!(input, "{command}").unwrap();
        loop {
            let mut line = String::new();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "QEMU ended");
            if line.contains("\"return\"") {
                return line;
            }
        }
    };
    ask(r#"{"execute": "qmp_capabilities"}"#);
    for mib in [64u64, 128, 100] {
        ask(&format!(r#"{{"execute": "balloon", "arguments": {{"value": {}}}}}"#, mib << 20));
        let wanted = format!("\"actual\": {}}}", mib << 20);
        let start = std::time::Instant::now();
        while !ask(r#"{"execute": "query-balloon"}"#).contains(&wanted) {
            assert!(start.elapsed().as_secs() < 20, "the balloon does not reach {mib} MiB");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

#[test]
fn knows_memory_above_4_gib() {
    let Some(mut qemu) = Qemu::boot("memory", "6G", "meminfo", &[]) else { return };
    let line = qemu.line(|line| line.starts_with("MemTotal:"));
    let total: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!((6_200_000..=6 << 20).contains(&total), "{line}");
}
