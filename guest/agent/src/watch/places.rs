//! The directories whose changes decide whether a path exists.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// How many symbolic links are followed, as in the kernel.
const MOST_LINKS: usize = 40;

/// The way to a path, as far as it leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Walk {
    /// Every directory in which a part of the path is looked up, links followed, in order.
    pub(super) directories: Vec<PathBuf>,
    /// The first part that is not there; none when the path exists.
    pub(super) missing: Option<PathBuf>,
}

/// Goes the way to a path; a relative one begins at the root.
pub(super) fn walk(path: &Path) -> Walk {
    let mut directories: Vec<PathBuf> = Vec::new();
    let mut at = PathBuf::from("/");
    let mut rest: VecDeque<OsString> = parts(path).collect();
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        if !directories.contains(&at) {
            directories.push(at.clone());
        }
        at.push(&name);
        let link = match fs::symlink_metadata(&at) {
            Ok(found) if !found.is_symlink() => continue,
            Ok(_) if links < MOST_LINKS => fs::read_link(&at),
            Ok(_) => return Walk { directories, missing: Some(at) },
            Err(error) => Err(error),
        };
        let Ok(target) = link else { return Walk { directories, missing: Some(at) } };
        links += 1;
        at.pop();
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
            rest.push_front(part);
        }
    }
    Walk { directories, missing: None }
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_way_leads_through_links_to_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir(root.join("real")).unwrap();
        symlink("real", root.join("link")).unwrap();
        symlink(root.join("link/none"), root.join("dangling")).unwrap();
        symlink("loop", root.join("loop")).unwrap();

        let walked = walk(&root.join("dangling"));
        assert_eq!(walked.missing, Some(root.join("real/none")));
        assert_eq!(walked.directories.last(), Some(&root.join("real")));
        assert!(walked.directories.contains(&root));

        assert_eq!(walk(&root.join("link/../link")).missing, None);
        assert_eq!(walk(&root.join("a/b/c")).missing, Some(root.join("a")));
        assert!(walk(&root.join("loop")).missing.is_some());
        assert_eq!(walk(Path::new("/")), Walk { directories: vec![], missing: None });
        assert_eq!(walk(Path::new("proc/vmoon")).missing, Some(PathBuf::from("/proc/vmoon")));
    }
}
