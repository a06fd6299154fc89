//! Every module, in order: the only file that names all features.
//!
//! The order is behaviour: handlers of a phase are asked, and header filters run, from top to
//! bottom.

use crate::http::modules::*;
use crate::http::{self, Entry, Modules};

/// The HTTP server's features.
#[rustfmt::skip]
pub static HTTP: Modules = &[
    &Entry::<http::core::Core>::NEW,
    &Entry::<http::open_files::OpenFiles>::NEW,
    &Entry::<http::gzip_rules::GzipRules>::NEW,
    &Entry::<http::http2::Http2>::NEW,
    &Entry::<http::ssl::Ssl>::NEW,
    // Variables.
    &Entry::<map::Map>::NEW,
    &Entry::<geo::Geo>::NEW,
    &Entry::<split_clients::SplitClients>::NEW,
    &Entry::<referer::Referer>::NEW,
    &Entry::<secure_link::SecureLink>::NEW,
    &Entry::<keyval::Keyval>::NEW,
    &Entry::<table::Table>::NEW,
    &Entry::<set_misc::SetMisc>::NEW,
    // Who it is, and how much is let through.
    &Entry::<realip::RealIp>::NEW,
    &Entry::<limit_req::LimitReq>::NEW,
    &Entry::<limit_conn::LimitConn>::NEW,
    // Access.
    &Entry::<access::Access>::NEW,
    &Entry::<auth_basic::AuthBasic>::NEW,
    &Entry::<auth_request::AuthRequest>::NEW,
    // The end of the rewrite phase.
    &Entry::<headers_more::InputHeadersMore>::NEW,
    // Rewrite, access, header filter, log.
    &Entry::<crate::plugin::Plugins>::NEW,
    // Rewrite, access, content, and what follows: Lua is asked after the others of its phase.
    &Entry::<crate::lua::conf::Lua>::NEW,
    // Before the content.
    &Entry::<try_files::TryFiles>::NEW,
    &Entry::<mirror::Mirror>::NEW,
    // Content.
    &Entry::<http::upstream::Upstreams>::NEW,
    &Entry::<proxy::Proxy>::NEW,
    &Entry::<stub_status::StubStatus>::NEW,
    &Entry::<echo::Echo>::NEW,
    &Entry::<random_index::RandomIndex>::NEW,
    &Entry::<index::Index>::NEW,
    &Entry::<autoindex::Autoindex>::NEW,
    &Entry::<gzip_static::GzipStatic>::NEW,
    &Entry::<static_file::StaticFile>::NEW,
    // Header filters.
    &Entry::<not_modified::NotModified>::NEW,
    &Entry::<headers_more::HeadersMore>::NEW,
    &Entry::<headers::Headers>::NEW,
    &Entry::<userid::UserId>::NEW,
    &Entry::<gunzip::Gunzip>::NEW,
    &Entry::<sub_filter::SubFilter>::NEW,
    &Entry::<addition::Addition>::NEW,
    &Entry::<http::charset::Charset>::NEW,
    &Entry::<gzip::Gzip>::NEW,
    &Entry::<range::Ranges>::NEW,
    // The log.
    &Entry::<log::AccessLog>::NEW,
    &Entry::<sample::Sampler>::NEW,
];
