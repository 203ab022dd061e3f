//! Trees that went through pieces are what they were, and no sequence of pieces reaches out.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use vmoon_protocol::files::{Entry, Node, Piece};
use vmoon_protocol::message::Failure;
use vmoon_tree::{Destination, Place, Reader, Writer};

fn to(path: impl Into<PathBuf>, name: &str, place: Place) -> Destination {
    let name = (!name.is_empty()).then(|| name.into());
    Destination { path: path.into(), name, parents: false, place }
}

fn copy(from: &Path, destination: &Destination) -> Result<(), Failure> {
    let mut reader = Reader::tree(from, Place::Host)?;
    let mut writer = Writer::new(destination)?;
    while let Some(piece) = reader.next_piece()? {
        writer.take(piece)?;
    }
    assert!(writer.is_complete());
    Ok(())
}

fn code(outcome: Result<(), Failure>) -> String {
    outcome.expect_err("it fails").code
}

/// What a directory holds, by name.
fn names(directory: &Path) -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().as_bytes().to_vec())
        .collect();
    names.sort();
    names
}

#[test]
fn a_tree_keeps_contents_modes_dates_links_and_names() {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("from");
    let odd = OsStr::from_bytes(b"a b\n\xff'");
    fs::create_dir_all(from.join(odd).join("empty")).unwrap();
    fs::write(from.join(odd).join("run.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(from.join(odd).join("run.sh"), PermissionsExt::from_mode(0o4751)).unwrap();
    fs::set_permissions(from.join(odd).join("empty"), PermissionsExt::from_mode(0o500)).unwrap();
    symlink(OsStr::from_bytes(b"/nowhere/\xfe"), from.join("link")).unwrap();
    fs::write(from.join("empty file"), "").unwrap();
    File::open(from.join(odd)).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();

    for (place, mode) in [(Place::Guest, 0o4751), (Place::Host, 0o751)] {
        let into = folder.path().join(format!("{place}"));
        copy(&from, &to(&into, "from", place)).unwrap();
        assert_eq!(names(&into), [&b"a b\n\xff'"[..], b"empty file", b"link"]);
        let run = into.join(odd).join("run.sh");
        assert_eq!(fs::read(&run).unwrap(), b"#!/bin/sh\n");
        assert_eq!(fs::metadata(&run).unwrap().mode() & 0o7777, mode);
        assert_eq!(fs::metadata(into.join(odd).join("empty")).unwrap().mode() & 0o7777, 0o500);
        assert_eq!(fs::metadata(into.join(odd)).unwrap().mtime(), 0);
        let link = fs::read_link(into.join("link")).unwrap();
        assert_eq!(link.as_os_str().as_bytes(), b"/nowhere/\xfe");
        let date = |folder: &Path| fs::symlink_metadata(folder.join("link")).unwrap().mtime_nsec();
        assert_eq!(date(&into), date(&from));
        assert_eq!(fs::metadata(into.join("empty file")).unwrap().len(), 0);
    }
    // Nothing temporary is left.
    assert_eq!(names(folder.path()).len(), 3);
}

#[test]
fn holes_stay_holes() {
    const GIB: u64 = 1 << 30;
    let folder = tempfile::tempdir().unwrap();
    let (from, into) = (folder.path().join("from"), folder.path().join("into"));
    let file = File::create(&from).unwrap();
    file.write_all_at(b"in the middle", 3 * GIB).unwrap();
    file.set_len(8 * GIB).unwrap();
    copy(&from, &to(&into, "", Place::Guest)).unwrap();
    let metadata = fs::metadata(&into).unwrap();
    assert_eq!(metadata.len(), 8 * GIB);
    assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
    let mut found = [0; 13];
    File::open(&into).unwrap().read_exact_at(&mut found, 3 * GIB).unwrap();
    assert_eq!(&found, b"in the middle");
}

#[test]
fn the_destination_is_that_of_cp() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("file"), "new").unwrap();
    fs::create_dir(path("tree")).unwrap();
    fs::write(path("tree/leaf"), "leaf").unwrap();
    fs::create_dir(path("inbox")).unwrap();
    for place in [Place::Guest, Place::Host] {
        // Into a directory, under its own name.
        copy(&path("file"), &to(path("inbox"), "file", place)).unwrap();
        copy(&path("tree"), &to(path("inbox"), "tree", place)).unwrap();
        assert_eq!(fs::read(path("inbox/tree/leaf")).unwrap(), b"leaf");
        // A file is replaced, a directory is not, and neither becomes the other.
        copy(&path("file"), &to(path("inbox"), "file", place)).unwrap();
        assert_eq!(code(copy(&path("tree"), &to(path("inbox"), "tree", place))), "file.exists");
        assert_eq!(code(copy(&path("tree"), &to(path("file"), "tree", place))), "file.exists");
        let onto = to(path("inbox"), "tree", place);
        assert_eq!(code(copy(&path("file"), &onto)), "file.is_directory");
        assert_eq!(code(copy(&path("file"), &to(path("inbox"), "", place))), "file.is_directory");
        // What is missing or in the way is said.
        assert_eq!(code(copy(&path("none"), &to(path("x"), "none", place))), "file.not_found");
        assert_eq!(code(copy(&path("file"), &to(path("no/x"), "file", place))), "file.not_found");
        assert_eq!(code(copy(&path("file"), &to("", "file", place))), "file.not_found");
        let through = to(path("file/x"), "file", place);
        assert_eq!(code(copy(&path("file"), &through)), "file.not_directory");
        let slash = to(path("missing/"), "file", place);
        assert_eq!(code(copy(&path("file"), &slash)), "file.not_directory");
        // Or made.
        let parents = Destination { parents: true, ..to(path("deep/er/x"), "file", place) };
        copy(&path("file"), &parents).unwrap();
        assert_eq!(fs::read(path("deep/er/x")).unwrap(), b"new");
        fs::remove_dir_all(path("deep")).unwrap();
        fs::remove_dir_all(path("inbox/tree")).unwrap();
    }
    assert_eq!(names(&path("inbox")), [b"file"]);
}

