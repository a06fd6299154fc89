-- What of OpenResty's API is written in Lua: constants, the functions that wait, coroutines.
-- Runs once, when a process opens its VM, before lua-resty-core is loaded.
local c, WAIT, path, cpath, prefix, dicts, versions, server_version, apart = ...
local raw_yield, raw_resume = coroutine.yield, coroutine.resume
local raw_create, raw_status, raw_wrap = coroutine.create, coroutine.status, coroutine.wrap
local error, type, tostring, tonumber, select, unpack = error, type, tostring, tonumber, select, unpack
local concat, floor = table.concat, math.floor

-- ";;" stands for the path that was there.
local function join(given, before)
  if not given then return before end
  given = given:gsub("%$prefix", (prefix:gsub("%%", "%%%%")))
  return (given:gsub(";;", ";" .. before:gsub("%%", "%%%%") .. ";"))
end
local system = ";/usr/share/lua/5.1/?.lua;/usr/share/lua/5.1/?/init.lua"
local triple = ({ x64 = "x86_64", arm64 = "aarch64" })[jit.arch] or jit.arch
local modules = (";/usr/lib/%s-linux-gnu/lua/5.1/?.so;/usr/lib/lua/5.1/?.so"):format(triple)
package.path = join(path, package.path .. system)
package.cpath = join(cpath, package.cpath .. modules)

local ngx = {
  OK = 0, ERROR = -1, AGAIN = -2, DONE = -4, DECLINED = -5,
  STDERR = 0, EMERG = 1, ALERT = 2, CRIT = 3, ERR = 4, WARN = 5, NOTICE = 6, INFO = 7, DEBUG = 8,
  HTTP_GET = 0x2, HTTP_HEAD = 0x4, HTTP_POST = 0x8, HTTP_PUT = 0x10, HTTP_DELETE = 0x20,
  HTTP_MKCOL = 0x40, HTTP_COPY = 0x80, HTTP_MOVE = 0x100, HTTP_OPTIONS = 0x200,
  HTTP_PROPFIND = 0x400, HTTP_PROPPATCH = 0x800, HTTP_LOCK = 0x1000, HTTP_UNLOCK = 0x2000,
  HTTP_PATCH = 0x4000, HTTP_TRACE = 0x8000,
  HTTP_CONTINUE = 100, HTTP_SWITCHING_PROTOCOLS = 101, HTTP_OK = 200, HTTP_CREATED = 201,
  HTTP_ACCEPTED = 202, HTTP_NO_CONTENT = 204, HTTP_PARTIAL_CONTENT = 206,
  HTTP_SPECIAL_RESPONSE = 300, HTTP_MOVED_PERMANENTLY = 301, HTTP_MOVED_TEMPORARILY = 302,
  HTTP_SEE_OTHER = 303, HTTP_NOT_MODIFIED = 304, HTTP_TEMPORARY_REDIRECT = 307,
  HTTP_PERMANENT_REDIRECT = 308, HTTP_BAD_REQUEST = 400, HTTP_UNAUTHORIZED = 401,
  HTTP_PAYMENT_REQUIRED = 402, HTTP_FORBIDDEN = 403, HTTP_NOT_FOUND = 404,
  HTTP_NOT_ALLOWED = 405, HTTP_NOT_ACCEPTABLE = 406, HTTP_REQUEST_TIMEOUT = 408,
  HTTP_CONFLICT = 409, HTTP_GONE = 410, HTTP_UPGRADE_REQUIRED = 426,
  HTTP_TOO_MANY_REQUESTS = 429, HTTP_CLOSE = 444, HTTP_ILLEGAL = 451,
  HTTP_INTERNAL_SERVER_ERROR = 500, HTTP_NOT_IMPLEMENTED = 501,
  HTTP_METHOD_NOT_IMPLEMENTED = 501, HTTP_BAD_GATEWAY = 502, HTTP_SERVICE_UNAVAILABLE = 503,
  HTTP_GATEWAY_TIMEOUT = 504, HTTP_VERSION_NOT_SUPPORTED = 505, HTTP_INSUFFICIENT_STORAGE = 507,
  null = c.null(),
  arg = setmetatable({}, { __newindex = c.set_arg }),
  config = {
    subsystem = "http", debug = false, nginx_version = 1031005,
    ngx_lua_version = versions[1],
    prefix = function() return prefix end,
    nginx_configure = function() return "" end,
  },
}
_G.ngx = ngx

