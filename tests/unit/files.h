/* SPDX-License-Identifier: Apache-2.0 */
/* files.h - for tests of readers: bytes put together by hand, and a folder of our own to put files
 * in. */
#ifndef WAN_TESTS_FILES_H
#define WAN_TESTS_FILES_H

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

typedef struct bytes {
    uint8_t at[1 << 16];
    size_t n;
} bytes;

static inline void put(bytes *b, const void *p, size_t n) {
    assert_true(b->n + n <= sizeof b->at);
    if (n)
        memcpy(b->at + b->n, p, n);
    b->n += n;
}

static inline void put_number(bytes *b, uint64_t v, int size) {
    for (int i = 0; i < size; i++)
        put(b, &(uint8_t){(uint8_t)(v >> (8 * i))}, 1);
}

static inline void put_string(bytes *b, const char *s) {
    put_number(b, strlen(s), 8);
    put(b, s, strlen(s));
}

/* A safetensors file: header as given, then `data` bytes counting up from 1. */
static inline void put_safetensors(bytes *b, const char *header, size_t data) {
    put_number(b, strlen(header), 8);
    put(b, header, strlen(header));
    for (size_t i = 0; i < data; i++)
        put(b, &(uint8_t){(uint8_t)(i + 1)}, 1);
}

/* A new folder under TMPDIR or /tmp; the caller removes it with remove_folder. */
static inline const char *make_folder(char path[256]) {
    const char *tmp = getenv("TMPDIR");
    snprintf(path, 256, "%s/wan-test-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(path));
    return path;
}

static inline int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at) {
    (void)st, (void)kind, (void)at;
    return remove(path);
}

static inline void remove_folder(const char *path) {
    nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static inline size_t count_files(const char *path) {
    size_t n = 0;
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));)
        n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    if (d)
        closedir(d);
    return n;
}

/* FOLDER/NAME with these bytes; folders in NAME are made.  Returns its path, valid until the next
 * call but seven. */
static inline const char *make_file(const char *folder, const char *name, const void *p, size_t n) {
    static char path[8][1024];
    static int turn;
    char *at = path[turn++ % 8];
    snprintf(at, 1024, "%s/%s", folder, name);
    for (char *slash = at + strlen(folder) + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = '\0';
        mkdir(at, 0777);
    }
    FILE *f = fopen(at, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    return at;
}

static inline void expect_error(const error *err, wan_status code, const char *part) {
    if (err->code != code || !strstr(err->message, part))
        fail_msg("got %d \"%s\", expected %d with \"%s\"", err->code, err->message, code, part);
}

#endif
