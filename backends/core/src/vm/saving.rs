//! Snapshots on their way to a directory and back.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::host::Host;
use super::snapshot::{Snapshot, Source};
use crate::agent::Memo;
use crate::backend::{self, Backend};
use crate::error::{Code, Error, Result};
use crate::saved::manifest::{corrupt, incompatible};
use crate::saved::progress::Listener;
use crate::saved::{MANIFEST, Progress, Saved, Work};
use crate::spec::MachineSpec;
use crate::units::{MachineId, SnapshotId};

/// The version of [`Annotations`] that this program writes, and the only one that it reads.
const VERSION: u32 = 1;

/// How long the end of the process waits for writers to remove what they began.
const WRITERS_DEADLINE: Duration = Duration::from_secs(2);

/// What is kept with a saved snapshot beside what its backend keeps.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Annotations {
    version: u32,
    /// The snapshot's name.
    pub name: String,
    /// The machine that it was taken of.
    pub vm_id: MachineId,
    /// The name of that machine.
    pub vm_name: String,
    /// The snapshot that it was taken above.
    pub parent: Option<SnapshotId>,
    /// When it was taken, in nanoseconds since 1970.
    created_ns: u64,
    /// What the machine was made from.
    pub spec: MachineSpec,
    agent: Option<Memo>,
}

impl Annotations {
    /// Those of a saved snapshot.
    ///
    /// # Errors
    /// `snapshot.incompatible` for those of another version, `snapshot.corrupt`.
    pub fn of(saved: &Saved) -> Result<Self> {
        let path = saved.path(MANIFEST);
        let value = &saved.manifest().annotations;
        if value["version"].as_u64() != Some(VERSION.into()) {
            let found = &value["version"];
            return Err(incompatible(
                &path,
                format!("describes machines by version {found}; this vmoon reads {VERSION}"),
            )
            .with_hint("load it with the vmoon that saved it"));
        }
        serde_json::from_value(value.clone())
            .map_err(|error| corrupt(&path, "describes no machine").with_source(error))
    }

    /// When the snapshot was taken.
    pub fn created(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.created_ns)
    }
}

impl Snapshot {
    /// Writes the snapshot to a directory that needs no other; one with a snapshot is replaced,
    /// at one moment.
    ///
    /// # Errors
    /// `snapshot.not_found` when it was deleted, `backend.unsupported`, `file.*`.
    pub async fn save(&self, directory: &Path) -> Result<()> {
        self.check_exists()?;
        let Source { host, backend, .. } = &self.source;
        backend::check_capability(backend.name(), "saving", &backend.capabilities().save)?;
        let annotations = serde_json::to_value(self.annotations()).map_err(|error| {
            Error::new(Code::FileIo, "the machine cannot be described in a file").with_source(error)
        })?;
        let progress = host.works.begin(Work::Saving);
        // Whoever no longer waits does not want the files either.
        let _stop = progress.stop_on_drop();
        self.image.save(&absolute(directory)?, annotations, progress).await
    }

    fn annotations(&self) -> Annotations {
        let since = self.created.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut spec = (*self.source.spec).clone();
        for path in spec.paths_mut() {
            // Where that fails the path stays as it is.
            *path = std::path::absolute(&*path).unwrap_or_else(|_| path.clone());
        }
        Annotations {
            version: VERSION,
            name: self.name.clone(),
            vm_id: self.source.id,
            vm_name: self.source.name.clone(),
            parent: self.parent,
            created_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
            spec,
            agent: self.memo.clone(),
        }
    }
}

