/* SPDX-License-Identifier: Apache-2.0 */
#include "io/outfolder.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct outfolder {
    char *path, *temp; /* without a slash at the end */
};

static void discard(outfolder *f) {
    free(f->path);
    free(f->temp);
    free(f);
}

/* PATH may end in slashes, as folders do on a command line. */
static wan_status set_names(outfolder *f, const char *path, error *err) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    f->path = strndup(path, n);
    if (!f->path)
        return wan_fail(err, WAN_E_MEMORY, "%s: no memory for its name", path);
    const char *slash = strrchr(f->path, '/'), *name = slash ? slash + 1 : f->path;
    if (!*name || !strcmp(name, ".") || !strcmp(name, ".."))
        return wan_fail(err, WAN_E_OUTPUT, "'%s': a new folder needs a name", path);
    if (asprintf(&f->temp, "%.*s.%.200s.%ld.tmp", (int)(name - f->path), f->path, name,
                 (long)getpid()) < 0) {
        f->temp = NULL;
        return wan_fail(err, WAN_E_MEMORY, "%s: no memory for its name", path);
    }
    return WAN_OK;
}

static bool is_empty(const char *folder) {
    int entries = 0;
    DIR *d = opendir(folder);
    while (d && readdir(d))
        entries++; /* with . and .. */
    if (d)
        closedir(d);
    return d && entries <= 2;
}

outfolder *wan_outfolder_open(const char *path, error *err) {
    struct stat st;
    outfolder *f = calloc(1, sizeof *f);
    wan_status s = f ? set_names(f, path, err)
                     : wan_fail(err, WAN_E_MEMORY, "%s: no memory to write it", path);
    if (!s && lstat(f->path, &st) == 0) {
        if (!S_ISDIR(st.st_mode))
            s = wan_fail(err, WAN_E_OUTPUT, "%s exists and is no folder", f->path);
        else if (!is_empty(f->path))
            s = wan_fail(err, WAN_E_OUTPUT, "%s exists and is not empty; name a new folder",
                         f->path);
    }
    if (!s && mkdir(f->temp, 0777) != 0)
        s = wan_fail(err, WAN_E_OUTPUT, "%s: cannot make the folder: %s", f->path, strerror(errno));
    if (!s)
        return f;
    if (f)
        discard(f);
    return NULL;
}

wan_status wan_outfolder_place(const outfolder *f, const char *name, char *path, size_t size,
                               error *err) {
    const char *slash = strrchr(name, '/');
    int n = snprintf(path, size, "%s/%.*s", f->temp, slash ? (int)(slash - name) : 0, name);
    if (n < 0 || (size_t)n >= size || (size_t)n + strlen(name) >= size)
        return wan_fail(err, WAN_E_OUTPUT, "%s: its path is too long", f->path);
    if (slash && mkdir(path, 0777) != 0 && errno != EEXIST)
        return wan_fail(err, WAN_E_OUTPUT, "%s: cannot make %s: %s", f->path, name,
                        strerror(errno));
    snprintf(path, size, "%s/%s", f->temp, name);
    return WAN_OK;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at) {
    (void)st;
    (void)kind;
    (void)at;
    remove(path);
    return 0;
}

wan_status wan_outfolder_commit(outfolder *f, error *err) {
    if (rename(f->temp, f->path) != 0) {
        wan_status s = wan_fail(err, WAN_E_OUTPUT, "%s: cannot give the folder its name: %s",
                                f->path, strerror(errno));
        wan_outfolder_abort(f);
        return s;
    }
    discard(f);
    return WAN_OK;
}

void wan_outfolder_abort(outfolder *f) {
    if (!f)
        return;
    nftw(f->temp, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    discard(f);
}
