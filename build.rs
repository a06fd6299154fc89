//! Lets LuaJIT's `ffi` and C modules of Lua find what the executable exports.
//!
//! Lua's own API is for C modules (`cjson.so`), the `ngx_http_lua_ffi_*` functions are what
//! lua-resty-core calls, a few of nginx's own what other libraries call. Nothing else of the executable is visible to a library.

use std::path::PathBuf;
use std::{env, fs};

const EXPORTED: &str = "{ lua_*; luaL_*; luaopen_*; luaJIT_*; ngx_http_lua_*; tollbar_lua_*; \
    ngx_lua_ffi_*; ngx_stat_*; ngx_hex_dump; ngx_atoi; ngx_hextoi; ngx_escape_uri; ngx_encode_base64url; \
    ngx_decode_base64url; };\n";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let list = folder.join("exported.list");
    fs::write(&list, EXPORTED).expect("cargo's folder takes a file");
    println!("cargo:rustc-link-arg-bins=-Wl,--dynamic-list={}", list.display());
}
