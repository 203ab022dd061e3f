//! `echo-server` and `connect`: the other end for scripts that try vsock.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;

use crate::service;
use crate::transport;

/// Echoes each connection to a vsock port, until it is killed.
pub(crate) fn echo_server(port: &str) -> io::Result<()> {
    let port = parse_port(port)?;
    let listener = transport::vsock_listen(port)?;
    // It says nothing: output that nobody reads would keep its command's connection busy, and a
    // restore would cut it. `wait_port` tells when it listens.
    loop {
        let connection = transport::accept(&listener)?;
        service::spawn("echo", move || {
            if let Err(error) = echo(connection) {
                eprintln!("vmoon-agent: {error}");
            }
        })?;
    }
}

fn echo(mut connection: File) -> io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match connection.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => connection.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    // SAFETY: takes two integers. A failure means that the peer has gone already.
    unsafe { libc::shutdown(connection.as_raw_fd(), libc::SHUT_WR) };
    Ok(())
}

/// Sends a line to a vsock port of the host and prints the reply line.
pub(crate) fn connect(port: &str, text: &str) -> io::Result<()> {
    let port = parse_port(port)?;
    let mut connection =
        transport::vsock_connect(libc::VMADDR_CID_HOST, port).map(File::from).map_err(|error| {
            io::Error::other(format!("cannot reach the host's port {port}: {error}"))
        })?;
    connection.write_all(format!("{text}\n").as_bytes())?;
    let mut reply = Vec::new();
    BufReader::new(connection).read_until(b'\n', &mut reply)?;
    if reply.is_empty() {
        return Err(io::Error::other(format!("the host closed port {port} without a reply")));
    }
    if reply.last() != Some(&b'\n') {
        reply.push(b'\n');
    }
    io::stdout().write_all(&reply)
}

fn parse_port(text: &str) -> io::Result<u32> {
    text.parse().map_err(|_| io::Error::other(format!("{text:?} is not a vsock port")))
}
