//! The ioctls of vhost (linux/vhost.h) as QEMU makes them, read from its memory and checked.

use std::io;

use crate::process::Reach;

const SET_OWNER: u32 = 0xaf01;
const RESET_OWNER: u32 = 0xaf02;
const GET_FEATURES: u32 = 0x8008_af00;
const SET_FEATURES: u32 = 0x4008_af00;
const GET_BACKEND_FEATURES: u32 = 0x8008_af26;
const SET_BACKEND_FEATURES: u32 = 0x4008_af25;
const SET_MEM_TABLE: u32 = 0x4008_af03;
const SET_VRING_NUM: u32 = 0x4008_af10;
const SET_VRING_ADDR: u32 = 0x4028_af11;
const SET_VRING_BASE: u32 = 0x4008_af12;
const GET_VRING_BASE: u32 = 0xc008_af12;
const SET_VRING_KICK: u32 = 0x4008_af20;
const SET_VRING_CALL: u32 = 0x4008_af21;
const SET_VRING_ERR: u32 = 0x4008_af22;
const VSOCK_SET_GUEST_CID: u32 = 0x4008_af60;
const VSOCK_SET_RUNNING: u32 = 0x4004_af61;

/// More than QEMU has for any machine here.
const MOST_REGIONS: u32 = 64;

/// A piece of guest memory in QEMU's address space.
#[derive(Clone, Copy, Debug)]
pub(super) struct Region {
    pub(super) guest: u64,
    pub(super) length: u64,
    pub(super) address: u64,
}

/// One call with its arguments.
#[derive(Debug)]
pub(super) enum VhostCall {
    /// Nothing to do.
    Nothing,
    GetFeatures,
    SetFeatures(u64),
    GetBackendFeatures,
    SetMemory(Vec<Region>),
    SetSize {
        ring: usize,
        size: u32,
    },
    SetAddresses {
        ring: usize,
        descriptors: u64,
        used: u64,
        available: u64,
    },
    SetBase {
        ring: usize,
        base: u32,
    },
    GetBase {
        ring: usize,
    },
    /// The descriptor's number in QEMU, negative for none.
    SetKick {
        ring: usize,
        descriptor: i32,
    },
    SetCall {
        ring: usize,
        descriptor: i32,
    },
    SetRunning(bool),
    /// QEMU can do without.
    Unknown,
}

impl VhostCall {
    /// Reads the arguments of a call.
    pub(super) fn read(reach: &Reach, request: u32, argument: u64) -> io::Result<Self> {
        let two = || read_words::<2>(reach, argument);
        let long = || -> io::Result<u64> {
            let mut bytes = [0; 8];
            reach.read(argument, &mut bytes)?;
            Ok(u64::from_le_bytes(bytes))
        };
        Ok(match request {
            SET_OWNER | RESET_OWNER | SET_BACKEND_FEATURES | SET_VRING_ERR
            | VSOCK_SET_GUEST_CID => Self::Nothing,
            GET_FEATURES => Self::GetFeatures,
            SET_FEATURES => Self::SetFeatures(long()?),
            GET_BACKEND_FEATURES => Self::GetBackendFeatures,
            SET_MEM_TABLE => Self::SetMemory(read_regions(reach, argument)?),
            SET_VRING_NUM => {
                two().map(|[ring, size]| Self::SetSize { ring: ring as usize, size })?
            }
            SET_VRING_ADDR => {
                let mut bytes = [0; 40];
                reach.read(argument, &mut bytes)?;
                let long =
                    |at: usize| u64::from_le_bytes(std::array::from_fn(|index| bytes[at + index]));
                let ring = u32::from_le_bytes(std::array::from_fn(|index| bytes[index])) as usize;
                let (descriptors, used, available) = (long(8), long(16), long(24));
                Self::SetAddresses { ring, descriptors, used, available }
            }
            SET_VRING_BASE => {
                two().map(|[ring, base]| Self::SetBase { ring: ring as usize, base })?
            }
            GET_VRING_BASE => two().map(|[ring, _]| Self::GetBase { ring: ring as usize })?,
            SET_VRING_KICK => {
                let [ring, descriptor] = two()?;
                Self::SetKick { ring: ring as usize, descriptor: descriptor.cast_signed() }
            }
            SET_VRING_CALL => {
                let [ring, descriptor] = two()?;
                Self::SetCall { ring: ring as usize, descriptor: descriptor.cast_signed() }
            }
            VSOCK_SET_RUNNING => Self::SetRunning(read_words::<1>(reach, argument)? != [0]),
            _ => Self::Unknown,
        })
    }
}

fn read_words<const N: usize>(reach: &Reach, address: u64) -> io::Result<[u32; N]> {
    let mut words = [0; N];
    for (index, word) in (0..).zip(&mut words) {
        let mut bytes = [0; 4];
        reach.read(address + 4 * index, &mut bytes)?;
        *word = u32::from_le_bytes(bytes);
    }
    Ok(words)
}

fn read_regions(reach: &Reach, argument: u64) -> io::Result<Vec<Region>> {
    let [count] = read_words::<1>(reach, argument)?;
    if count > MOST_REGIONS {
        return Err(io::ErrorKind::InvalidData.into());
    }
    (0..u64::from(count))
        .map(|index| {
            let mut bytes = [0; 24];
            reach.read(argument + 8 + 32 * index, &mut bytes)?;
            let long =
                |at: usize| u64::from_le_bytes(std::array::from_fn(|index| bytes[at + index]));
            Ok(Region { guest: long(0), length: long(8), address: long(16) })
        })
        .collect()
}
