//! House rules, as a test: what is not in here is a wish.
//!
//! Exceptions stand in the tables below, each with its reason. An exception that is not needed any
//! more is an error too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Who may import whom. A folder may always import itself; the crate root's files are folders too.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("shm", &[]),
    ("sys", &[]),
    ("proto", &[]),
    ("conf", &[]),
    ("log", &["sys"]),
    ("event", &["sys", "log", "conf", "proto", "shm"]),
    ("io", &["sys", "log", "event"]),
    ("tls", &["sys", "log", "conf", "event", "io", "shm"]),
    ("upstream", &["sys", "log", "conf", "event", "io", "tls", "shm", "proto"]),
    ("http", &["sys", "log", "conf", "event", "io", "tls", "proto", "shm", "upstream"]),
    ("agent", &["sys", "log", "conf", "event", "io", "proto", "shm", "http"]),
    ("lua", &["sys", "log", "conf", "event", "io", "tls", "proto", "shm", "upstream", "http"]),
    ("plugin", &["sys", "log", "conf", "proto", "shm", "http"]),
    ("modules", &["conf", "event", "io", "log", "tls", "upstream", "http", "lua", "plugin"]),
    (
        "cycle",
        &[
            "sys", "log", "conf", "event", "io", "tls", "proto", "shm", "upstream", "http",
            "agent", "modules",
        ],
    ),
    ("process", &["sys", "log", "event", "cycle", "shm"]),
    ("main", &["process", "cycle", "log", "sys"]),
];

/// Imports beyond the table: (file, what, why).
const IMPORT_EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// The only places of `unsafe`.
const UNSAFE_IN: &[&str] = &[
    "src/sys/",
    "shm/src/region.rs",
    "src/lua/vm.rs",
    "src/lua/coroutine.rs",
    "src/lua/memory.rs",
    "src/lua/abi/",
    "src/plugin/native.rs",
    "plugin/src/abi.rs",
];

/// The only places that name `libc`.
const LIBC_IN: &[&str] = &["src/sys/", "shm/", "src/plugin/native.rs"];

/// Names that say nothing.
const NO_NAMES: &[&str] = &["util", "utils", "common", "helpers", "types", "prelude", "misc"];

/// Files whose name says something after all: (file, why).
const NAMED_SO: &[(&str, &str)] =
    &[("src/process/helper.rs", "the helper process, a member of the tree")];

const COLUMNS_MAX: usize = 100;
const ROW_COLUMNS_MAX: usize = 140;
const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 800;

/// Functions over the limit: (file, function, why).
const LONG_FUNCTIONS: &[(&str, &str, &str)] = &[
    ("src/http/core.rs", "merge", "one line a directive, and there are that many"),
    ("src/http/serve_h2.rs", "serve", "the life of a connection, in its order"),
];

/// Files over the limit before their tests: (file, why).
const LONG_FILES: &[(&str, &str)] = &[];

#[test]
fn imports_point_down() {
    let mut bad = Vec::new();
    let mut used = BTreeSet::new();
    for file in sources(&["src", "shm/src"]) {
        let folder = file.folder();
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == folder) else {
            match folder.as_str() {
                "lib" => continue,
                other => bad.push(format!("{}: `{other}` is not in the table", file.name)),
            }
            continue;
        };
        for import in file.imports() {
            let known = MAY_IMPORT.iter().any(|(name, _)| *name == import);
            if import == folder || !known || allowed.contains(&import.as_str()) {
                continue;
            }
            match IMPORT_EXCEPTIONS.iter().find(|(f, what, _)| *f == file.name && *what == import) {
                Some(exception) => drop(used.insert(*exception)),
                None => bad.push(format!("{}: {folder} imports {import}", file.name)),
            }
        }
    }
    bad.extend(unneeded(IMPORT_EXCEPTIONS, &used));
    report(bad);
}

#[test]
fn modules_of_http_do_not_import_one_another() {
    let mut bad = Vec::new();
    for file in sources(&["src/http/modules", "src/stream/modules"]) {
        if file.name.ends_with("/mod.rs") {
            continue;
        }
        let own = file.name.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
        for (number, line) in file.code() {
            for path in ["http::modules::", "stream::modules::"] {
                let named = line.split_once(path).map(|(_, rest)| ident(rest));
                if named.is_some_and(|n| n != own && !n.is_empty()) {
                    bad.push(format!("{}:{number}: {}", file.name, line.trim()));
                }
            }
        }
    }
    report(bad);
}

#[test]
fn unsafe_and_libc_have_an_address() {
    let mut bad = Vec::new();
    for file in sources(&["src", "shm/src", "plugin"]) {
        for (number, line) in file.code() {
            let line = without_strings(line);
            for (word, places) in [("unsafe", UNSAFE_IN), ("libc", LIBC_IN)] {
                if has_word(&line, word) && !places.iter().any(|p| file.name.starts_with(p)) {
                    bad.push(format!("{}:{number}: {word}", file.name));
                }
            }
        }
    }
    report(bad);
}

