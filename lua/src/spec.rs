//! A machine's description as scripts write it.

use std::path::PathBuf;

use mlua::{Table, Value};
use vmoon_core::spec::{Disk, DiskMode, Guest, MachineSpec, Ready, Share, VsockSpec};
use vmoon_core::{Cid, Code, Error};

use crate::arguments::{Arguments, wrong};
use crate::fault::Outcome;
use crate::options::Options;

/// The keys of a machine's description.
pub(crate) const KEYS: &[&str] = &[
    "name", "backend", "guest", "kernel", "initrd", "cmdline", "cpus", "memory", "root", "disks",
    "shares", "net", "vsock", "balloon", "entropy", "rosetta", "agent", "ready", "timeout",
];

/// The keys of a fixture: those of its machine, and its own.
pub(crate) const FIXTURE_KEYS: &[&str] = &{
    let mut keys = ["setup"; KEYS.len() + 2];
    let mut index = 0;
    while index < KEYS.len() {
        keys[index] = KEYS[index];
        index += 1;
    }
    keys[KEYS.len()] = "deterministic";
    keys
};

/// Reads the spec of `vmoon.boot` or `vmoon.create`, and the backend that it names.
pub(crate) fn parse(arguments: &Arguments) -> Outcome<(Option<String>, MachineSpec)> {
    parse_options(&arguments.options(0, KEYS)?)
}

/// The same from options whose keys have been checked.
pub(crate) fn parse_options(options: &Options) -> Outcome<(Option<String>, MachineSpec)> {
    let default = MachineSpec::default();
    let agent = options.flag("agent")?.unwrap_or(default.agent);
    let cpus = match options.count("cpus")? {
        None => default.cpus,
        // More than fits is more than any backend can do; it is refused as such.
        Some(cpus) => u32::try_from(cpus).unwrap_or(u32::MAX),
    };
    let guest = guest(options)?;
    let root = root(options, &guest)?;
    let spec = MachineSpec {
        name: options.text("name")?,
        guest,
        cmdline: options.text("cmdline")?,
        cpus,
        memory: options.size("memory")?.unwrap_or(default.memory),
        root: root.is_some(),
        disks: root.into_iter().chain(disks(options)?).collect(),
        shares: shares(options)?,
        net: options.flag("net")?.unwrap_or(default.net),
        vsock: vsock(options)?,
        balloon: options.flag("balloon")?.unwrap_or(default.balloon),
        entropy: options.flag("entropy")?.unwrap_or(default.entropy),
        rosetta: options.flag("rosetta")?.unwrap_or(default.rosetta),
        agent,
        ready: ready(options, agent)?,
        timeout: options.duration("timeout")?.unwrap_or(default.timeout),
    };
    let backend = options.text("backend")?.filter(|name| name != "auto");
    Ok((backend, spec))
}

fn guest(options: &Options) -> Outcome<Guest> {
    let kernel = options.path("kernel")?;
    let initrd = options.path("initrd")?;
    match (options.text("guest")?.as_deref(), kernel) {
        (Some("linux"), kernel) => Ok(Guest::Linux { kernel, initrd }),
        (None, Some(kernel)) => Ok(Guest::Kernel { kernel, initrd }),
        (None | Some("micro"), None) if initrd.is_none() => Ok(Guest::Micro),
        (None | Some("micro"), _) => {
            Err(Error::new(Code::VmSpec, "the micro guest takes neither `kernel` nor `initrd`")
                .with_hint("leave `guest` out to boot a kernel of your own; an `initrd` needs one")
                .with_detail("key", "initrd")
                .into())
        }
        (Some(other), _) => Err(Error::new(Code::VmSpec, format!("{other:?} is not a guest"))
            .with_hint("guest = \"micro\" or \"linux\"; or give a `kernel` of your own")
            .with_detail("key", "guest")
            .into()),
    }
}

