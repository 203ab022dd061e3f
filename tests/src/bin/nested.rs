//! `tests/nested/run`: runs `vmoon` where KVM can run stock Linux.

#[cfg(target_os = "linux")]
fn main() {
    std::process::exit(vmoon_tests::nested::command::main(std::env::args_os().skip(1)));
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("nested: needs Linux");
    std::process::exit(3);
}
