//! Names that are unique among the live machines.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Code, Error, Result};

/// The names in use. Cloning shares the set.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    names: BTreeSet<String>,
    /// How many machines were named by default.
    counted: u64,
}

/// A name that belongs to one machine until this is dropped.
#[derive(Debug)]
pub(super) struct NameLease {
    names: Names,
    name: String,
}

impl Names {
    fn with<T>(&self, change: impl FnOnce(&mut Taken) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes `wanted`, or `vm-1`, `vm-2`, … in turn.
    ///
    /// # Errors
    /// `vm.spec` when the name is empty or taken.
    pub(super) fn lease(&self, wanted: Option<&str>) -> Result<NameLease> {
        let Some(wanted) = wanted else {
            return Ok(self.numbered("vm"));
        };
        if wanted.is_empty() {
            return Err(Error::new(Code::VmSpec, "a machine's name cannot be empty")
                .with_hint("leave the name out to have one chosen"));
        }
        if !self.with(|taken| taken.names.insert(wanted.to_owned())) {
            return Err(Error::new(
                Code::VmSpec,
                format!("another machine is already named {wanted:?}"),
            )
            .with_hint("close that machine first, or choose another name")
            .with_detail("name", wanted));
        }
        Ok(NameLease { names: self.clone(), name: wanted.to_owned() })
    }

    /// Takes the name of a fork: `NAME-fork-1`, `NAME-fork-2`, …, the first that is free.
    pub(super) fn lease_fork(&self, parent: &str) -> NameLease {
        let mut number = 0_u64;
        let name = self.with(|taken| {
            loop {
                number += 1;
                let name = format!("{parent}-fork-{number}");
                if taken.names.insert(name.clone()) {
                    return name;
                }
            }
        });
        NameLease { names: self.clone(), name }
    }

    /// Numbers are not used again: a log stays readable.
    fn numbered(&self, stem: &str) -> NameLease {
        let name = self.with(|taken| {
            loop {
                taken.counted += 1;
                let name = format!("{stem}-{}", taken.counted);
                if taken.names.insert(name.clone()) {
                    return name;
                }
            }
        });
        NameLease { names: self.clone(), name }
    }
}

impl NameLease {
    /// The name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for NameLease {
    fn drop(&mut self) {
        self.names.with(|taken| taken.names.remove(&self.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_while_they_live() {
        let names = Names::default();
        let database = names.lease(Some("database")).unwrap();
        let error = names.lease(Some("database")).unwrap_err();
        assert_eq!(error.code(), Code::VmSpec);
        assert!(error.message().contains("database"), "{error}");
        drop(database);
        let again = names.lease(Some("database")).unwrap();
        assert_eq!(names.lease_fork(again.name()).name(), "database-fork-1");
        assert_eq!(names.lease(Some("")).unwrap_err().code(), Code::VmSpec);
    }

    #[test]
    fn default_names_count_and_skip_those_taken() {
        let names = Names::default();
        let second = names.lease(Some("vm-2")).unwrap();
        let found: Vec<_> = (0..2).map(|_| names.lease(None).unwrap()).collect();
        assert_eq!(found.iter().map(NameLease::name).collect::<Vec<_>>(), ["vm-1", "vm-3"]);
        assert_eq!(second.name(), "vm-2");
    }
}