#[test]
fn a_link_is_written_through_in_the_guest_and_replaced_on_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("source"), "new").unwrap();
    fs::write(path("precious"), "old").unwrap();
    fs::set_permissions(path("precious"), PermissionsExt::from_mode(0o600)).unwrap();
    symlink("precious", path("link")).unwrap();
    copy(&path("source"), &to(path("link"), "source", Place::Host)).unwrap();
    assert_eq!(fs::read(path("precious")).unwrap(), b"old");
    assert!(fs::symlink_metadata(path("link")).unwrap().is_file());

    fs::remove_file(path("link")).unwrap();
    symlink("precious", path("link")).unwrap();
    copy(&path("source"), &to(path("link"), "source", Place::Guest)).unwrap();
    assert_eq!(fs::read(path("precious")).unwrap(), b"new");
    assert!(fs::symlink_metadata(path("link")).unwrap().is_symlink());
}

#[test]
fn a_source_that_is_a_link_is_followed_and_a_special_one_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("file"), "text").unwrap();
    symlink("file", path("link")).unwrap();
    copy(&path("link"), &to(path("copy"), "link", Place::Host)).unwrap();
    assert!(fs::symlink_metadata(path("copy")).unwrap().is_file());
    let refused = copy(Path::new("/dev/null"), &to(path("null"), "null", Place::Host));
    assert_eq!(code(refused), "file.io");
    assert!(Reader::contents(folder.path(), Place::Host).is_err());
}

