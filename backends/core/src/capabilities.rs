//! What a backend can do on this host, and why not.

use std::borrow::Cow;

/// One thing that a backend can or cannot do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capability {
    /// It can.
    Yes,
    /// It cannot, for this reason.
    No(Cow<'static, str>),
}

impl Capability {
    /// A refusal with a fixed reason.
    pub const fn no(reason: &'static str) -> Self {
        Self::No(Cow::Borrowed(reason))
    }

    /// Whether it can.
    pub fn is_yes(&self) -> bool {
        matches!(self, Self::Yes)
    }

    /// Why not, if not.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Yes => None,
            Self::No(reason) => Some(reason),
        }
    }
}

/// All that a backend says of itself. The spec is checked against it before anything starts.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "each field is the feature of the same name in the Lua API")]
pub struct Capabilities {
    pub snapshot: Capability,
    pub fork: Capability,
    pub save: Capability,
    pub vsock: Capability,
    pub balloon: Capability,
    /// Whether pages that the guest gives up are freed on the host.
    pub balloon_reclaims_host_memory: Capability,
    pub entropy: Capability,
    pub disks: Capability,
    /// Whether images in the format qcow2 can lie beneath overlays.
    pub qcow2: Capability,
    pub shares: Capability,
    pub net: Capability,
    pub rosetta: Capability,
    /// Whether machines can be broken on purpose.
    pub faults: Capability,
    /// Whether a stock Linux kernel can run here.
    pub linux: Capability,
    /// The largest number of vCPUs.
    pub max_cpus: u32,
}

impl Capabilities {
    /// The features by name, in the order in which people are shown them.
    pub fn features(&self) -> [(&'static str, &Capability); 14] {
        [
            ("snapshot", &self.snapshot),
            ("fork", &self.fork),
            ("save", &self.save),
            ("vsock", &self.vsock),
            ("balloon", &self.balloon),
            ("balloon_reclaims_host_memory", &self.balloon_reclaims_host_memory),
            ("entropy", &self.entropy),
            ("disks", &self.disks),
            ("qcow2", &self.qcow2),
            ("shares", &self.shares),
            ("net", &self.net),
            ("rosetta", &self.rosetta),
            ("faults", &self.faults),
            ("linux", &self.linux),
        ]
    }
}