fn ready(options: &Options, agent: bool) -> Outcome<Ready> {
    match options.value("ready")? {
        Value::Nil if agent => Ok(Ready::Agent),
        Value::Nil | Value::Boolean(false) => Ok(Ready::Nothing),
        Value::String(_) => match options.text("ready")?.as_deref() {
            Some("agent") | None if agent => Ok(Ready::Agent),
            Some("agent") | None => Err(Error::new(
                Code::VmSpec,
                "ready = \"agent\" and agent = false exclude each other",
            )
            .with_hint("let `ready` be a pattern that the console prints, or false")
            .with_detail("key", "ready")
            .into()),
            Some(pattern) => Ok(Ready::Console(pattern.to_owned())),
        },
        other => Err(options
            .wrong("ready", "\"agent\", a pattern that the console prints, or false", &other)
            .into()),
    }
}

fn vsock(options: &Options) -> Outcome<Option<VsockSpec>> {
    match options.value("vsock")? {
        Value::Nil | Value::Boolean(true) => Ok(Some(VsockSpec::default())),
        Value::Boolean(false) => Ok(None),
        Value::Table(table) => {
            let vsock = Options::new("option 'vsock'", table, &["cid"])?;
            Ok(Some(VsockSpec { cid: vsock.count("cid")?.map(Cid) }))
        }
        other => Err(options.wrong("vsock", "true, false or { cid = n }", &other).into()),
    }
}

const DISK: &[&str] = &["path", "readonly", "mode"];

fn disks(options: &Options) -> Outcome<Vec<Disk>> {
    each(options, "disks", DISK, disk)
}

/// The disk that holds the root file system.
fn root(options: &Options, guest: &Guest) -> Outcome<Option<Disk>> {
    let root = match options.value("root")? {
        Value::Nil => return Ok(None),
        Value::Table(table) => disk(&Options::new("root", table, DISK)?)?,
        Value::String(_) => {
            let path = options.path("root")?.unwrap_or_default();
            Disk { path, readonly: false, mode: DiskMode::Overlay }
        }
        other => {
            let wanted = "the path of an image, or a table such as { path = \"…\" }";
            return Err(options.wrong("root", wanted, &other).into());
        }
    };
    if !matches!(guest, Guest::Linux { .. }) {
        return Err(Error::new(Code::VmSpec, "only a guest of Linux has a `root`")
            .with_hint("guest = \"linux\" boots from it; other guests take it as one of `disks`")
            .with_detail("key", "root")
            .into());
    }
    Ok(Some(root))
}

fn disk(disk: &Options) -> Outcome<Disk> {
    let mode = match disk.text("mode")?.as_deref() {
        None | Some("overlay") => DiskMode::Overlay,
        Some("direct") => DiskMode::Direct,
        Some(other) => {
            return Err(Error::new(Code::VmSpec, format!("{other:?} is not a mode of a disk"))
                .with_hint("mode = \"overlay\" (the default) or \"direct\"")
                .with_detail("key", "mode")
                .into());
        }
    };
    Ok(Disk { path: required_path(disk)?, readonly: disk.flag("readonly")?.unwrap_or(false), mode })
}

fn shares(options: &Options) -> Outcome<Vec<Share>> {
    each(options, "shares", &["path", "tag", "readonly"], |share| {
        let Some(tag) = share.text("tag")? else { return Err(missing("tag", share).into()) };
        Ok(Share {
            path: required_path(share)?,
            tag,
            readonly: share.flag("readonly")?.unwrap_or(false),
        })
    })
}

/// Reads an array of tables.
fn each<T>(
    options: &Options,
    key: &'static str,
    keys: &'static [&'static str],
    read: impl Fn(&Options) -> Outcome<T>,
) -> Outcome<Vec<T>> {
    const WANTED: &str = "an array of tables, such as { { path = \"…\" } }";
    let Some(array) = options.table(key, WANTED)? else { return Ok(Vec::new()) };
    if array.raw_len() == 0 && array.pairs::<Value, Value>().next().is_some() {
        return Err(options.wrong(key, WANTED, &Value::Table(array)).into());
    }
    array
        .sequence_values::<Value>()
        .map(|item| match item? {
            Value::Table(table) => read(&Options::new(key, Table::clone(&table), keys)?),
            other => Err(wrong(&format!("each item of '{key}'"), "a table", &other)
                .with_detail("key", key)
                .into()),
        })
        .collect()
}

