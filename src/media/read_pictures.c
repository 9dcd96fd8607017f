/* SPDX-License-Identifier: Apache-2.0 */
/* Numbered pictures: a folder of them, OUT-%05d.png, the OUT.png that wan generate was given; or
 * one picture.  The folder is listed once; a gap, a number that stands twice and two series side by
 * side are errors, for a clip with a frame missing would be compared with the wrong frames. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "media/picture.h"
#include "media/reader.h"

#define ENDING ".png"
#define DIGITS_MAX 18 /* of a number that surely fits 64 bits */

typedef struct numbered {
    int64_t number;
    char *name; /* within the folder */
} numbered;

typedef struct pictures {
    char *folder; /* NULL: names are whole paths */
    numbered *list;
    size_t count, room, done;
    picture first; /* decoded to learn the size, handed out as frame 0 */
} pictures;

static void pictures_close(void *r) {
    pictures *p = r;
    for (size_t i = 0; i < p->count; i++)
        free(p->list[i].name);
    wan_picture_close(&p->first);
    free(p->list);
    free(p->folder);
    free(p);
}

static wan_status no_memory(const char *path, error *err) {
    return wan_fail(err, WAN_E_MEMORY, "%s: no memory to read it", path);
}

static wan_status add(pictures *p, const char *path, const char *name, int64_t number, error *err) {
    if (p->count == WAN_FRAMES_MAX)
        return wan_fail(err, WAN_E_FORMAT, "%s: has more than %d pictures", path, WAN_FRAMES_MAX);
    if (p->count == p->room) {
        size_t room = p->room ? 2 * p->room : 64;
        numbered *more = realloc(p->list, room * sizeof *more);
        if (!more)
            return no_memory(path, err);
        p->list = more;
        p->room = room;
    }
    char *copy = strdup(name);
    if (!copy)
        return no_memory(path, err);
    p->list[p->count++] = (numbered){number, copy};
    return WAN_OK;
}

/* ------------------------------------------------------------------------------------------------
 * names */

/* BEFORE digits .png: the length of BEFORE and the number; false for any other name. */
static bool split(const char *name, size_t *before, int64_t *number) {
    size_t n = strlen(name), k = strlen(ENDING);
    if (n <= k || strcasecmp(name + n - k, ENDING) != 0)
        return false;
    size_t digits = 0;
    int64_t value = 0;
    while (digits < n - k && name[n - k - digits - 1] >= '0' && name[n - k - digits - 1] <= '9')
        digits++;
    if (digits == 0 || digits > DIGITS_MAX)
        return false;
    for (size_t i = n - k - digits; i < n - k; i++)
        value = 10 * value + (name[i] - '0');
    *before = n - k - digits;
    *number = value;
    return true;
}

/* What stands before the number, from OUT-%05d.png or OUT.png, into *series for the caller to free.
 */
static wan_status series_of(const char *name, char **series, error *err) {
    const char *percent = strchr(name, '%');
    if (percent) {
        const char *d = percent + 1 + strspn(percent + 1, "0123456789");
        if (*d != 'd' || strcasecmp(d + 1, ENDING) != 0)
            return wan_fail(err, WAN_E_USAGE, "%s: a pattern is NAME%%d.png or NAME%%05d.png",
                            name);
        *series = strndup(name, (size_t)(percent - name));
    } else {
        size_t n = strlen(name) - strlen(ENDING);
        *series = strndup(name, n + 1);
        if (*series)
            (*series)[n] = '-';
    }
    return *series ? WAN_OK : no_memory(name, err);
}

/* ------------------------------------------------------------------------------------------------
 * listing */

static int by_number(const void *a, const void *b) {
    const numbered *x = a, *y = b;
    return (x->number > y->number) - (x->number < y->number);
}

/* Every numbered picture of the open folder that begins with `series`, or, when that is NULL, all
 * of them, which must begin alike. */
