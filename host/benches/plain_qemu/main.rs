//! What the qemu backend adds to QEMU, and what it saves: see `comparison`.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod comparison;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> anyhow::Result<()> {
    comparison::run()
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {
    println!("the qemu backend is for x86-64 Linux");
}
