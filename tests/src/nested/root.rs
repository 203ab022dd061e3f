//! The root file system of the nested machine.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::archive::Archive;
use super::kernel::{IMAGE_VARIABLE, Kernel, MODULES_VARIABLE, read_module};
use super::machine;
use crate::project;

/// Folders that hold no scripts of anybody's.
const NOT_SCRIPTS: [&str; 5] = ["target", "proc", "sys", "dev", "node_modules"];
/// How deep scripts are looked for below a folder.
const DEPTH: u32 = 4;
/// No firmware of a PC is larger, in bytes; that of other machines is.
const FIRMWARE: u64 = 300 << 10;
/// Variables that mean something to `vmoon` or to a script.
const PASSED_ON: [&str; 4] = ["VMOON_", "RUST_", "NO_COLOR", "CI"];

/// What the nested machine runs.
#[derive(Debug)]
pub struct Contents<'a> {
    /// The `vmoon` binary.
    pub vmoon: &'a Path,
    /// Its arguments. Files that they name are passed in, and the scripts beside those.
    pub arguments: &'a [std::ffi::OsString],
    /// Its standard input.
    pub input: &'a [u8],
    /// Whether the host's QEMU comes along, to run guests on the nested machine's KVM.
    pub qemu: bool,
    /// The kernel of the nested machine.
    pub outer: &'a Kernel,
    /// The kernel of the guests.
    pub inner: &'a Kernel,
}

/// Puts the root file system together: each file keeps the path that it has on the host.
pub fn assemble(contents: &Contents<'_>) -> io::Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.file(Path::new("/init"), include_bytes!("init.sh"));
    // Guests made by vmoon have the host's busybox too.
    let busybox = busybox().ok_or_else(|| missing("busybox"))?;
    archive.file(Path::new("/bin/busybox"), &std::fs::read(&busybox)?);
    for (number, module) in contents.outer.outer_modules()?.iter().enumerate() {
        archive.file(Path::new(&format!("/nested/modules/{number:02}")), &read_module(module)?);
    }
    add_inner_kernel(&mut archive, contents.inner)?;
    archive.copy(contents.vmoon)?;
    for library in libraries(contents.vmoon)? {
        archive.copy(&library)?;
    }
    if contents.qemu {
        add_qemu(&mut archive)?;
    }
    add_scripts(&mut archive, project::root(), DEPTH)?;
    let directory = std::env::current_dir()?;
    archive.directory(&directory);
    for argument in contents.arguments {
        let path = directory.join(argument);
        if path.is_file() {
            archive.copy(&path)?;
            add_scripts(&mut archive, path.parent().unwrap_or(&directory), DEPTH)?;
        } else if path.is_dir() {
            add_scripts(&mut archive, &path, DEPTH)?;
        }
    }
    archive.file(Path::new("/nested/input"), contents.input);
    archive.file(Path::new("/nested/command"), &command(contents, &directory));
    Ok(archive.finish())
}

/// The statically linked busybox of the host.
pub fn busybox() -> Option<PathBuf> {
    ["/usr/bin/busybox", "/bin/busybox"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.is_file() && libraries(path).is_ok_and(|libraries| libraries.is_empty()))
}

/// A kernel where Debian installs it, whatever its path on the host.
fn add_inner_kernel(archive: &mut Archive, kernel: &Kernel) -> io::Result<()> {
    let version = kernel.version();
    let image = PathBuf::from(format!("/boot/vmlinuz-{version}"));
    archive.file(&image, &std::fs::read(&kernel.image)?);
    let directory = Path::new("/lib/modules").join(version);
    let modules = kernel.inner_modules()?;
    for file in &modules {
        let name = file.strip_prefix(&kernel.modules).unwrap_or(file);
        archive.file(&directory.join(name), &std::fs::read(file)?);
    }
    for (name, content) in kernel.indexes_for(&modules)? {
        archive.file(&directory.join(name), content.as_bytes());
    }
    Ok(())
}

/// QEMU with its libraries and the firmware of a PC.
fn add_qemu(archive: &mut Archive) -> io::Result<()> {
    let program = machine::program().ok_or_else(|| missing(machine::QEMU))?;
    archive.copy(&program)?;
    for library in libraries(&program)? {
        archive.copy(&library)?;
    }
    let folders = Command::new(&program).args(["-L", "help"]).output()?;
    for folder in String::from_utf8_lossy(&folders.stdout).lines().map(Path::new) {
        if folder.is_dir() {
            archive.copy_tree(folder, FIRMWARE)?;
        }
    }
    Ok(())
}

fn missing(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{what} is not installed"))
}

/// The dynamic linker and the libraries that a program needs; none if it is static.
fn libraries(program: &Path) -> io::Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .filter(|_| output.status.success())
        .map(PathBuf::from)
        .collect())
}

/// Copies the Lua files in and below a folder.
fn add_scripts(archive: &mut Archive, directory: &Path, depth: u32) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)?.filter_map(Result::ok) {
        let name = entry.file_name();
        let kind = entry.file_type()?;
        let hidden = name.as_bytes().starts_with(b".");
        if kind.is_dir() && depth > 0 && !hidden && !NOT_SCRIPTS.iter().any(|other| name == *other)
        {
            // A folder that may not be read holds nothing for us.
            let _ = add_scripts(archive, &entry.path(), depth - 1);
        } else if kind.is_file() && entry.path().extension() == Some(OsStr::new("lua")) {
            archive.copy(&entry.path())?;
        }
    }
    Ok(())
}

/// A shell script that becomes `vmoon`, in the same folder as on the host.
fn command(contents: &Contents<'_>, directory: &Path) -> Vec<u8> {
    let mut script = b"#!/bin/sh\nexport HOME=/ LANG=C.UTF-8\n".to_vec();
    for (name, value) in std::env::vars_os() {
        // The kernel of the guests is where an installed one is.
        let kernel = name == IMAGE_VARIABLE || name == MODULES_VARIABLE;
        let known = PASSED_ON.iter().any(|prefix| name.as_bytes().starts_with(prefix.as_bytes()));
        if known && !kernel {
            script.extend_from_slice(b"export ");
            script.extend_from_slice(name.as_bytes());
            script.push(b'=');
            script.extend_from_slice(&quoted(&value));
            script.push(b'\n');
        }
    }
    script.extend_from_slice(b"cd ");
    script.extend_from_slice(&quoted(directory.as_os_str()));
    script.extend_from_slice(b"\nexec ");
    script.extend_from_slice(&quoted(contents.vmoon.as_os_str()));
    for argument in contents.arguments {
        script.push(b' ');
        script.extend_from_slice(&quoted(argument));
    }
    script.push(b'\n');
    script
}

/// A word for the shell.
fn quoted(text: &OsStr) -> Vec<u8> {
    let mut word = vec![b'\''];
    for byte in text.as_bytes() {
        match byte {
            b'\'' => word.extend_from_slice(b"'\\''"),
            byte => word.push(*byte),
        }
    }
    word.push(b'\'');
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        let word = "it's $HOME; \"quoted\"\nand more";
        let mut script = b"printf %s ".to_vec();
        script.extend_from_slice(&quoted(OsStr::new(word)));
        let output = Command::new("sh").arg("-c").arg(OsStr::from_bytes(&script)).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), word);
    }
}
