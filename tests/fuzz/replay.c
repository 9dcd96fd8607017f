/* SPDX-License-Identifier: Apache-2.0 */
/* replay.c - runs a fuzz target once on every file of the folders it is given, and on nothing at
 * all. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The input in a block of just its size, so that a sanitizer sees a read past the end. */
static int replay_file(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END))
        return -1;
    long size = ftell(f);
    uint8_t *data = size >= 0 ? malloc((size_t)size) : NULL;
    rewind(f);
    if (size < 0 || (size > 0 && (!data || fread(data, 1, (size_t)size, f) != (size_t)size))) {
        fclose(f);
        free(data);
        return -1;
    }
    fclose(f);
    LLVMFuzzerTestOneInput(data, (size_t)size);
    free(data);
    return 0;
}

static int replay_folder(const char *folder, int *count) {
    DIR *d = opendir(folder);
    if (!d) {
        perror(folder);
        return -1;
    }
    for (struct dirent *e; (e = readdir(d));) {
        char path[4096];
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (replay_file(path)) {
            perror(path);
            closedir(d);
            return -1;
        }
        ++*count;
    }
    closedir(d);
    return 0;
}

int main(int argc, char **argv) {
    int count = 0;
    LLVMFuzzerTestOneInput(NULL, 0);
    for (int i = 1; i < argc; i++)
        if (replay_folder(argv[i], &count))
            return 1;
    printf("%d inputs\n", count);
    return count == 0; /* an empty corpus tests nothing */
}
