/* SPDX-License-Identifier: Apache-2.0 */
/* The file of choices, $XDG_CACHE_HOME/wan/cublaslt-<version>-<device>.txt: a first line that names
 * the format, then one line for each shape:
 *
 *     rows out in operand result bias act milliseconds algorithm (128 hexadecimal digits)
 *
 * It is a hint.  Any line that is not exactly so makes the file count as empty, and the next choice
 * writes it anew. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/cuda/lt_inside.h"

static const char first_line[] = "wan cublaslt choices 1";

enum { LINE_BYTES = 512, ALGO_BYTES = sizeof(cublasLtMatmulAlgo_t) };

static int digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_algo(const char *text, cublasLtMatmulAlgo_t *algo) {
    unsigned char *to = (unsigned char *)algo;
    for (int i = 0; i < ALGO_BYTES; i++) {
        int high = digit(text[2 * i]);
        int low = high < 0 ? -1 : digit(text[2 * i + 1]);
        if (low < 0)
            return false;
        to[i] = (unsigned char)(high << 4 | low);
    }
    return text[2 * ALGO_BYTES] == '\0';
}

/* A number of at most 15 digits and the blank after it. */
static bool read_number(const char **at, int64_t *n) {
    int digits = 0;
    for (*n = 0; **at >= '0' && **at <= '9' && digits < 15; digits++, ++*at)
        *n = *n * 10 + (**at - '0');
    return digits > 0 && *(*at)++ == ' ';
}

static bool read_line(const char *line, lt_saved *s) {
    int64_t n[8]; /* the last: nanoseconds */
    for (int i = 0; i < 8; i++)
        if (!read_number(&line, &n[i]))
            return false;
    for (int i = 0; i < 7; i++)
        if (i < 3 ? n[i] < 1 : n[i] >= WAN_DTYPES)
            return false;
    s->key = (lt_key){n[0], n[1], n[2], (int32_t)n[3], (int32_t)n[4], (int32_t)n[5], (int32_t)n[6]};
    s->ms = (float)n[7] * 1e-6f;
    return read_algo(line, &s->algo);
}

static bool same_key(const lt_key *a, const lt_key *b) {
    return !memcmp(a, b, sizeof *a);
}

const lt_saved *wan_cuda_lt_table_find(const cuda_lt *lt, const lt_key *key) {
    for (int i = 0; i < lt->saved_count; i++)
        if (same_key(&lt->saved[i].key, key))
            return &lt->saved[i];
    return NULL;
}

/* Into memory; false without room. When full, the oldest goes. */
static bool remember(cuda_lt *lt, const lt_saved *s) {
    for (int i = 0; i < lt->saved_count; i++)
        if (same_key(&lt->saved[i].key, &s->key)) {
            lt->saved[i] = *s;
            return true;
        }
    if (!lt->saved) {
        lt->saved = calloc(LT_MOST_ENTRIES, sizeof *lt->saved);
        if (!lt->saved)
            return false;
        lt->saved_room = LT_MOST_ENTRIES;
    }
    if (lt->saved_count == lt->saved_room) {
        memmove(lt->saved, lt->saved + 1, sizeof *lt->saved * (size_t)(lt->saved_room - 1));
        lt->saved_count--;
    }
    lt->saved[lt->saved_count++] = *s;
    return true;
}

static bool read_file(cuda_lt *lt, FILE *f) {
    char line[LINE_BYTES];
    for (int row = 0; fgets(line, sizeof line, f); row++) {
        size_t n = strlen(line); /* a zero byte inside cuts the line and so spoils it */
        lt_saved s;
        if (n == 0 || line[n - 1] != '\n' || row > LT_MOST_ENTRIES)
            return false;
        line[n - 1] = '\0';
        if (row == 0 ? strcmp(line, first_line) != 0 : !read_line(line, &s))
            return false;
        if (row > 0 && !remember(lt, &s))
            return false;
    }
    return !ferror(f);
}

/* Of the device's name what file names can bear. */
static void plain_name(char *to, size_t size, const char *name) {
    size_t n = 0;
    for (; *name && n + 1 < size; name++)
        to[n++] = isalnum((unsigned char)*name) ? *name : '-';
    to[n] = '\0';
}

static bool cache_folder(char *path, size_t size) {
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n = -1;
    if (xdg && xdg[0] == '/')
        n = snprintf(path, size, "%s/wan", xdg);
    else if (home && home[0] == '/')
        n = snprintf(path, size, "%s/.cache/wan", home);
    return n > 0 && (size_t)n < size;
}

void wan_cuda_lt_table_open(cuda_lt *lt, const char *device_name) {
    char name[128], folder[800];
    plain_name(name, sizeof name, device_name);
    if (!cache_folder(folder, sizeof folder))
        return;
    snprintf(lt->file, sizeof lt->file, "%s/cublaslt-%zu-%s.txt", folder, lt->version, name);
    FILE *f = fopen(lt->file, "re");
    if (!f)
        return;
    if (!read_file(lt, f))
        lt->saved_count = 0;
    fclose(f);
}

static void write_line(FILE *f, const lt_saved *s) {
    const lt_key *k = &s->key;
    const unsigned char *byte = (const unsigned char *)&s->algo;
    fprintf(f, "%" PRId64 " %" PRId64 " %" PRId64 " %d %d %d %d %.0f ", k->rows, k->out, k->in,
            k->operand, k->result, k->bias, k->act, (double)s->ms * 1e6);
    for (int i = 0; i < ALGO_BYTES; i++)
        fprintf(f, "%02x", byte[i]);
    fputc('\n', f);
}

/* The folder of the file and the one above it. */
static void make_folders(const char *file) {
    char path[1024];
    snprintf(path, sizeof path, "%s", file);
    char *last = strrchr(path, '/');
    *last = '\0';
    char *above = strrchr(path, '/');
    if (above && above != path) {
        *above = '\0';
        mkdir(path, 0700);
        *above = '/';
    }
    mkdir(path, 0700);
}

/* Beside it, then in its place: who reads meanwhile sees the old one or the new one. */
static void write_file(const cuda_lt *lt) {
    char beside[sizeof lt->file + 32];
    make_folders(lt->file);
    snprintf(beside, sizeof beside, "%s.%ld", lt->file, (long)getpid());
    FILE *f = fopen(beside, "we");
    if (!f)
        return;
    fprintf(f, "%s\n", first_line);
    for (int i = 0; i < lt->saved_count; i++)
        write_line(f, &lt->saved[i]);
    bool good = !ferror(f);
    good = !fclose(f) && good;
    if (!good || rename(beside, lt->file))
        unlink(beside);
}

void wan_cuda_lt_table_add(cuda_lt *lt, const lt_saved *s) {
    if (remember(lt, s) && lt->file[0])
        write_file(lt);
}
