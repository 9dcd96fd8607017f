/* SPDX-License-Identifier: Apache-2.0 */
#include "io/mapfile.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static wan_status check_kind(const char *path, const struct stat *st, error *err) {
    if (S_ISDIR(st->st_mode))
        return wan_fail(err, WAN_E_IO, "%s: is a folder, not a file", path);
    if (!S_ISREG(st->st_mode))
        return wan_fail(err, WAN_E_IO, "%s: is not a regular file", path);
    if (st->st_size == 0)
        return wan_fail(err, WAN_E_FORMAT, "%s: is empty", path);
    if ((uint64_t)st->st_size > SIZE_MAX)
        return wan_fail(err, WAN_E_MEMORY, "%s: %lld bytes do not fit the address space", path,
                        (long long)st->st_size);
    return WAN_OK;
}

wan_status wan_map_open(mapfile *m, const char *path, error *err) {
    *m = (mapfile){0};
    /* O_NONBLOCK: a pipe without a writer must not make us wait. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return wan_fail(err, errno == ENOMEM ? WAN_E_MEMORY : WAN_E_IO, "%s: %s", path,
                        strerror(errno));
    struct stat st;
    wan_status s = WAN_OK;
    if (fstat(fd, &st) != 0)
        s = wan_fail(err, errno == ENOMEM ? WAN_E_MEMORY : WAN_E_IO, "%s: %s", path,
                     strerror(errno));
    else
        s = check_kind(path, &st, err);
    if (s == WAN_OK) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            s = wan_fail(err, errno == ENOMEM ? WAN_E_MEMORY : WAN_E_IO,
                         "%s: cannot map %lld bytes: %s", path, (long long)st.st_size,
                         strerror(errno));
        else
            *m = (mapfile){p, (size_t)st.st_size};
    }
    close(fd);
    return s;
}

void wan_map_close(mapfile *m) {
    if (m->data)
        munmap((void *)(uintptr_t)m->data, m->size);
    *m = (mapfile){0};
}

void wan_map_drop(const mapfile *m) {
    if (m->data)
        madvise((void *)(uintptr_t)m->data, m->size, MADV_DONTNEED);
}
