/* tollbar_plugin.h: the interface between Tollbar and a native plugin.
 *
 * A plugin is a shared library. The configuration loads it and says where it takes part:
 *
 *     http {
 *         load_plugin plugins/header_check.so;          # in front of its first use
 *         server {
 *             location /api { plugin header_check X-Api-Key; }
 *         }
 *     }
 *
 * What follows the file's name goes to `init`; what follows the plugin's name goes to `configure`,
 * once for every line. A location without `plugin` lines has those of the block around it;
 * `plugin off;` has none. Lines of one place are called in their order.
 *
 * Build one with
 *
 *     cc -shared -fPIC -O2 -I include -o header_check.so header_check.c
 *
 * Processes. The master reads the configuration: it loads the library, and calls `tollbar_plugin`,
 * `init` and `configure`, as root if it was started so, also for a mere test of the configuration
 * (`-t`). Each of these happens in a short-lived copy of the master first, so that a library that
 * crashes there is refused like a wrong configuration. Then the master forks; a worker inherits
 * everything as memory of its own and calls `rewrite`, `access`, `header_filter` and `log`. So what
 * one worker changes the others do not see: what all of them are to see belongs into a dict (see
 * `dict_incr`).
 *
 * Threads. A process calls a plugin from one thread only, and never from inside another callback
 * of a plugin. No thread may be running in the plugin when `init` or `configure` return, as fork
 * copies one thread only. The functions of the host may be called from inside a callback, by the
 * thread that it runs in, and by nobody else.
 *
 * Time. A worker serves thousands of connections in turn: while a callback runs, all of them wait.
 * It must not sleep, read a socket, or wait for a lock. While `init` and `configure` run, the
 * master does nothing else: it answers no signal and replaces no worker.
 *
 * Reload. Every configuration has a copy of the library of its own, with variables of its own, made
 * of the file as it was when the configuration was read. The file may be overwritten at any time.
 * The master takes a copy out of memory (`free_conf`, `exit`, then the library's destructors)
 * when its configuration is replaced; a worker may end without any of these. A library that
 * cannot be unloaded (one with thread-local destructors, for example) stays in memory unused.
 *
 * Faults. An unknown verdict, a status that is none, a NULL where none may be: the request is
 * answered with 500 and the error log says why. Beyond that the server cannot protect itself from
 * code in its own memory. A plugin that writes where it must not, aborts, or lets a C++ exception
 * or a Rust panic out of a callback ends its worker, and the requests in it are lost; a new worker
 * takes its place.
 */
#ifndef TOLLBAR_PLUGIN_H
#define TOLLBAR_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of everything here. A plugin of another version is refused. */
#define TOLLBAR_PLUGIN_ABI 1

/* Bytes with their number; no NUL ends them. `data` may be NULL only if `len` is 0.
 *
 * What the host gives lives until the callback returns that got it, and must not be changed. What a
 * plugin gives is copied before the call returns. */
typedef struct tollbar_str {
    const char *data;
    size_t len;
} tollbar_str;

/* A request, inside one callback: not to be kept. */
typedef struct tollbar_request tollbar_request;

/* What a callback of a request decided. In `rewrite` and `access` also a status from 400 to 599,
 * or 444 to close the connection without an answer: the request ends with that status and its
 * `error_page`. In `header_filter` only TOLLBAR_DECLINE, or such a status but 444: that page is
 * sent instead. */
#define TOLLBAR_DECLINE 0 /* nothing: others are asked */
#define TOLLBAR_ALLOW 1   /* in `access` only: allowed, as far as this plugin is concerned;
                             where `satisfy any` is set that is enough */
#define TOLLBAR_REPLY 2   /* `reply` made the answer: send it */

/* What functions of the host return. */
#define TOLLBAR_OK 0
#define TOLLBAR_NONE 1     /* there is no such header, variable or key */
#define TOLLBAR_INVALID 2  /* an argument is not what it should be */
#define TOLLBAR_NOT_NOW 3  /* not in this callback */
#define TOLLBAR_NO_DICT 4  /* the configuration declares no such dict */
#define TOLLBAR_NO_ROOM 5  /* the dict is full, or refused the change */

/* Levels of the error log. */
#define TOLLBAR_LOG_EMERG 1
#define TOLLBAR_LOG_ALERT 2
#define TOLLBAR_LOG_CRIT 3
#define TOLLBAR_LOG_ERROR 4
#define TOLLBAR_LOG_WARN 5
#define TOLLBAR_LOG_NOTICE 6
#define TOLLBAR_LOG_INFO 7
#define TOLLBAR_LOG_DEBUG 8

/* What the host does for a plugin. The table lives as long as the plugin is loaded.
 *
 * `r` is the request that the callback got; `value` and its like, where the result goes, written
 * only with TOLLBAR_OK. None of these may be NULL. */
