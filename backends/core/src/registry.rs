//! The live machines of this process and the CIDs that they hold.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Code, Error, Result};
use crate::units::Cid;

/// The CIDs in use. Cloning shares the pool.
#[derive(Clone, Debug, Default)]
pub struct CidPool(Arc<Mutex<BTreeSet<Cid>>>);

impl CidPool {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<Cid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `wanted`, or the lowest free CID.
    ///
    /// # Errors
    /// `vm.spec` when `wanted` is taken or may not belong to a guest.
    pub fn lease(&self, wanted: Option<Cid>) -> Result<CidLease> {
        let mut taken = self.lock();
        let cid = if let Some(cid) = wanted {
            check(cid, &taken)?;
            cid
        } else {
            let mut cid = Cid::FIRST_GUEST;
            for used in taken.iter() {
                if *used != cid {
                    break;
                }
                cid.0 += 1;
            }
            cid
        };
        taken.insert(cid);
        Ok(CidLease { pool: self.clone(), cid })
    }
}

fn check(cid: Cid, taken: &BTreeSet<Cid>) -> Result<()> {
    if !(Cid::FIRST_GUEST..=Cid::LAST_GUEST).contains(&cid) {
        return Err(Error::new(Code::VmSpec, format!("vsock CID {cid} cannot belong to a guest"))
            .with_hint(format!(
                "use a CID from {} to {}, or leave it out",
                Cid::FIRST_GUEST,
                Cid::LAST_GUEST
            )));
    }
    if taken.contains(&cid) {
        return Err(Error::new(
            Code::VmSpec,
            format!("vsock CID {cid} belongs to another machine"),
        )
        .with_hint("close that machine first, or leave the CID out")
        .with_detail("cid", cid.0));
    }
    Ok(())
}

/// A CID that belongs to one machine until this is dropped.
#[derive(Debug)]
pub struct CidLease {
    pool: CidPool,
    cid: Cid,
}

impl CidLease {
    /// The CID.
    pub fn cid(&self) -> Cid {
        self.cid
    }
}

impl Drop for CidLease {
    fn drop(&mut self) {
        self.pool.lock().remove(&self.cid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cids_are_unique_and_come_back() {
        let pool = CidPool::default();
        let first = pool.lease(None).unwrap();
        let second = pool.lease(None).unwrap();
        assert_eq!((first.cid(), second.cid()), (Cid(3), Cid(4)));
        assert_eq!(pool.lease(Some(Cid(4))).unwrap_err().code(), Code::VmSpec);
        assert_eq!(pool.lease(Some(Cid(2))).unwrap_err().code(), Code::VmSpec);
        drop(first);
        assert_eq!(pool.lease(None).unwrap().cid(), Cid(3));
    }
}
