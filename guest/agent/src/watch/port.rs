//! Somebody listens on a port: TCP over IPv4 or IPv6, or vsock.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use super::listening::Listening;
use super::vsock_listeners;
use super::wait::{Condition, Look, OFTEN, RARELY};

/// How many ports are listed for people.
const MOST_LISTED: usize = 16;

/// The wait for a port.
#[derive(Debug)]
pub(super) struct PortCondition {
    port: u32,
    listening: Option<Listening>,
}

impl PortCondition {
    pub(super) fn new(port: u32) -> Self {
        Self { port, listening: Listening::open().ok() }
    }
}

impl Condition for PortCondition {
    fn look(&mut self) -> io::Result<Look> {
        let tcp = tcp_ports()?;
        // A kernel without `vsock_diag` cannot tell.
        let vsock = vsock_listeners::ports().unwrap_or_default();
        let here = u16::try_from(self.port).is_ok_and(|port| tcp.contains(&port));
        if here || vsock.contains(&self.port) {
            return Ok(Look::True);
        }
        Ok(Look::NotYet(format!(
            "nobody listens on it, but on {} (TCP) and {} (vsock)",
            listed(&tcp),
            listed(&vsock)
        )))
    }

    fn wakers(&self) -> Vec<RawFd> {
        self.listening.iter().flat_map(Listening::descriptors).collect()
    }

    fn interval(&self) -> Duration {
        if self.listening.is_some() { RARELY } else { OFTEN }
    }
}

/// The ports on which somebody listens for TCP, on any address.
fn tcp_ports() -> io::Result<BTreeSet<u16>> {
    let mut ports = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match fs::read_to_string(table) {
            Ok(text) => ports.extend(text.lines().skip(1).filter_map(listener)),
            // A kernel without IPv6, or one without TCP at all.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ports)
}

/// The port of a listening socket (state 0A) in a line of `/proc/net/tcp`.
fn listener(line: &str) -> Option<u16> {
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    if fields.nth(1)? != "0A" {
        return None;
    }
    u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()
}

fn listed<T: ToString>(ports: &BTreeSet<T>) -> String {
    if ports.is_empty() {
        return "none".to_owned();
    }
    let names: Vec<String> = ports.iter().take(MOST_LISTED).map(ToString::to_string).collect();
    let more = if ports.len() > MOST_LISTED { ", …" } else { "" };
    names.join(", ") + more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listening_sockets_count() {
        let listens = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000";
        assert_eq!(listener(listens), Some(8080));
        let six = "   0: 00000000000000000000000000000000:0016 0000:0000 0A 00000000";
        assert_eq!(listener(six), Some(22));
        assert_eq!(listener("   1: 0100007F:0050 0100007F:9C40 01 00000000:00000000"), None);
        assert_eq!(listener("garbage"), None);
    }

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(listed(&BTreeSet::<u16>::new()), "none");
        assert_eq!(listed(&BTreeSet::from([22_u16, 80])), "22, 80");
        assert!(listed(&(0..99_u16).collect()).ends_with("15, …"));
    }
}
