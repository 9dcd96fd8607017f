/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as the index of a sharded model, and what a folder holds.
 * Up to the first NUL the index; after it lines of "file tensor", the folder.  Names go through the
 * translation too. */
#include "fuzz.h"

#include "io/shards.h"
#include "weights/names.h"

typedef struct folder {
    const shard_index *index;
    const char *text;
    size_t size;
} folder;

static bool has(void *user, size_t file, const char *name) {
    const folder *f = user;
    const char *want = wan_shard_index_file(f->index, file);
    MUST(want);
    size_t a = strlen(want), b = strlen(name);
    for (size_t at = 0; at < f->size;) {
        const char *line = f->text + at, *end = memchr(line, '\n', f->size - at);
        size_t n = end ? (size_t)(end - line) : f->size - at;
        if (n == a + 1 + b && !memcmp(line, want, a) && line[a] == ' ' &&
            !memcmp(line + a + 1, name, b))
            return true;
        at += n + 1;
    }
    return false;
}

static void translate(const char *name) {
    char out[64];
    for (int p = 0; p < PARTS; p++)
        for (int l = 0; l <= LAYOUT_UNKNOWN; l++) {
            memset(out, 'x', sizeof out);
            wan_name_translate(name, (part)p, (layout)l, out, sizeof out);
            MUST(memchr(out, '\0', sizeof out));
            (void)wan_layout_detect(&name, 1, (part)p);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *end = size ? memchr(data, '\0', size) : NULL;
    size_t n = end ? (size_t)(end - data) : size;
    error err = {0};
    shard_index *x = wan_shard_index_parse((const char *)data, n, "fuzz", &err);
    if (!x) {
        expect_sentence(&err);
        return 0;
    }
    MUST(err.code == WAN_OK && wan_shard_index_tensors(x) > 0);
    for (size_t i = 0; i < wan_shard_index_files(x); i++) {
        size_t stem;
        int number, of;
        MUST(wan_shard_name_ok(wan_shard_index_file(x, i)));
        MUST(!strchr(wan_shard_index_file(x, i), '/'));
        (void)wan_shard_number(wan_shard_index_file(x, i), &stem, &number, &of);
        MUST(i == 0 || strcmp(wan_shard_index_file(x, i - 1), wan_shard_index_file(x, i)) < 0);
    }
    folder f = {
        .index = x, .text = end ? (const char *)end + 1 : NULL, .size = end ? size - n - 1 : 0};
    bool all = true;
    for (size_t i = 0; i < wan_shard_index_tensors(x); i++) {
        const char *name = wan_shard_index_tensor(x, i);
        size_t where = wan_shard_index_where(x, i);
        MUST(where < wan_shard_index_files(x) && wan_shard_index_find(x, name) == where);
        all = all && has(&f, where, name);
        translate(name);
    }
    MUST((wan_shard_index_check(x, has, &f, &err) == WAN_OK) == all);
    if (!all)
        expect_sentence(&err);
    wan_shard_index_close(x);
    return 0;
}
