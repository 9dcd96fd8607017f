/* SPDX-License-Identifier: Apache-2.0 */
#include "io/outfile.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

struct outfile {
    int fd;
    uint64_t written;  /* through wan_outfile_write */
    char *asked;       /* the caller's spelling, for messages */
    char *path, *temp; /* symbolic links followed */
    char *folder;
};

static char *folder_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash)
        return strdup(".");
    return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

/* Where the bytes will land: a link keeps pointing there, and only a regular file may be replaced.
 */
static wan_status resolve(outfile *f, error *err) {
    struct stat st;
    if (lstat(f->asked, &st) != 0) {
        if (errno != ENOENT)
            return wan_fail(err, WAN_E_OUTPUT, "%s: %s", f->asked, strerror(errno));
        f->path = strdup(f->asked);
    } else {
        if (stat(f->asked, &st) != 0)
            return wan_fail(err, WAN_E_OUTPUT, "%s: is a link that leads nowhere", f->asked);
        if (S_ISDIR(st.st_mode))
            return wan_fail(err, WAN_E_OUTPUT, "%s: is a folder", f->asked);
        if (!S_ISREG(st.st_mode))
            return wan_fail(err, WAN_E_OUTPUT, "%s: is not a regular file", f->asked);
        f->path = realpath(f->asked, NULL);
    }
    f->folder = f->path ? folder_of(f->path) : NULL;
    if (!f->folder)
        return wan_fail(err, WAN_E_MEMORY, "%s: no memory for its name", f->asked);
    return WAN_OK;
}

/* .NAME.PID.tmp, with a number when another outfile of this process holds that one. */
static wan_status create_temp(outfile *f, error *err) {
    const char *slash = strrchr(f->path, '/'), *name = slash ? slash + 1 : f->path;
    size_t before = (size_t)(name - f->path), room = before + strlen(name) + 64;
    f->temp = malloc(room);
    if (!f->temp)
        return wan_fail(err, WAN_E_MEMORY, "%s: no memory for its name", f->asked);
    /* The suffix must fit where the name itself only just fits. */
    int keep = strlen(name) > NAME_MAX - 32 ? NAME_MAX - 32 : (int)strlen(name);
    for (int n = 0; n < 1000 && f->fd < 0; n++) {
        int at = snprintf(f->temp, room, "%.*s.%.*s.%ld", (int)before, f->path, keep, name,
                          (long)getpid());
        if (n)
            at += snprintf(f->temp + at, room - (size_t)at, ".%d", n);
        snprintf(f->temp + at, room - (size_t)at, ".tmp");
        f->fd = open(f->temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (f->fd < 0 && errno != EEXIST)
            break;
    }
    if (f->fd < 0)
        return wan_outfile_fault(f, errno, err);
    return WAN_OK;
}

static void discard(outfile *f) {
    if (f->fd >= 0)
        close(f->fd);
    free(f->asked);
    free(f->path);
    free(f->temp);
    free(f->folder);
    free(f);
}

outfile *wan_outfile_open(const char *path, error *err) {
    outfile *f = calloc(1, sizeof *f);
    if (!f || !(f->asked = strdup(path))) {
        free(f);
        wan_fail(err, WAN_E_MEMORY, "%s: no memory to write it", path);
        return NULL;
    }
    f->fd = -1;
    size_t n = strlen(path);
    wan_status s = WAN_OK;
    if (n == 0 || path[n - 1] == '/')
        s = wan_fail(err, WAN_E_OUTPUT, "'%s': an output needs a file name", path);
    if (s == WAN_OK)
        s = resolve(f, err);
    if (s == WAN_OK)
        s = create_temp(f, err);
    if (s == WAN_OK)
        return f;
    discard(f);
    return NULL;
}

int wan_outfile_fd(const outfile *f) {
    return f->fd;
}

const char *wan_outfile_temp(const outfile *f) {
    return f->temp;
}

/* Bytes so far, whoever wrote them: a muxer writes past us. */
static uint64_t reached(const outfile *f) {
    struct stat st;
    if (f->fd >= 0 && fstat(f->fd, &st) == 0 && (uint64_t)st.st_size > f->written)
        return (uint64_t)st.st_size;
    return f->written;
}

wan_status wan_outfile_fault(const outfile *f, int errno_value, error *err) {
    unsigned long long at = reached(f);
    struct statvfs fs;
    unsigned long long left = 0;
    if (statvfs(f->folder, &fs) == 0)
        left = (unsigned long long)fs.f_bavail * fs.f_frsize;
    switch (errno_value) {
    case ENOSPC:
        return wan_fail(err, WAN_E_SPACE, "%s: the disk is full after %llu bytes (%llu free)",
                        f->asked, at, left);
    case EDQUOT:
        return wan_fail(err, WAN_E_SPACE,
                        "%s: the disk quota is used up after %llu bytes (%llu free on the disk)",
                        f->asked, at, left);
    case EFBIG:
        return wan_fail(err, WAN_E_SPACE,
                        "%s: the largest file allowed is reached after %llu bytes", f->asked, at);
    default:
        return wan_fail(err, WAN_E_OUTPUT, "%s: cannot write it: %s (after %llu bytes)", f->asked,
                        errno_value ? strerror(errno_value) : "unknown reason", at);
    }
}

wan_status wan_outfile_write(outfile *f, const void *data, size_t size, error *err) {
    const char *p = data;
    while (size > 0) {
        ssize_t n = write(f->fd, p, size < (1u << 30) ? size : 1u << 30);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return wan_outfile_fault(f, n < 0 ? errno : ENOSPC, err);
        p += n;
        size -= (size_t)n;
        f->written += (uint64_t)n;
    }
    return WAN_OK;
}

uint64_t wan_outfile_size(const outfile *f) {
    return f->written;
}

wan_status wan_outfile_patch(outfile *f, const void *data, size_t size, uint64_t at, error *err) {
    assert(at <= f->written && size <= f->written - at);
    const char *p = data;
    while (size > 0) {
        ssize_t n = pwrite(f->fd, p, size < (1u << 30) ? size : 1u << 30, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return wan_outfile_fault(f, n < 0 ? errno : ENOSPC, err);
        p += n;
        at += (uint64_t)n;
        size -= (size_t)n;
    }
    return WAN_OK;
}

/* After the rename the file is there; a file system that cannot sync a folder (EINVAL) is no reason
 * to fail. */
static int sync_folder(const char *folder) {
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    int failed = fsync(fd) != 0 && errno != EINVAL && errno != EROFS ? errno : 0;
    close(fd);
    return failed;
}

wan_status wan_outfile_commit(outfile *f, error *err) {
    int failed = 0;
    if (fsync(f->fd) != 0 && errno != EINVAL)
        failed = errno;
    if (!failed && rename(f->temp, f->path) != 0)
        failed = errno;
    if (failed) {
        wan_status s = wan_outfile_fault(f, failed, err);
        wan_outfile_abort(f);
        return s;
    }
    wan_status s = WAN_OK;
    if ((failed = sync_folder(f->folder)) != 0)
        s = wan_outfile_fault(f, failed, err);
    discard(f);
    return s;
}

void wan_outfile_abort(outfile *f) {
    if (!f)
        return;
    if (f->temp && f->fd >= 0)
        unlink(f->temp);
    discard(f);
}