-- In the log a table says itself what it is; it is asked only if the line is written at all, which
-- `write` says by not writing a line with tables in it.
local function with_tables(name, write, skipped)
  return function(...)
    if not write(...) then return end
    local words, n = { ... }, select("#", ...)
    for i = 1, n do
      if type(words[i]) == "table" then
        local meta = debug.getmetatable(words[i])
        local say = meta and rawget(meta, "__tostring")
        if not say then
          error("bad argument #" .. i - skipped .. " to '" .. name ..
                "' (expected table to have __tostring metamethod)", 2)
        end
        local text = say(words[i])
        words[i] = (type(text) == "string" or type(text) == "number") and text or ""
      end
    end
    write(unpack(words, 1, n))
  end
end
ngx.log, _G.print = with_tables("log", c.log, 1), with_tables("print", c.print, 0)

-- The request that runs, as lua-resty-core asks for it.
package.preload["thread.exdata"] = function()
  -- What is shown is of the worker's own VM only.
  if apart then return function() end end
  local ffi = require "ffi"
  pcall(ffi.cdef, "void *tollbar_lua_request;")
  local C = ffi.C
  return function()
    local r = C.tollbar_lua_request
    if r ~= nil then return r end
  end
end

-- What OpenResty's LuaJIT has and LuaJIT has not. Each is a field of `table` once it is required.
local function of_table(name, f)
  package.preload["table." .. name] = function()
    table[name] = f
    return f
  end
end
local next = next
local function need_table(t, name)
  if type(t) ~= "table" then
    error("bad argument #1 to '" .. name .. "' (table expected, got " .. type(t) .. ")", 3)
  end
end
of_table("isempty", function(t)
  need_table(t, "isempty")
  return next(t) == nil
end)
of_table("isarray", function(t)
  need_table(t, "isarray")
  for key in next, t do
    if type(key) ~= "number" then return false end
  end
  return true
end)
of_table("nkeys", function(t)
  need_table(t, "nkeys")
  local n = 0
  for _ in next, t do n = n + 1 end
  return n
end)
of_table("clone", function(t)
  need_table(t, "clone")
  local twin = {}
  for key, value in next, t do twin[key] = value end
  return twin
end)

-- OpenResty is linked with OpenSSL, and libraries call that through ffi. Where the system has it,
-- they find it here too. It stays for the life of the VM.
if not apart then
  local ffi = require "ffi"
  for _, name in ipairs { "libcrypto.so.3", "libcrypto.so.1.1" } do
    local found, library = pcall(ffi.load, name, true)
    if found then
      package.loaded["tollbar.libcrypto"] = library
      break
    end
  end
end

-- What clients offer in their hellos: `tollbar.clienthello`.
package.preload["tollbar.clienthello"] = function()
  local hello = {}
  for name in ("ja3 ja3_hash ja4 ja4_raw server_name alpn versions ciphers extensions groups " ..
               "signature_algorithms raw"):gmatch("%S+") do
    hello[name] = function() return c.client_hello(name) end
  end
  return hello
end

-- Coroutines of users stand between the request's and what it waits for: that goes through.
local function pass(co, ok, first, ...)
  if ok and first == WAIT then
    return pass(co, raw_resume(co, raw_yield(WAIT, ...)))
  end
  return ok, first, ...
end
local function resume(co, ...) return pass(co, raw_resume(co, ...)) end
local function yield(...)
  if select("#", ...) == 0 then
    if c.is_about_to_wait() then return raw_yield(WAIT) end
    if c.is_leaving() then return raw_yield(WAIT, "exit") end
  end
  return raw_yield(...)
end
local function results(ok, ...)
  if ok then return ... end
  error((...), 0)
end
local function wrap(f)
  local co = raw_create(f)
  return function(...) return results(resume(co, ...)) end
end
-- A light thread is running until it has ended, and then a zombie until it is waited for.
local function status(co)
  return type(co) == "thread" and c.thread_status(co) or raw_status(co)
end
coroutine.__create, coroutine.__status, coroutine.__yield = raw_create, status, raw_yield
coroutine.__resume, coroutine.__wrap = resume, wrap
coroutine._create, coroutine._status, coroutine._yield = raw_create, raw_status, yield
coroutine._resume, coroutine._wrap = raw_resume, raw_wrap

local function wait(what, ...)
  return raw_yield(WAIT, what, ...)
end

-- Output that has to leave lets the code wait, where it can: not in a callback of a C function.
local can_wait = coroutine.isyieldable or function() return true end
local function sayer(say)
  return function(...)
    local ok, more = say(...)
    if not ok then return ok, more end
    if more and can_wait() then wait("flush") end
    return ok
  end