#[test]
fn nothing_is_unwrapped_outside_tests() {
    let mut bad = Vec::new();
    // Property tests that have a file of their own.
    let is_test = |name: &str| name.ends_with("/properties.rs");
    for file in sources(&["src", "shm/src", "plugin"]).into_iter().filter(|f| !is_test(&f.name)) {
        for (number, line) in file.code() {
            if line.contains(".unwrap()")
                || line.contains("todo!(")
                || line.contains("unimplemented!(")
            {
                bad.push(format!("{}:{number}: {}", file.name, line.trim()));
            }
        }
    }
    report(bad);
}

#[test]
fn a_file_says_what_it_is() {
    let ours = ["src", "shm/src", "plugin", "tests", "benches"];
    let theirs = ["shm/benches", "shm/tests", "fuzz/fuzz_targets"];
    let silent =
        sources(&[&ours[..], &theirs].concat()).into_iter().filter(|f| !f.text.starts_with("//!"));
    report(silent.map(|f| format!("{}: does not begin with //!", f.name)).collect());
}

#[test]
fn names_say_something() {
    let mut bad = Vec::new();
    for file in sources(&["src", "shm/src", "plugin/src", "tests", "benches"]) {
        let path = file.name.trim_end_matches(".rs");
        let named_so = NAMED_SO.iter().any(|(name, _)| *name == file.name);
        if !named_so && path.split('/').any(|part| NO_NAMES.contains(&part)) {
            bad.push(file.name);
        }
    }
    report(bad);
}

/// A case of a black-box test is one line, however long it is: those are not measured.
#[test]
fn lines_fit_on_a_screen() {
    let mut bad = Vec::new();
    for file in sources(&["src", "shm/src", "plugin", "tests/harness", "benches", "shm/benches"]) {
        for (number, line) in file.text.lines().enumerate() {
            let max = if is_table_row(line) { ROW_COLUMNS_MAX } else { COLUMNS_MAX };
            if line.chars().count() > max {
                bad.push(format!("{}:{}: {} columns", file.name, number + 1, line.chars().count()));
            }
        }
    }
    report(bad);
}

/// Tables of directives and variables are read by columns: a row stays one line. So does a
/// sentence, which is searched for as a whole.
fn is_table_row(line: &str) -> bool {
    line.matches('"').count() >= 2
        // Strategies of property tests, which the formatter leaves alone.
        || line.contains("prop")
        || line.contains("d(concat!(")
        || line.contains("\\n-----")
        || line.contains("DECODER routines")
        || ["d(\"", "var(\"", "keyed(\"", "settable(\""]
            .iter()
            .any(|s| line.trim_start().starts_with(s))
}

#[test]
fn functions_and_files_are_short() {
    let mut bad = Vec::new();
    let (mut long_functions, mut long_files) = (BTreeSet::new(), BTreeSet::new());
    for file in sources(&["src", "shm/src", "plugin"]) {
        for (name, length) in file.functions() {
            if length <= FUNCTION_LINES_MAX {
                continue;
            }
            match LONG_FUNCTIONS.iter().find(|(f, n, _)| *f == file.name && *n == name) {
                Some(exception) => drop(long_functions.insert(*exception)),
                None => bad.push(format!("{}: fn {name} has {length} lines", file.name)),
            }
        }
        let lines = file.code().len();
        if lines > FILE_LINES_MAX {
            match LONG_FILES.iter().find(|(f, _)| *f == file.name) {
                Some(exception) => drop(long_files.insert(*exception)),
                None => bad.push(format!("{}: {lines} lines before tests", file.name)),
            }
        }
    }
    bad.extend(unneeded(LONG_FUNCTIONS, &long_functions));
    bad.extend(unneeded(LONG_FILES, &long_files));
    report(bad);
}

#[test]
fn every_black_box_file_is_declared() {
    let all = fs::read_to_string(root().join("tests/all.rs")).expect("tests/all.rs");
    let mut bad = Vec::new();
    for file in sources(&["tests"]) {
        let name = file.name.trim_start_matches("tests/").trim_end_matches(".rs");
        let is_root = ["all", "tidy"].contains(&name) || name.contains('/');
        if !is_root && !all.contains(&format!("mod {name};")) {
            bad.push(format!("tests/{name}.rs: not declared in tests/all.rs"));
        }
    }
    report(bad);
}

#[test]
fn ignored_tests_say_why() {
    let mut bad = Vec::new();
    for file in sources(&["src", "shm/src", "tests", "shm/tests"]) {
        for (number, line) in file.text.lines().enumerate() {
            if line.trim_start().starts_with("#[ignore]") {
                bad.push(format!("{}:{}: #[ignore] without a reason", file.name, number + 1));
            }
        }
    }
    report(bad);
}

#[test]
fn the_table_has_no_circle() {
    let table: BTreeMap<&str, &[&str]> = MAY_IMPORT.iter().copied().collect();
    for start in table.keys() {
        let mut reached = BTreeSet::new();
        let mut todo: Vec<&str> = table[start].to_vec();
        while let Some(name) = todo.pop() {
            assert_ne!(name, *start, "{start} reaches itself");
            if reached.insert(name) {
                todo.extend(table.get(name).copied().unwrap_or_default());
            }
        }
    }
}

