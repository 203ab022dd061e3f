//! Completion of paths, inside strings.

use std::path::Path;

use rustyline::completion::Pair;

/// What the path at the end of `text` may become; the string that holds it begins at `string`
/// with its quote. Text that does not look like a path is left alone.
pub(super) fn complete(text: &str, string: usize) -> (usize, Vec<Pair>) {
    let nothing = (text.len(), Vec::new());
    let Some(quote) = text[string..].chars().next() else { return nothing };
    // Paths are rarely written between long brackets.
    if quote == '[' {
        return nothing;
    }
    let path = &text[string + quote.len_utf8()..];
    if !path.starts_with('.') && !path.contains('/') {
        return nothing;
    }
    let (folder, begun) = path.rsplit_once('/').map_or((".", path), |(folder, begun)| {
        (if folder.is_empty() { "/" } else { folder }, begun)
    });
    let Ok(entries) = std::fs::read_dir(Path::new(folder)) else { return nothing };
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let mut name = entry.file_name().into_string().ok()?;
            // Hidden files are for who asks for them.
            let hidden = name.starts_with('.') && !begun.starts_with('.');
            if hidden || !name.starts_with(begun) {
                return None;
            }
            if entry.path().is_dir() {
                name.push('/');
            }
            Some(name)
        })
        .collect();
    names.sort_unstable();
    let pairs = names.into_iter().map(|name| Pair { display: name.clone(), replacement: name });
    (text.len() - begun.len(), pairs.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_completed_and_words_are_not() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("images")).unwrap();
        std::fs::write(folder.path().join("image.raw"), "").unwrap();
        std::fs::write(folder.path().join(".hidden"), "").unwrap();
        let names = |text: &str| {
            let (start, pairs) = complete(text, text.find('"').unwrap());
            let names: Vec<String> = pairs.into_iter().map(|pair| pair.replacement).collect();
            (text[start..].to_owned(), names)
        };
        let root = folder.path().to_str().unwrap();
        let (begun, found) = names(&format!("open(\"{root}/im"));
        assert_eq!(begun, "im");
        assert_eq!(found, ["image.raw", "images/"]);
        assert_eq!(names(&format!("\"{root}/.h")).1, [".hidden"]);
        assert!(names("f(\"im").1.is_empty());
        assert!(names("f(\"/no/such/folder/x").1.is_empty());
    }
}
