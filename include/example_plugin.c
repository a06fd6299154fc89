/* example_plugin.c: a plugin for Tollbar that lets nobody in without a certain header field.
 *
 *     keyval_zone zone=seen:1m;
 *     load_plugin plugins/header_check.so;
 *     location /api { plugin header_check X-Api-Key seen; ... }
 *
 * The first argument is the field's name. The second, if there is one, is a dict in which requests
 * are counted by their path; the reply says in X-Seen how many there were.
 *
 *     cc -shared -fPIC -O2 -I include -o header_check.so include/example_plugin.c
 */
#include "tollbar_plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT(literal) { literal, sizeof(literal) - 1 }

/* How long a count is kept after its first request. */
#define COUNT_TTL_MS (3600u * 1000)

static const tollbar_host *host;

/* What one `plugin` line says. The texts stand behind the struct, in the same piece of memory. */
struct settings {
    tollbar_str field;
    tollbar_str dict; /* empty: nothing is counted */
};

static int32_t configure(const tollbar_str *args, size_t count, void **conf, char *error,
                         size_t error_size)
{
    if (count < 1 || count > 2) {
        snprintf(error, error_size, "it needs a header's name, and at most a dict behind it");
        return 1;
    }
    size_t total = args[0].len + (count == 2 ? args[1].len : 0);
    struct settings *settings = calloc(1, sizeof *settings + total);
    if (settings == NULL) {
        snprintf(error, error_size, "no memory");
        return 1;
    }
    /* The arguments live until we return only. */
    char *texts = (char *)(settings + 1);
    memcpy(texts, args[0].data, args[0].len);
    settings->field = (tollbar_str){ texts, args[0].len };
    if (count == 2) {
        memcpy(texts + args[0].len, args[1].data, args[1].len);
        settings->dict = (tollbar_str){ texts + args[0].len, args[1].len };
    }
    *conf = settings;
    return 0;
}

static int32_t check(void *conf, tollbar_request *r)
{
    const struct settings *settings = conf;
    tollbar_str value;
    if (host->request_header(r, settings->field, &value) != TOLLBAR_OK || value.len == 0) {
        static const tollbar_str why = TEXT("a request without the header");
        host->log(r, TOLLBAR_LOG_INFO, why);
        return 403;
    }
    if (settings->dict.len > 0) {
        int32_t counted =
            host->dict_incr(r, settings->dict, host->uri(r), 1, 0, COUNT_TTL_MS, NULL);
        if (counted == TOLLBAR_NO_DICT) {
            static const tollbar_str why = TEXT("there is no such dict");
            host->log(r, TOLLBAR_LOG_ERROR, why);
            return 500;
        }
    }
    return TOLLBAR_DECLINE;
}

static int32_t show_count(void *conf, tollbar_request *r)
{
    const struct settings *settings = conf;
    static const tollbar_str name = TEXT("X-Seen");
    tollbar_str value;
    if (settings->dict.len > 0
        && host->dict_get(r, settings->dict, host->uri(r), &value) == TOLLBAR_OK) {
        host->set_response_header(r, name, value);
    }
    return TOLLBAR_DECLINE;
}

static const tollbar_plugin_descriptor descriptor = {
    .abi = TOLLBAR_PLUGIN_ABI,
    .size = sizeof(tollbar_plugin_descriptor),
    .name = TEXT("header_check"),
    .version = TEXT("1.0"),
    .configure = configure,
    .free_conf = free,
    .access = check,
    .header_filter = show_count,
};

const tollbar_plugin_descriptor *tollbar_plugin(const tollbar_host *given)
{
    host = given;
    return &descriptor;
}
