/* SPDX-License-Identifier: Apache-2.0 */
/* workbench.h - a folder for the clips that a test makes; one test at a time has it. */
#ifndef WAN_TESTS_WORKBENCH_H
#define WAN_TESTS_WORKBENCH_H

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[64];

static inline const char *in_folder(const char *name) {
    static char path[16][512];
    static int turn;
    char *p = path[turn++ % 16];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    return p;
}

static inline int open_folder(void **state) {
    (void)state;
    /* Every clip is synced to its disk; memory does that faster. */
    strcpy(folder,
           access("/dev/shm", W_OK) == 0 ? "/dev/shm/wan-test-XXXXXX" : "/tmp/wan-test-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

/* How many entries there are; `clean` removes them. */
static inline int entries(bool clean) {
    DIR *d = opendir(folder);
    char path[512];
    int n = 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        n++;
        if (clean)
            remove(strcat(strcat(strcpy(path, folder), "/"), e->d_name));
    }
    closedir(d);
    return n;
}

static inline int close_folder(void **state) {
    (void)state;
    entries(true);
    return rmdir(folder);
}

#endif
