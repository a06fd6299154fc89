//! Sites that run Lua.
//!
//! lua-resty-core is what `scripts/lua_library` unpacks, or where `TOLLBAR_TEST_LUA_PATH` says (a
//! `lua_package_path`). Without it such tests are skipped.

use super::Site;

/// Where `scripts/lua_library` unpacks it.
const LIBRARY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/lua-library/usr/share/lua/5.1");

/// A site whose `http {}` holds this, if there is a lua-resty-core.
pub fn with_lua(conf: &str) -> Option<Site> {
    Some(Site::http(&format!("{}\n{conf}", paths()?)))
}

/// The directives that let Lua find lua-resty-core.
pub fn paths() -> Option<String> {
    let path = std::env::var("TOLLBAR_TEST_LUA_PATH").ok().or_else(|| {
        let is_there = std::path::Path::new(LIBRARY).join("resty/core.lua").exists();
        is_there.then(|| format!("{LIBRARY}/?.lua;;"))
    });
    let Some(path) = path else {
        eprintln!("skipped: lua-resty-core is not there, see scripts/lua_library");
        return None;
    };
    Some(format!("lua_package_path \"{path}\"; lua_package_cpath \";;\";"))
}

/// A test: a configuration for `http {}`, and the talk that it causes.
macro_rules! lua_test {
    ($name:ident, $conf:expr, |$t:ident| $talk:expr) => {
        #[test]
        fn $name() {
            if let Some(site) = crate::harness::lua::with_lua($conf) {
                site.run(|$t| {
                    $talk;
                });
            }
        }
    };
    ($name:ident, $conf:expr, $cases:expr) => {
        crate::harness::lua::lua_test!($name, $conf, |t| t.check($cases));
    };
}
pub(crate) use lua_test;
