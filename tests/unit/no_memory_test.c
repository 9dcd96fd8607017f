/* SPDX-License-Identifier: Apache-2.0 */
/* Every reader with the first, second, third ... allocation failing: an error each time, nothing
 * leaked (the sanitizer build tells), and success once enough of them work. */
#include "weightfiles.h"

#include <errno.h>

#include "io/outfile.h"
#include "weights/layout.h"

static long left = -1; /* allocations that still succeed; negative: all */

static bool fails(void) {
    if (left < 0 || left-- > 0)
        return false;
    errno = ENOMEM;
    return true;
}

/* The linker sends the libraries' calls here (weights.cmake). */
void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
char *__real_strdup(const char *s);
char *__real_strndup(const char *s, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
char *__wrap_strdup(const char *s);
char *__wrap_strndup(const char *s, size_t n);

void *__wrap_malloc(size_t n) {
    return fails() ? NULL : __real_malloc(n);
}
void *__wrap_calloc(size_t n, size_t size) {
    return fails() ? NULL : __real_calloc(n, size);
}
void *__wrap_realloc(void *p, size_t n) {
    return fails() ? NULL : __real_realloc(p, n);
}
char *__wrap_strdup(const char *s) {
    return fails() ? NULL : __real_strdup(s);
}
char *__wrap_strndup(const char *s, size_t n) {
    return fails() ? NULL : __real_strndup(s, n);
}

static char folder[256];

static const spec dit[] = {{"head.modulation", WAN_F32, 1, {2}},
                           {"blocks.0.self_attn.q.weight", WAN_F16, 2, {2, 3}}};

static bool open_store(const char *path, error *err) {
    store *s = wan_store_open(path, PART_DIT, err);
    wan_store_close(s);
    return s != NULL;
}

static bool find(const char *path, error *err) {
    char found[4096];
    return wan_layout_find(path, PART_DIT, found, sizeof found, err) == WAN_OK;
}

static bool write_file(const char *path, error *err) {
    outfile *f = wan_outfile_open(path, err);
    if (!f)
        return false;
    wan_outfile_abort(f);
    return true;
}

static void each_fails(bool (*act)(const char *path, error *err), const char *path) {
    for (long n = 0; n < 10000; n++) {
        error err = {0};
        left = n;
        bool done = act(path, &err);
        bool all = left >= 0; /* not one of them failed */
        left = -1;
        if (done && all)
            return;
        if (!done && err.code != WAN_E_MEMORY)
            fail_msg("allocation %ld of %s: %d \"%s\"", n, path, err.code, err.message);
    }
    fail_msg("%s never opens", path);
}

static void every_allocation(void **state) {
    (void)state;
    static const char index[] =
        "{\"weight_map\":{\"head.modulation\":\"m-00001-of-00001.safetensors\"}}";
    make_folder(folder);
    each_fails(open_store, make_weights(folder, "a/a.safetensors", dit, 2));
    each_fails(open_store, make_gguf(folder, "b/b.gguf", dit, 2));
    make_weights(folder, "c/m-00001-of-00001.safetensors", dit, 2);
    each_fails(open_store, make_file(folder, "c/m.safetensors.index.json", index, strlen(index)));
    make_file(folder, "a/config.json", "{\"dim\":[1,2]}", 13);
    each_fails(open_store, make_weights(folder, "a/a.safetensors", dit, 2));
    each_fails(write_file, make_file(folder, "out", "x", 1));
    char path[512];
    snprintf(path, sizeof path, "%s/a", folder);
    each_fails(find, path);
    make_weights(folder, "a/b.safetensors", dit + 1, 1);
    make_file(folder, "a/b.safetensors", "broken", 6);
    make_weights(folder, "d/1.safetensors", dit, 2);
    make_weights(folder, "d/2.safetensors", (const spec[]){{"x", WAN_F32, 1, {2}}}, 1);
    snprintf(path, sizeof path, "%s/d", folder);
    each_fails(find, path);
    remove_folder(folder);
}

int main(void) {
    /* jansson's own allocations are left alone: when one fails it may drop a letter and go on. */
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