struct Source {
    /// From the project's root: `src/http/mod.rs`.
    name: String,
    text: String,
}

impl Source {
    /// The room of the import table this file stands in.
    fn folder(&self) -> String {
        match self.name.strip_prefix("src/") {
            Some(inside) => {
                inside.split('/').next().unwrap_or_default().trim_end_matches(".rs").into()
            }
            None => "shm".into(),
        }
    }

    /// Numbered lines before the tests of the file, without comments; a `tests.rs` has none.
    fn code(&self) -> Vec<(usize, &str)> {
        let is_test = self.name.ends_with("/tests.rs");
        let before = self.text.lines().take_while(|l| !is_test && !l.starts_with("#[cfg(test)]"));
        let numbered = before.enumerate().map(|(n, line)| (n + 1, line));
        numbered.map(|(n, l)| (n, if l.trim_start().starts_with("//") { "" } else { l })).collect()
    }

    /// The rooms that this file's code names: `crate::NAME` or `tollbar::NAME`, alone or in braces.
    fn imports(&self) -> BTreeSet<String> {
        let code: String = self.code().iter().map(|(_, l)| format!("{l}\n")).collect();
        let mut found = BTreeSet::new();
        for prefix in ["crate::", "tollbar::"] {
            let mut rest = code.as_str();
            while let Some(at) = rest.find(prefix) {
                let starts_word = !rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
                rest = &rest[at + prefix.len()..];
                if starts_word {
                    match rest.strip_prefix('{') {
                        Some(list) => found.extend(first_names(list)),
                        None => drop(found.insert(ident(rest))),
                    }
                }
            }
        }
        if has_word(&code, "tollbar_shm") {
            found.insert("shm".into());
        }
        found
    }

    /// Functions and their lengths in lines, the signature included.
    fn functions(&self) -> Vec<(String, usize)> {
        let lines = self.code();
        let mut found = Vec::new();
        for (index, (_, line)) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let Some(name) = function_name(line) else { continue };
            let end = format!("{}}}", " ".repeat(indent));
            let length = lines[index..].iter().position(|(_, l)| *l == end);
            let one_line = line.trim_end().ends_with('}') || line.trim_end().ends_with(';');
            found.push((name, if one_line { 1 } else { length.map_or(1, |l| l + 1) }));
        }
        found
    }
}

fn function_name(line: &str) -> Option<String> {
    let mut words = line.trim_start().split(' ');
    let qualifiers =
        ["pub", "async", "const", "unsafe", "extern", "pub(crate)", "pub(super)", "\"C\""];
    let word = words.find(|w| !qualifiers.contains(w))?;
    (word == "fn").then(|| words.next().map(ident))?
}

/// The first segment of every path in `a::b, c::{d, e}, f}`.
fn first_names(list: &str) -> Vec<String> {
    let mut names = Vec::new();
    let (mut depth, mut fresh) = (0, true);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            c if fresh && depth == 0 && (c.is_alphabetic() || c == '_') => {
                names.push(ident(&list[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    names
}

fn ident(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn has_word(text: &str, word: &str) -> bool {
    let boundary = |c: Option<char>| !c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let mut places = text.match_indices(word);
    places.any(|(at, _)| {
        boundary(text[..at].chars().next_back()) && boundary(text[at + word.len()..].chars().next())
    })
}

fn without_strings(line: &str) -> String {
    line.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    for folder in folders {
        collect(&root().join(folder), &mut found);
    }
    found
}

fn collect(folder: &Path, found: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let name = path.strip_prefix(root()).expect("inside").to_string_lossy().into_owned();
            found.push(Source { name, text: fs::read_to_string(&path).expect("UTF-8") });
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn unneeded<T: Ord + std::fmt::Debug>(exceptions: &[T], used: &BTreeSet<T>) -> Vec<String> {
    let left = exceptions.iter().filter(|e| !used.contains(e));
    left.map(|e| format!("an exception that is not needed: {e:?}")).collect()
}

#[track_caller]
fn report(bad: Vec<String>) {
    assert!(bad.is_empty(), "{} against the rules\n{}", bad.len(), bad.join("\n"));
}

#[test]
fn the_rules_see_what_they_should() {
    let file = Source {
        name: "src/io/x.rs".into(),
        text: "use crate::{log::a, event::{b, c}};\nuse crate::sys;\nfn f() {\n    1\n}\n\
               pub async fn g() {}\n#[cfg(test)]\nuse crate::http;\n"
            .into(),
    };
    assert_eq!(file.imports(), ["event", "log", "sys"].map(String::from).into());
    assert_eq!(file.functions(), [("f".into(), 3), ("g".into(), 1)]);
    assert_eq!(file.folder(), "io");
    assert!(has_word("a unsafe {", "unsafe") && !has_word("unsafe_op", "unsafe"));
    assert_eq!(without_strings("a \"unsafe\" b"), "a \"\" b");
}