fn required_path(options: &Options) -> Outcome<PathBuf> {
    Ok(options.path("path")?.ok_or_else(|| missing("path", options))?)
}

fn missing(key: &'static str, options: &Options) -> Error {
    let place = options.function();
    Error::new(Code::VmSpec, format!("an item of '{place}' has no '{key}'"))
        .with_hint(format!("each item of '{place}' needs '{key}'"))
        .with_detail("key", place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Fault;
    use mlua::{Lua, MultiValue};
    use std::time::Duration;
    use vmoon_core::Bytes;

    fn read(code: &str) -> Outcome<(Option<String>, MachineSpec)> {
        let lua = Lua::new();
        let table: Value = lua.load(code).eval().unwrap();
        parse(&Arguments::new("vmoon.boot", MultiValue::from_vec(vec![table])))
    }

    fn refused(code: &str) -> Error {
        match read(code).unwrap_err() {
            Fault::Error(error) => error,
            Fault::Value(value) => panic!("{value:?}"),
        }
    }

    #[test]
    fn every_key_is_optional() {
        let (backend, spec) = read("nil").unwrap();
        assert_eq!((backend, spec.guest, spec.ready), (None, Guest::Micro, Ready::Agent));
    }

    #[test]
    fn a_whole_spec_is_read() {
        let (backend, spec) = read(
            "{ name = 'a', backend = 'kvm', kernel = '/k', initrd = '/i', cmdline = 'quiet',
               cpus = 2, memory = '1GiB', disks = { { path = '/d', mode = 'direct' } },
               shares = { { path = '/s', tag = 't', readonly = true } }, vsock = { cid = 9 },
               balloon = false, agent = false, ready = 'login:', timeout = '1m' }",
        )
        .unwrap();
        assert_eq!(backend.as_deref(), Some("kvm"));
        assert_eq!((spec.cpus, spec.memory), (2, Bytes::gib(1)));
        assert_eq!(spec.disks[0].mode, DiskMode::Direct);
        assert!(spec.shares[0].readonly && !spec.balloon);
        assert_eq!(spec.vsock, Some(VsockSpec { cid: Some(Cid(9)) }));
        assert_eq!(spec.ready, Ready::Console("login:".to_owned()));
        assert_eq!(spec.timeout, Duration::from_mins(1));
        assert!(matches!(spec.guest, Guest::Kernel { .. }));
    }

    #[test]
    fn the_root_comes_before_the_other_disks() {
        for root in ["'/r'", "{ path = '/r' }"] {
            let text =
                format!("{{ guest = 'linux', root = {root}, disks = {{ {{ path = '/d' }} }} }}");
            let (_, spec) = read(&text).unwrap();
            let paths: Vec<_> = spec.disks.iter().map(|disk| disk.path.as_path()).collect();
            assert_eq!(paths, [std::path::Path::new("/r"), "/d".as_ref()]);
            assert!(spec.root);
        }
        assert!(!read("{ disks = { { path = '/d' } } }").unwrap().1.root);
    }

    #[test]
    fn mistakes_are_named_with_a_hint() {
        for (code, word) in [
            ("{ cpuz = 1 }", "cpuz"),
            ("{ cpus = -1 }", "cpus"),
            ("{ cpus = 1.5 }", "cpus"),
            ("{ memory = true }", "memory"),
            ("{ guest = 'windows' }", "windows"),
            ("{ initrd = '/i' }", "initrd"),
            ("{ root = '/d' }", "root"),
            ("{ guest = 'linux', root = 5 }", "root"),
            ("{ guest = 'linux', root = { mode = 'direct' } }", "path"),
            ("{ disks = { path = '/d' } }", "disks"),
            ("{ disks = { { paht = '/d' } } }", "paht"),
            ("{ disks = { {} } }", "path"),
            ("{ vsock = { cidd = 3 } }", "cidd"),
            ("{ ready = 'agent', agent = false }", "agent"),
            ("{ ready = 5 }", "ready"),
        ] {
            let error = refused(code);
            assert_eq!(error.code(), Code::VmSpec);
            assert!(error.message().contains(word), "{code}: {error}");
            assert!(error.hint().is_some(), "{code} has no hint");
        }
    }
}
