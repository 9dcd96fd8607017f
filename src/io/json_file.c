/* SPDX-License-Identifier: Apache-2.0 */
#include "io/json_file.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

#include "io/mapfile.h"

#define FILE_LIMIT (16u << 20)
#define FILE_DEPTH 64

/* Deepest nesting, counted before parsing so that the parser never recurses far.  Brackets in
 * strings do not count. */
static int nesting(const char *text, size_t size) {
    int depth = 0, deepest = 0;
    bool quoted = false;
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (quoted && c == '\\')
            i++;
        else if (c == '"')
            quoted = !quoted;
        else if (!quoted && (c == '{' || c == '['))
            deepest = ++depth > deepest ? depth : deepest;
        else if (!quoted && (c == '}' || c == ']'))
            depth--;
    }
    return deepest;
}

json_t *wan_json_parse(const char *text, size_t size, int depth, const char *path, const char *what,
                       error *err) {
    int found = nesting(text, size);
    if (found > depth) {
        wan_fail(err, WAN_E_FORMAT, "%s: %s is nested %d deep, at most %d is sane", path, what,
                 found, depth);
        return NULL;
    }
    json_error_t fault;
    errno = 0;
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &fault);
    /* When an allocation fails, jansson may blame the text, say nothing, or drop a letter and
     * succeed.  errno of malloc mostly tells (a number that follows clears it). */
    if (errno == ENOMEM || (!root && !fault.text[0])) {
        wan_fail(err, WAN_E_MEMORY, "%s: no memory to read %s", path, what);
        json_decref(root);
        return NULL;
    }
    if (!root) {
        wan_fail(err, WAN_E_FORMAT, "%s: %s is not good JSON: %s (byte %d of %zu)", path, what,
                 fault.text, fault.position, size);
        return NULL;
    }
    if (!json_is_object(root)) {
        wan_fail(err, WAN_E_FORMAT, "%s: %s is not a JSON object", path, what);
        json_decref(root);
        return NULL;
    }
    return root;
}

json_t *wan_json_load(const char *path, error *err) {
    mapfile m;
    if (wan_map_open(&m, path, err) != WAN_OK)
        return NULL;
    json_t *root = NULL;
    if (m.size > FILE_LIMIT)
        wan_fail(err, WAN_E_FORMAT, "%s: %zu bytes of JSON, at most %u are sane", path, m.size,
                 FILE_LIMIT);
    else
        root = wan_json_parse((const char *)m.data, m.size, FILE_DEPTH, path, "it", err);
    wan_map_close(&m);
    return root;
}