end
ngx.say, ngx.print = sayer(c.say), sayer(c.print_out)
local function sender(send)
  return function(waits)
    local ok, why = send()
    if not ok then return ok, why end
    if can_wait() then wait("flush", waits and 1 or nil) end
    return ok
  end
end
ngx.flush, ngx.eof, ngx.send_headers = sender(c.flush), sender(c.eof), sender(c.send_headers)

ngx.sleep = c.sleep
ngx.hmac_sha1, ngx.quote_sql_str, ngx.throw_error = c.hmac_sha1, c.quote_sql_str, error
ngx.on_abort = c.on_abort
ngx.thread = { spawn = c.spawn, wait = c.wait_thread, kill = c.kill }
ngx.timer = {
  at = c.timer_at, every = c.timer_every,
  running_count = c.timers_running, pending_count = c.timers_pending,
}

ngx.run_worker_thread = c.run_worker_thread

local function encode_args(args)
  if type(args) ~= "table" then
    error("bad argument #1 to 'encode_args' (table expected, got " .. type(args) .. ")", 2)
  end
  local out, n, escape = {}, 0, ngx.escape_uri
  local function add(key, value)
    if value == true then
      n = n + 1
      out[n] = escape(key)
    elseif type(value) == "string" or type(value) == "number" then
      n = n + 1
      out[n] = escape(key) .. "=" .. escape(tostring(value))
    elseif value ~= false then
      error("attempt to use " .. type(value) .. " as query arg value", 3)
    end
  end
  for key, value in pairs(args) do
    if type(key) ~= "string" then
      error("attempt to use a non-string key in the \"args\" option table", 2)
    end
    if type(value) == "table" then
      for i = 1, #value do add(key, value[i]) end
    else
      add(key, value)
    end
  end
  return concat(out, "&")
end
ngx.encode_args = encode_args