impl Host {
    /// Reads a saved snapshot, of which machines can then be forked; `deterministic` holds for
    /// all of them.
    ///
    /// # Errors
    /// `snapshot.not_found`, `snapshot.corrupt` and `snapshot.incompatible`, naming the part;
    /// `backend.*`, `file.*`.
    pub async fn load(
        self: &Arc<Self>,
        directory: &Path,
        deterministic: bool,
    ) -> Result<Arc<Snapshot>> {
        let directory = absolute(directory)?;
        let (saved, annotations) = tokio::task::spawn_blocking(move || {
            let saved = Saved::open(&directory)?;
            let annotations = Annotations::of(&saved)?;
            Ok::<_, Error>((saved, annotations))
        })
        .await
        .unwrap_or_else(|error| {
            Err(Error::new(Code::FileIo, "reading the snapshot died").with_source(error))
        })?;
        let path = saved.path(MANIFEST);
        let backend = self.wrote(&saved)?;
        if let Some(memo) = &annotations.agent {
            memo.check_version().map_err(|found| {
                incompatible(&path, format!("has a guest whose agent speaks version {found}"))
                    .with_hint("load it with the vmoon that saved it")
            })?;
        }
        let progress = self.works.begin(Work::Loading);
        let _stop = progress.stop_on_drop();
        let image = backend.load(saved, progress).await?;
        Ok(Arc::new(Snapshot {
            id: image.id(),
            parent: annotations.parent,
            created: annotations.created(),
            image,
            source: Source {
                vm: Weak::new(),
                id: annotations.vm_id,
                name: annotations.vm_name,
                host: self.clone(),
                backend,
                spec: Arc::new(annotations.spec),
            },
            memo: annotations.agent,
            name: annotations.name,
            deterministic,
            deleted: AtomicBool::new(false),
        }))
    }

    /// The backend that wrote a snapshot.
    fn wrote(&self, saved: &Saved) -> Result<Arc<dyn Backend>> {
        let name = &saved.manifest().backend;
        let backends = self.backends();
        let found = backends.iter().find(|backend| backend.name() == name);
        let backend = found.ok_or_else(|| {
            incompatible(
                &saved.path(MANIFEST),
                format!("is of the backend {name:?}, which this vmoon does not have"),
            )
            .with_detail("backend", name.as_str())
        })?;
        backend.probe()?;
        Ok(backend.clone())
    }

    /// Has somebody hear of works on files that may take long. Only the first call counts.
    pub fn listen_to_progress(&self, listener: Listener) {
        // A second listener has no use.
        let _ = self.works.listener.set(listener);
    }
}

/// Paths are said of the directory in which the process is now.
fn absolute(directory: &Path) -> Result<PathBuf> {
    std::path::absolute(directory).map_err(|error| {
        Error::new(Code::FileNotFound, "a snapshot's directory needs a name").with_source(error)
    })
}

/// The works on files that are under way.
#[derive(Default)]
pub(super) struct Works {
    listener: std::sync::OnceLock<Listener>,
    under_way: Arc<(Mutex<usize>, Condvar)>,
}

impl std::fmt::Debug for Works {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Works").finish_non_exhaustive()
    }
}

impl Works {
    pub(super) fn begin(&self, work: Work) -> Progress {
        let counted = Counted::new(self.under_way.clone());
        let listener = self.listener.get().cloned();
        // The work is under way for as long as anybody holds this.
        let listener: Listener = Arc::new(move |step| {
            let _ = &counted;
            if let Some(listener) = &listener {
                listener(step);
            }
        });
        Progress::new(work, Some(listener))
    }

    /// Waits, within bounds, until no work is under way. Whoever stopped them calls this.
    pub(super) fn wait(&self) {
        let (count, ended) = &*self.under_way;
        let count = count.lock().unwrap_or_else(PoisonError::into_inner);
        let left = ended.wait_timeout_while(count, WRITERS_DEADLINE, |count| *count > 0);
        if left.is_ok_and(|(_, waited)| waited.timed_out()) {
            tracing::warn!("files were still being written; what is unfinished of them stays");
        }
    }
}

/// One work under way.
struct Counted(Arc<(Mutex<usize>, Condvar)>);

impl Counted {
    fn new(count: Arc<(Mutex<usize>, Condvar)>) -> Self {
        *count.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self(count)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.1.notify_all();
    }
}