#[test]
fn what_cannot_be_replaced_is_written_in_place() {
    let mut writer = Writer::new(&to("/dev/null", "", Place::Guest)).unwrap();
    writer.take(Piece::Entry(Entry::file(3))).unwrap();
    writer.take(Piece::Data { offset: 0, bytes: b"abc" }).unwrap();
    writer.take(Piece::Data { offset: 3, bytes: b"" }).unwrap();
    assert!(writer.is_complete());
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing() {
    // A file system of its own would need root: the device that is always full stands in.
    let mut writer = Writer::new(&to("/dev/full", "", Place::Guest)).unwrap();
    writer.take(Piece::Entry(Entry::file(3))).unwrap();
    let failure = writer.take(Piece::Data { offset: 0, bytes: b"abc" }).unwrap_err();
    assert_eq!(failure.code, "file.no_space", "{failure:?}");
}

#[test]
fn an_abandoned_tree_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("from");
    fs::create_dir_all(from.join("locked/inner")).unwrap();
    fs::write(from.join("locked/inner/file"), "x").unwrap();
    fs::set_permissions(from.join("locked/inner"), PermissionsExt::from_mode(0o500)).unwrap();
    let mut reader = Reader::tree(&from, Place::Host).unwrap();
    let into = folder.path().join("into");
    let mut writer = Writer::new(&to(&into, "from", Place::Host)).unwrap();
    let mut leaves = 0;
    while let Some(piece) = reader.next_piece().unwrap() {
        leaves += u32::from(piece == Piece::Leave);
        if leaves == 2 {
            break;
        }
        writer.take(piece).unwrap();
    }
    assert_eq!(names(folder.path()).len(), 2, "the source and the stage");
    drop(writer);
    assert_eq!(names(folder.path()), [b"from"]);
    fs::set_permissions(from.join("locked/inner"), PermissionsExt::from_mode(0o700)).unwrap();
}

fn hostile_name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::sample::select(vec!["a", "b", "link"]).prop_map(|name| name.as_bytes().to_vec()),
        2 => prop::sample::select(vec!["..", ".", "", "/", "../victim", "a/b", "/tmp", "a\0"])
            .prop_map(|name| name.as_bytes().to_vec()),
        1 => Just(Vec::new()),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Entry(Vec<u8>, Node, Option<u32>),
    Data(u64, usize),
    Leave,
}

fn step() -> impl Strategy<Value = Step> {
    let node = prop_oneof![
        2 => Just(Node::File),
        3 => Just(Node::Directory),
        2 => prop::sample::select(vec!["..", "../..", "../victim", "/"])
            .prop_map(|link| Node::Symlink(link.as_bytes().to_vec())),
    ];
    prop_oneof![
        5 => (hostile_name(), node, prop::option::of(0_u32..0o1000))
            .prop_map(|(name, node, mode)| Step::Entry(name, node, mode)),
        3 => (0_u64..100, 0_usize..3).prop_map(|(offset, length)| Step::Data(offset, length)),
        1 => Just(Step::Data(u64::MAX, 2)),
        2 => Just(Step::Leave),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn no_pieces_reach_outside_of_the_tree(steps in prop::collection::vec(step(), 0..30), on_host in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::create_dir(&victim).unwrap();
        fs::create_dir(folder.path().join("into")).unwrap();
        let place = if on_host { Place::Host } else { Place::Guest };
        let mut writer = Writer::new(&to(folder.path().join("into"), "tree", place)).unwrap();
        let root = Entry { node: Node::Directory, ..Entry::file(0) };
        writer.take(Piece::Entry(root)).unwrap();
        for step in steps {
            let bytes = [7; 3];
            let piece = match step {
                Step::Entry(name, node, mode) => {
                    Piece::Entry(Entry { name, node, mode, modified_ns: Some(0), size: 0 })
                }
                Step::Data(offset, length) => Piece::Data { offset, bytes: &bytes[..length] },
                Step::Leave => Piece::Leave,
            };
            if writer.take(piece).is_err() {
                break;
            }
        }
        let complete = writer.is_complete();
        drop(writer);
        prop_assert_eq!(names(folder.path()), [&b"into"[..], b"victim"]);
        prop_assert_eq!(names(&victim).len(), 0);
        let expected: &[&[u8]] = if complete { &[b"tree"] } else { &[] };
        prop_assert_eq!(names(&folder.path().join("into")), expected);
    }
}
