//! `vmoon snapshot inspect`.

use std::path::Path;

use serde_json::json;
use vmoon_core::saved::Saved;
use vmoon_core::spec::Guest;
use vmoon_core::vm::saving::Annotations;
use vmoon_core::{Bytes, Code, Error, Result};

use super::time;

/// What a manifest says, in lines or whole.
pub(super) fn text(directory: &Path, json: bool) -> Result<String> {
    let saved = Saved::open(directory)?;
    if json {
        return whole(&saved);
    }
    let annotations = Annotations::of(&saved)?;
    let manifest = saved.manifest();
    let spec = &annotations.spec;
    let mut lines = vec![
        ("name", annotations.name.clone()),
        ("id", manifest.id.to_string()),
        ("created", time::utc(annotations.created())),
        ("machine", format!("{} ({})", annotations.vm_name, annotations.vm_id)),
    ];
    lines.extend(annotations.parent.map(|parent| ("parent", parent.to_string())));
    lines.extend([
        ("state", if manifest.paused { "paused" } else { "running" }.to_owned()),
        ("guest", guest(&spec.guest)),
        ("cpus", spec.cpus.to_string()),
        ("memory", manifest.memory.to_string()),
    ]);
    lines.extend(spec.disks.iter().map(|disk| ("disk", disk.path.display().to_string())));
    lines.extend([
        ("backend", format!("{}, {}", manifest.backend, manifest.architecture)),
        ("format", manifest.format.to_string()),
        ("on disk", rounded(saved.size_on_disk())),
    ]);
    lines.extend(
        manifest
            .parts
            .iter()
            .map(|(name, part)| ("part", format!("{name}, {} bytes, {}", part.length, part.hash))),
    );
    let lines = lines.into_iter().map(|(name, value)| format!("  {name:<8} {value}\n"));
    Ok(format!("{}\n{}", directory.display(), lines.collect::<String>()))
}

fn whole(saved: &Saved) -> Result<String> {
    let shown = json!({
        "directory": saved.directory().display().to_string(),
        "bytes_on_disk": saved.size_on_disk().get(),
        "manifest": saved.manifest(),
    });
    let text = serde_json::to_string_pretty(&shown).map_err(|error| {
        Error::new(Code::FileIo, "the manifest cannot be shown as JSON").with_source(error)
    })?;
    Ok(text + "\n")
}

fn guest(guest: &Guest) -> String {
    match guest {
        Guest::Micro => "micro".to_owned(),
        Guest::Linux { .. } => "linux".to_owned(),
        Guest::Kernel { kernel, .. } => format!("kernel {}", kernel.display()),
    }
}

/// A size that nobody chose, with one decimal.
#[allow(clippy::cast_precision_loss, reason = "one decimal is shown")]
pub(super) fn rounded(size: Bytes) -> String {
    let mut value = size.get() as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            let decimals = usize::from(unit != "B");
            return format!("{value:.decimals$}{unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1}TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_decimal() {
        for (size, shown) in [(512, "512B"), (4096, "4.0KiB"), (1_600_000, "1.5MiB")] {
            assert_eq!(rounded(Bytes(size)), shown);
        }
        assert_eq!(rounded(Bytes(3 << 40)), "3.0TiB");
    }
}
