//! The directive reference, printed from the tables: `docs/directives.md`.

use super::top;
use crate::conf::{Context, Described, Directive, context_names};
use crate::modules;
use crate::upstream::block::UPSTREAM;
use std::collections::BTreeMap;
use std::fmt::Write;

/// All directives by name, as a page of Markdown.
pub fn reference() -> String {
    let mut rows: BTreeMap<(&str, String), (Context, bool)> = BTreeMap::new();
    let http = modules::HTTP.iter().flat_map(|module| module.describe());
    let upstream = UPSTREAM.iter().map(Directive::describe);
    let all = top::tables().into_iter().chain(http).chain(upstream);
    for Described { name, at, args, block } in all {
        let row = rows.entry((name, args)).or_insert((0, block));
        row.0 |= at;
    }
    let mut page = String::from(HEAD);
    for ((name, args), (at, block)) in rows {
        let block = if block { " `{ … }`" } else { "" };
        let args = args.replace('|', "\\|");
        let contexts = context_names(at).join(", ");
        // Writing to a string cannot fail.
        let _ = writeln!(page, "| `{name}` | {args}{block} | {contexts} |");
    }
    page
}

const HEAD: &str = "# Directives\n\n\
    Every directive that Tollbar knows, printed from its tables by `scripts/directives`. Their\n\
    meaning is nginx's, where nginx has them. A directive that is not here is an error.\n\n\
    | directive | arguments | where |\n\
    |---|---|---|\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directive_has_one_row() {
        let page = reference();
        let rows =
            |name: &str| page.lines().filter(|l| l.starts_with(&format!("| `{name}` "))).count();
        assert_eq!((rows("worker_processes"), rows("root"), rows("nothing")), (1, 1, 0));
        assert!(page.contains("| `root` | 1 argument | http, server, location"), "{page}");
    }
}