-- Names and values in turn become a table; what comes twice becomes a list.
local function collect(list, lower)
  local out = {}
  for i = 1, #list, 2 do
    local key, value = list[i], list[i + 1]
    if lower then key = key:lower() end
    local there = out[key]
    if there == nil then
      out[key] = value
    elseif type(there) == "table" then
      there[#there + 1] = value
    else
      out[key] = { there, value }
    end
  end
  return out
end

local function decode_args(text, max)
  local list, cut = c.parse_args(text, max)
  local args = collect(list)
  if cut then return args, "truncated" end
  return args
end
ngx.decode_args = decode_args

function ngx.exec(uri, args)
  if type(uri) ~= "string" then
    error("bad argument #1 to 'exec' (string expected, got " .. type(uri) .. ")", 2)
  end
  if uri == "" then error("The uri argument is empty", 2) end
  c.before_head("ngx.exec")
  if type(args) == "table" then args = encode_args(args) end
  local at = uri:sub(1, 1) ~= "@" and uri:find("?", 1, true)
  if at then
    local own = uri:sub(at + 1)
    uri = uri:sub(1, at - 1)
    args = args and args ~= "" and own .. "&" .. args or own
  end
  return wait("exec", uri, args and tostring(args) or "")
end

local redirects = { [301] = true, [302] = true, [303] = true, [307] = true, [308] = true }
function ngx.redirect(uri, status)
  if type(uri) ~= "string" then
    error("bad argument #1 to 'redirect' (string expected, got " .. type(uri) .. ")", 2)
  end
  status = status or 302
  if not redirects[status] then
    error("only ngx.HTTP_MOVED_TEMPORARILY, ngx.HTTP_MOVED_PERMANENTLY, " ..
          "ngx.HTTP_PERMANENT_REDIRECT, ngx.HTTP_SEE_OTHER, and " ..
          "ngx.HTTP_TEMPORARY_REDIRECT are allowed", 2)
  end
  if uri:find("%c") then error("unsafe byte in redirect uri", 2) end
  c.before_head("ngx.redirect")
  return wait("redirect", uri, status)
end

ngx.location = {}
local methods = {}
for _, name in ipairs { "GET", "HEAD", "POST", "PUT", "DELETE", "MKCOL", "COPY", "MOVE", "OPTIONS",
                        "PROPFIND", "PROPPATCH", "LOCK", "UNLOCK", "PATCH", "TRACE" } do
  methods[ngx["HTTP_" .. name]] = name
end
local captured_mt = { __index = function(t, key)
  return rawget(t, (tostring(key):lower():gsub("_", "-")))
end }
local known_options = {
  method = true, body = true, args = true, vars = true, copy_all_vars = true,
  share_all_vars = true, always_forward_body = true, ctx = true, headers = true,
}
-- A table of names with values, or lists of values, as a flat list.
local function flat(option, name, what)
  if option == nil then return end
  if type(option) ~= "table" then
    error("Bad " .. name .. " option value (table expected, got " .. type(option) .. ")", 3)
  end
  local list = {}
  local function add(key, value)
    if type(value) ~= "string" and type(value) ~= "number" then
      error("attempt to use bad " .. what .. " value type " .. type(value), 4)
    end
    list[#list + 1] = key
    list[#list + 1] = value
  end
  for key, value in pairs(option) do
    if type(key) ~= "string" then
      error("attempt to use a non-string key in the \"" .. name .. "\" option table", 3)
    end
    if name == "headers" and type(value) == "table" then
      for i = 1, #value do add(key, value[i]) end
    else
      add(key, value)
    end
  end
  return list
end
function ngx.location.capture(uri, options)
  if type(uri) ~= "string" then
    error("bad argument #1 to 'capture' (string expected, got " .. type(uri) .. ")", 2)
  end
  c.may_ask()
  options = options or {}
  for key in pairs(options) do
    if not known_options[key] then error("option \"" .. tostring(key) .. "\" is not supported", 2) end
  end
  local method = methods[options.method or ngx.HTTP_GET]
  if not method then error("unsupported HTTP method: " .. tostring(options.method), 2) end
  local args, at = options.args, uri:find("?", 1, true)
  if type(args) == "table" then args = encode_args(args) end
  if at then
    local own = uri:sub(at + 1)
    uri, args = uri:sub(1, at - 1), args and args ~= "" and own .. "&" .. args or own
  end
  local ctx = options.ctx
  if ctx ~= nil and type(ctx) ~= "table" then
    error("Bad ctx option value (table expected, got " .. type(ctx) .. ")", 2)
  end
  local vars, headers = flat(options.vars, "vars", "variable"), flat(options.headers, "headers", "header")
  ctx = ctx and require "resty.core.base".ref_in_table(debug.getregistry().ngx_lua_ctx_tables, ctx)
  local scope = options.share_all_vars and "share" or options.copy_all_vars and "copy" or nil
  local status, body, cut, fields = wait("capture", uri, args or "", method, options.body,
    options.always_forward_body and true or false, scope, vars, ctx, headers)
  if type(body) == "boolean" then error(status, 2) end
  return {
    status = status, body = body, truncated = cut,
    header = setmetatable(collect(fields or {}, true), captured_mt),
  }
end

function ngx.location.capture_multi(requests)
  if type(requests) ~= "table" then
    error("bad argument #1 to 'capture_multi' (table expected, got " .. type(requests) .. ")", 2)
  end
  if #requests == 0 then error("at least one subrequest should be specified", 2) end
  local threads, results = {}, {}
  for n, request in ipairs(requests) do
    threads[n] = ngx.thread.spawn(ngx.location.capture, request[1], request[2])
  end
  for n, thread in ipairs(threads) do
    local ok, result = ngx.thread.wait(thread)
    if not ok then error(result, 2) end
    results[n] = result
  end
  return unpack(results)
end

ngx.req = {
  get_body_data = c.get_body_data, get_body_file = c.get_body_file,
  discard_body = c.discard_body, set_body_data = c.set_body_data,
  set_body_file = c.set_body_file, init_body = c.init_body, append_body = c.append_body,
  finish_body = c.finish_body,
  http_version = c.http_version, raw_header = c.raw_header,
}
function ngx.req.read_body()
  c.may_ask()
  if not c.is_body_read() then wait("body") end
end
function ngx.req.get_post_args(max)
  if not c.is_body_read() then
    error("no request body found; maybe you should turn on lua_need_request_body?", 2)
  end
  local body = c.get_body_data()
  if not body then
    if c.get_body_file() then return nil, "request body in temp file not supported" end
    return {}
  end
  return decode_args(body, max)
end
function ngx.req.set_uri(uri, jump, binary)
  c.set_uri(uri, jump, binary)
  if jump then return wait("exit") end
end
function ngx.req.set_uri_args(args)
  local kind = type(args)
  if kind == "table" then
    args = encode_args(args)
  elseif kind ~= "string" and kind ~= "number" then
    error("bad argument #1 to 'set_uri_args' (string, number, or table expected, but got " ..
          kind .. ")", 2)
  end
  c.set_uri_args(tostring(args))
end

ngx.resp = {}
function ngx.resp.get_headers(max, raw)
  local fields, cut = c.reply_fields(max)
  local headers = collect(fields, not raw)
  if not raw then setmetatable(headers, captured_mt) end
  if cut then return headers, "truncated" end
  return headers
end

if #dicts > 0 then
  ngx.shared = {}
  local methods = {}
  methods.__index = methods
  for number, name in ipairs(dicts) do
    ngx.shared[name] = setmetatable({ c.pointer(number), number = number }, methods)
  end
  local function by_number(f)
    return function(dict, ...)
      if type(dict) ~= "table" or not dict.number then error("bad \"zone\" argument", 2) end
      return f(dict.number, ...)
    end
  end
  for _, name in ipairs { "get_keys", "flush_expired", "lpush", "rpush", "lpop", "rpop", "llen" } do
    methods[name] = by_number(c["dict_" .. name])
  end
end

-- Sockets. lua-resty-core adds its methods to these.
do
  local registry = debug.getregistry()
  local function class(name, prefix, methods)
    local mt = {}
    for method in methods:gmatch("%w+") do mt[method] = c[prefix .. method] end
    mt.__index = mt
    if name then registry[name] = mt end
    return mt
  end
  local reads = "receive receiveany receiveuntil settimeout settimeouts "
  c.socket_setup(
    class("__tcp_cosocket_mt", "tcp_", reads .. "bind connect send close getreusedtimes setkeepalive"),
    class("__tcp_req_cosocket_mt", "tcp_", reads),
    class("__tcp_raw_req_cosocket_mt", "tcp_", reads .. "send"),
    class(nil, "udp_", "bind setpeername send receive settimeout close")
  )
  local connect = [[local sock = ngx.socket.tcp()
    local ok, err = sock:connect(...)
    if ok then return sock else return nil, err end]]
  ngx.socket = {
    tcp = c.tcp_new, stream = c.tcp_new, udp = c.udp_new,
    connect = assert(loadstring(connect, "=ngx.socket.connect")),
  }
  function ngx.req.socket(...)
    if (...) and c.has_said() then ngx.flush(true) end
    return c.req_socket(...)
  end
end

-- lua-resty-core insists on the version that it was made for.
local function load_core()
  local ok, message = pcall(require, "resty.core")
  if ok then return end
  local minor, patch = tostring(message):match("ngx_http_lua_module 0%.(%d+)%.(%d+) required")
  local wanted = minor and minor * 1000 + patch
  if wanted and wanted >= versions[2] and wanted <= versions[3] then
    ngx.config.ngx_lua_version = wanted
    for name in pairs(package.loaded) do
      if name:find("^resty%.") then package.loaded[name] = nil end
    end
    c.set_version(wanted)
    ok, message = pcall(require, "resty.core")
    if ok then return end
  end
  error("failed to load the 'resty.core' module (https://github.com/openresty/lua-resty-core); " ..
        "ensure lua_package_path finds lua-resty-core and lua-resty-lrucache (reason: " ..
        tostring(message) .. ")", 0)
end
load_core()
package.loaded.ngx = ngx

-- In a thread: what `ngx.run_worker_thread` calls. Nobody else uses the globals meanwhile.
if apart then
  -- Certificates are kept by the thread that reads them, and code may go on in another one.
  package.preload["ngx.ssl"] = function()
    error("API disabled in the context of ngx.run_worker_thread", 0)
  end
  debug.getregistry().tollbar_call = function(module, name, ...)
    local ok, module = pcall(require, module)
    if not ok then error(module, 0) end
    if type(module) ~= "table" then error("invalid lua module", 0) end
    local f = module[name]
    if type(f) ~= "function" then error("invalid function", 0) end
    return f(...)
  end
  return
end

-- A global that a request writes is seen by all others: it is said, once a place.
local globals = {}
setmetatable(_G, {
  __newindex = function(t, name, value)
    local phase = ngx.get_phase()
    if phase ~= "init" and phase ~= "init_worker" and not globals[name] then
      globals[name] = true
      ngx.log(ngx.WARN, debug.traceback("writing a global Lua variable ('" .. tostring(name) ..
        "') which may lead to race conditions between concurrent requests, so prefer the use of " ..
        "'local' variables", 2))
    end
    rawset(t, name, value)
  end,
})
