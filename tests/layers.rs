//! Holds the architecture: imports between folders go downward, and no two files import each other.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module of the library: the folder and the file in it.
type Module = (String, String);

/// The folders from top to bottom, as the documentation of the library lists them.
fn folders() -> Vec<String> {
    let lib = source(Path::new("src/lib.rs"));
    let rows = lib.lines().filter_map(|line| line.strip_prefix("//! | `"));
    rows.map(|row| row.split('`').next().unwrap().to_owned()).collect()
}

fn source(path: &Path) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// A folder and the folders of modules in it, such as `runtime/linux` in `runtime`.
fn parts(folder: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder);
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    let inner = entries.filter(|entry| entry.path().join("mod.rs").exists() && entry.file_name() != "tests");
    let inner = inner.map(|entry| format!("{folder}/{}", entry.file_name().into_string().unwrap()));
    std::iter::once(folder.to_owned()).chain(inner).collect()
}

/// The code of a file without comments and unit tests. Unit tests are the last module of a file.
fn code(path: &Path) -> String {
    let source = source(path);
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    code.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// The files of a folder that belong to the relay itself.
fn files(folder: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let paths = fs::read_dir(root.join("src").join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let is_source = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    let paths = paths.filter(is_source).filter(|path| !path.ends_with("mod.rs") && !path.ends_with("tests.rs"));
    paths.map(|path| path.strip_prefix(root).unwrap().to_owned()).collect()
}

/// The modules that a file names, by `crate::folder::file` or `super::file`.
fn imports(folder: &str, code: &str) -> BTreeSet<Module> {
    let names = |text: &str| -> Vec<String> {
        let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        match text.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap().split(',').map(|part| name(part.trim())).collect(),
            None => vec![name(text)],
        }
    };
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let path = &code[at + "crate::".len()..];
        let Some((target, rest)) = path.split_once("::") else { continue };
        found.extend(names(rest).into_iter().map(|file| (target.to_owned(), file)));
    }
    for (at, _) in code.match_indices("super::") {
        found.extend(names(&code[at + "super::".len()..]).into_iter().map(|file| (folder.to_owned(), file)));
    }
    found
}

#[test]
fn folders_import_only_from_folders_below_them() {
    let folders = folders();
    let level = |folder: &str| folders.iter().position(|other| other == folder);
    let mut violations = Vec::new();
    let mut imports_of = BTreeMap::<Module, BTreeSet<Module>>::new();
    let level_of_part = |part: &str| level(part.split('/').next().unwrap());
    for part in
        folders.iter().filter(|folder| !["cli", "simulation"].contains(&&folder[..])).flat_map(|folder| parts(folder))
    {
        for path in files(&part) {
            let imports = imports(&part, &code(&path));
            for (target, _) in &imports {
                match level_of_part(target) {
                    Some(target_level) if target_level >= level_of_part(&part).unwrap() => {}
                    _ => violations.push(format!("{} imports {target}", path.display())),
                }
            }
            let file = path.file_stem().unwrap().to_str().unwrap().to_owned();
            imports_of.insert((part.clone(), file), imports);
        }
    }
    // `runtime` exports the files of the folders in it as its own.
    let is_meant = |(folder, file): &Module, (part, other): &Module| {
        file == other && part.strip_prefix(folder.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    for (module, imports) in &imports_of {
        let mut reached = BTreeSet::new();
        let mut open: Vec<_> = imports.iter().filter(|import| !is_meant(import, module)).collect();
        while let Some(next) = open.pop() {
            for (other, imports) in imports_of.iter().filter(|(other, _)| is_meant(next, other)) {
                if reached.insert(other) {
                    open.extend(imports);
                }
            }
        }
        if reached.contains(module) {
            violations.push(format!("{}/{} is in an import cycle", module.0, module.1));
        }
    }
    assert!(imports_of.len() > 40, "only {} files were found", imports_of.len());
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn every_folder_is_listed_from_top_to_bottom() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let entries = fs::read_dir(root).unwrap().map(|entry| entry.unwrap());
    let there: BTreeSet<_> = entries
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    assert_eq!(there, folders().into_iter().collect());
}