static wan_status list_series(pictures *p, DIR *d, const char *path, const char *series,
                              error *err) {
    size_t before, first;
    int64_t number;
    errno = 0;
    for (struct dirent *e; (e = readdir(d)) != NULL; errno = 0) {
        if (e->d_name[0] == '.' || !split(e->d_name, &before, &number))
            continue;
        if (series && (strlen(series) != before || memcmp(series, e->d_name, before) != 0))
            continue;
        if (p->count && !series && split(p->list[0].name, &first, &(int64_t){0}) &&
            (first != before || memcmp(p->list[0].name, e->d_name, before) != 0))
            return wan_fail(
                err, WAN_E_FORMAT,
                "%s: holds two series of pictures, %s and %s; name one as NAME%%05d.png", path,
                p->list[0].name, e->d_name);
        wan_status status = add(p, path, e->d_name, number, err);
        if (status != WAN_OK)
            return status;
    }
    if (errno)
        return wan_fail(err, WAN_E_IO, "%s: %s", path, strerror(errno));
    if (!p->count)
        return wan_fail(err, WAN_E_IO, "%s: no numbered PNG files there", path);
    qsort(p->list, p->count, sizeof *p->list, by_number);
    for (size_t i = 1; i < p->count; i++) {
        const numbered *a = &p->list[i - 1], *b = &p->list[i];
        if (a->number == b->number)
            return wan_fail(err, WAN_E_FORMAT, "%s: %s and %s have the same number", path, a->name,
                            b->name);
        if (a->number + 1 != b->number)
            return wan_fail(err, WAN_E_FORMAT,
                            "%s: number %" PRId64 " is missing: after %s comes %s", path,
                            a->number + 1, a->name, b->name);
    }
    return WAN_OK;
}

/* A folder, or a name that stands for numbered ones. */
static wan_status list_folder(pictures *p, const char *path, bool folder, error *err) {
    const char *slash = folder ? NULL : strrchr(path, '/');
    char *series = NULL;
    if (folder)
        p->folder = strdup(path);
    else if (slash)
        p->folder = strndup(path, slash == path ? 1 : (size_t)(slash - path));
    else
        p->folder = strdup(".");
    if (!p->folder)
        return no_memory(path, err);
    wan_status status = folder ? WAN_OK : series_of(slash ? slash + 1 : path, &series, err);
    if (status != WAN_OK)
        return status;
    DIR *d = opendir(p->folder);
    status = d ? list_series(p, d, path, series, err)
               : wan_fail(err, WAN_E_IO, "%s: %s", p->folder, strerror(errno));
    if (d)
        closedir(d);
    free(series);
    return status;
}

/* ------------------------------------------------------------------------------------------------
 * reading */

static wan_status open_picture(const pictures *p, size_t i, picture *out, error *err) {
    const char *name = p->list[i].name;
    if (!p->folder)
        return wan_picture_open(name, out, err);
    size_t room = strlen(p->folder) + strlen(name) + 2;
    char *path = malloc(room);
    if (!path)
        return no_memory(name, err);
    strcpy(stpcpy(stpcpy(path, p->folder), "/"), name);
    wan_status status = wan_picture_open(path, out, err);
    free(path);
    return status;
}

static void *pictures_open(const char *path, frames_info *info, error *err) {
    pictures *p = calloc(1, sizeof *p);
    if (!p) {
        no_memory(path, err);
        return NULL;
    }
    struct stat st;
    bool there = stat(path, &st) == 0, folder = there && S_ISDIR(st.st_mode);
    wan_status status =
        there && !folder ? add(p, path, path, 0, err) : list_folder(p, path, folder, err);
    if (status == WAN_OK)
        status = open_picture(p, 0, &p->first, err);
    if (status != WAN_OK) {
        pictures_close(p);
        return NULL;
    }
    *info = (frames_info){p->first.width, p->first.height, (int64_t)p->count,
                          strcmp(p->first.kind, "PNG") == 0};
    return p;
}

static wan_status pictures_next(void *r, uint8_t *rgb, bool *more, error *err) {
    pictures *p = r;
    *more = p->done < p->count;
    if (!*more)
        return WAN_OK;
    const picture *first = &p->first;
    picture later = {0};
    wan_status status = p->done ? open_picture(p, p->done, &later, err) : WAN_OK;
    const picture *now = p->done ? &later : first;
    if (status == WAN_OK && (now->width != first->width || now->height != first->height))
        status =
            wan_fail(err, WAN_E_FORMAT, "%s: is %dx%d, the first picture %dx%d",
                     p->list[p->done].name, now->width, now->height, first->width, first->height);
    if (status == WAN_OK)
        memcpy(rgb, now->rgb, (size_t)now->width * (size_t)now->height * 3);
    wan_picture_close(&later);
    p->done++;
    return status;
}

const frame_reader wan_reader_pictures = {pictures_open, pictures_next, pictures_close};