typedef struct tollbar_host {
    uint32_t abi;  /* TOLLBAR_PLUGIN_ABI */
    uint32_t size; /* of this table; functions that come later are appended */

    /* The request as it stands: the method, the path (decoded and made plain, without arguments),
     * the arguments behind `?` as they came, the client's address as text. Empty if there is
     * none. */
    tollbar_str (*method)(tollbar_request *r);
    tollbar_str (*uri)(tollbar_request *r);
    tollbar_str (*args)(tollbar_request *r);
    tollbar_str (*remote_address)(tollbar_request *r);

    /* The first header field of that name, in any letter case, of the request or of the reply so
     * far. TOLLBAR_OK, TOLLBAR_NONE. */
    int32_t (*request_header)(tollbar_request *r, tollbar_str name, tollbar_str *value);
    int32_t (*response_header)(tollbar_request *r, tollbar_str name, tollbar_str *value);

    /* The reply's status so far; 0 before there is one. */
    int32_t (*response_status)(tollbar_request *r);

    /* The variable `$name` of the configuration; `name` without `$`. TOLLBAR_OK, TOLLBAR_NONE. */
    int32_t (*variable)(tollbar_request *r, tollbar_str name, tollbar_str *value);

    /* Puts a field in place of all of that name; a value whose `data` is NULL removes them.
     *
     * Of the request in `rewrite` and `access`, for who is asked later and for upstreams; of the
     * reply in `rewrite`, `access` and `header_filter`. Bytes below 32 but the tab are refused, and
     * so are Content-Length, Transfer-Encoding and Connection: how a message is framed is the
     * server's business.
     * TOLLBAR_OK, TOLLBAR_INVALID, TOLLBAR_NOT_NOW. */
    int32_t (*set_request_header)(tollbar_request *r, tollbar_str name, tollbar_str value);
    int32_t (*set_response_header)(tollbar_request *r, tollbar_str name, tollbar_str value);

    /* Gives the reply another status, 200 to 599, in `header_filter`. TOLLBAR_OK, TOLLBAR_INVALID
     * (a fault: the request ends with 500), TOLLBAR_NOT_NOW. */
    int32_t (*set_response_status)(tollbar_request *r, int32_t status);

    /* Makes the answer, in `rewrite` and `access`: a status, 200 to 599, the type (NULL for none)
     * and the body. The callback returns TOLLBAR_REPLY then, and nothing else.
     * TOLLBAR_OK, TOLLBAR_INVALID (a fault), TOLLBAR_NOT_NOW. */
    int32_t (*reply)(tollbar_request *r, int32_t status, tollbar_str content_type,
                     tollbar_str body);

    /* Writes to the error log. `r` may be NULL: then to that of the process, in any callback. */
    void (*log)(tollbar_request *r, int32_t level, tollbar_str text);

    /* Shared dicts: those of `keyval_zone` and `lua_shared_dict`, by name, common to all workers;
     * they outlive reloads. `ttl_ms` is how long a value stays, 0 for the zone's timeout or for
     * ever. A number is read as its decimal text.
     *
     * `dict_get`: TOLLBAR_OK, TOLLBAR_NONE. `dict_set` stores text. `dict_delete`: TOLLBAR_OK also
     * if there is no such key. `dict_incr` adds `by` to a number, in one step for all processes; if
     * there is none, to `start`, and it stays for `ttl_ms`; the new number goes to `value`, which
     * may be NULL. TOLLBAR_INVALID if the key holds no number.
     * Those that change: TOLLBAR_INVALID for a key that is empty or too long, TOLLBAR_NO_ROOM.
     * All: TOLLBAR_NO_DICT. */
    int32_t (*dict_get)(tollbar_request *r, tollbar_str dict, tollbar_str key, tollbar_str *value);
    int32_t (*dict_set)(tollbar_request *r, tollbar_str dict, tollbar_str key, tollbar_str value,
                        uint64_t ttl_ms);
    int32_t (*dict_incr)(tollbar_request *r, tollbar_str dict, tollbar_str key, double by,
                         double start, uint64_t ttl_ms, double *value);
    int32_t (*dict_delete)(tollbar_request *r, tollbar_str dict, tollbar_str key);
} tollbar_host;

/* What a plugin is. It lives, with all that it points to, as long as the library is loaded. Every
 * callback but `configure` may be NULL, and `configure` may be if the plugin has no settings. */
typedef struct tollbar_plugin_descriptor {
    uint32_t abi;        /* TOLLBAR_PLUGIN_ABI */
    uint32_t size;       /* sizeof(tollbar_plugin_descriptor) */
    tollbar_str name;    /* for `plugin NAME`: 1 to 64 letters, digits, `_`, `-`, `.`; not "off" */
    tollbar_str version; /* for the log: at most 64 printable characters, or none */

    /* Called once, with the arguments of `load_plugin`. 0, or anything else to be refused: then
     * what stands in `error` (at most `error_size` bytes with its NUL) is what the operator reads.
     * Without `init`, arguments are refused. */
    int32_t (*init)(const tollbar_str *args, size_t count, char *error, size_t error_size);

    /* Called last, if `init` was called and did not refuse (or is NULL). */
    void (*exit)(void);

    /* Called for each `plugin` line with its arguments. What it leaves in `*conf`, NULL at first,
     * is what the callbacks below get at that place. Refuses as `init` does, and leaves nothing
     * then. Without it, arguments are refused. */
    int32_t (*configure)(const tollbar_str *args, size_t count, void **conf, char *error,
                         size_t error_size);

    /* Frees what `configure` left, unless that is NULL. */
    void (*free_conf)(void *conf);

    /* At the end of the rewrite phase, once per location that the request comes to. */
    int32_t (*rewrite)(void *conf, tollbar_request *r);

    /* May the client have it? Not asked for subrequests. */
    int32_t (*access)(void *conf, tollbar_request *r);

    /* The head of the reply is about to be sent, whoever made it. */
    int32_t (*header_filter)(void *conf, tollbar_request *r);

    /* The request is over. Functions that change anything but dicts return TOLLBAR_NOT_NOW. */
    void (*log)(void *conf, tollbar_request *r);
} tollbar_plugin_descriptor;

/* The one symbol of a plugin. Called before anything else, once; `host` may be kept. */
#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
const tollbar_plugin_descriptor *
tollbar_plugin(const tollbar_host *host);

#ifdef __cplusplus
}
#endif

#endif
