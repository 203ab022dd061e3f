//! `tests/nested/run`: runs `vmoon` where KVM can run stock Linux.

fn main() {
    std::process::exit(vmoon_tests::nested::command::main(std::env::args_os().skip(1)));
}
