//! Files to and from the guest, by way of the agent.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::machine::Vm;
use super::transcript::Noted;
use crate::agent::FileOptions;
use crate::error::{Code, Error, Result};
use crate::saved::Work;

impl Vm {
    /// Writes a file in the guest. It appears, or replaces the one that is there, at one moment.
    /// Cancel-safe: dropping the future leaves what was there.
    ///
    /// # Errors
    /// `file.*` for what the guest says of the path, `vm.timeout`, and those of [`Vm::exec`].
    pub async fn write_file(&self, path: &[u8], bytes: &[u8], options: &FileOptions) -> Result<()> {
        let agent = self.commandable()?;
        let what = format!("writing {}", shown(path));
        let written = agent.write_file(path, bytes, options);
        self.in_time(options.timeout, &what, written).await.map_err(|error| match error.code() {
            Code::FileNotFound => {
                error.with_hint("`parents = true` makes the directories above it")
            }
            _ => error,
        })
    }

    /// All bytes of a file in the guest.
    ///
    /// # Errors
    /// Those of [`Vm::write_file`].
    pub async fn read_file(&self, path: &[u8], timeout: Option<Duration>) -> Result<Vec<u8>> {
        let agent = self.commandable()?;
        let what = format!("reading {}", shown(path));
        self.in_time(timeout, &what, agent.read_file(path)).await
    }

    /// Copies a file or a directory of the host into the guest, as `cp -a` does: into `to` where
    /// that is a directory, as `to` where it is not. It appears at one moment.
    ///
    /// # Errors
    /// Those of [`Vm::write_file`]; `file.*` for the host's path too.
    pub async fn copy_in(&self, from: &Path, to: &[u8], options: &FileOptions) -> Result<()> {
        let agent = self.commandable()?;
        let progress = self.host.works.begin(Work::CopyingIn);
        let what = format!("copying {} in", from.display());
        let copy = Box::pin(agent.copy_in(absolute(from)?, to, options, progress));
        self.in_time(options.timeout, &what, copy).await
    }

    /// Copies a file or a directory of the guest to the host, in the same way. What the guest
    /// sends stays within `to`.
    ///
    /// # Errors
    /// Those of [`Vm::copy_in`].
    pub async fn copy_out(&self, from: &[u8], to: &Path, options: &FileOptions) -> Result<()> {
        let agent = self.commandable()?;
        let progress = self.host.works.begin(Work::CopyingOut);
        let what = format!("copying {} out", shown(from));
        let copy = Box::pin(agent.copy_out(from, to.to_owned(), options, progress));
        self.in_time(options.timeout, &what, copy).await
    }

    async fn in_time<T: Noted>(
        &self,
        timeout: Option<Duration>,
        what: &str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let work = async {
            let Some(timeout) = timeout else { return work.await };
            tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| {
                let limit = crate::agent::seconds(timeout);
                Err(Error::new(Code::VmTimeout, format!("{what} did not end within {limit}"))
                    .with_detail("timeout", timeout.as_secs_f64())
                    .with_detail("vm", self.name()))
            })
        };
        self.transcript.note(self.transcript.describe(|| what.to_owned()), work).await
    }
}

fn shown(path: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(path)
}

/// Threads of a copy do not look at the process's directory later than its caller did.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| {
        Error::new(Code::FileNotFound, "a file to copy needs a path").with_source(error)
    })
}
