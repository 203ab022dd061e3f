//! `vmoon bench`: what vmoon costs on this machine, each figure beside its floor.
//!
//! A floor is the least that the host allows for the same work, measured in the same rounds: the
//! machine may be busy, and the ratio still means something.
//!
//! # Map
//! | module | holds |
//! | --- | --- |
//! | `suite` | the order of the measurements, and the exit status |
//! | `plan` | what is measured: guest, memory, dirty pages, rounds |
//! | `figure` | samples, percentiles, figures |
//! | `guest` | booting, dirtying pages, waiting until a guest is idle |
//! | `floor` | the host's best, where this host has one |
//! | `start`, `boot`, `restore`, `snapshot`, `fork`, `vsock` | one group of figures each |
//! | `socket_pair` | what vsock is measured beside |
//! | `scale` | figures for people only: many forks, large memories |
//! | `environment` | the machine that all this was measured on |
//! | `report` | the table and the JSON object |

mod boot;
mod environment;
mod figure;
mod floor;
mod fork;
mod guest;
mod plan;
mod report;
mod restore;
mod scale;
mod snapshot;
mod socket_pair;
mod start;
mod suite;
mod vsock;

pub(crate) use suite::run;
