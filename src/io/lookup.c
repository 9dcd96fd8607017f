/* SPDX-License-Identifier: Apache-2.0 */
#include "io/lookup.h"

#include <stdlib.h>
#include <string.h>

wan_status wan_lookup_add(lookup *l, const char *name, size_t at, error *err) {
    if (l->count == l->room) {
        size_t room = l->room ? 2 * l->room : 64;
        lookup_entry *entry = realloc(l->entry, room * sizeof *entry);
        if (!entry)
            return wan_fail(err, WAN_E_MEMORY, "no memory for %zu names", room);
        l->entry = entry;
        l->room = room;
    }
    l->entry[l->count++] = (lookup_entry){name, at};
    return WAN_OK;
}

static int by_name(const void *a, const void *b) {
    const lookup_entry *x = a, *y = b;
    int c = strcmp(x->name, y->name);
    return c ? c : (x->at > y->at) - (x->at < y->at);
}

const char *wan_lookup_sort(lookup *l) {
    if (l->count > 1)
        qsort(l->entry, l->count, sizeof *l->entry, by_name);
    for (size_t i = 1; i < l->count; i++)
        if (!strcmp(l->entry[i - 1].name, l->entry[i].name))
            return l->entry[i].name;
    return NULL;
}

size_t wan_lookup_find(const lookup *l, const char *name) {
    size_t from = 0, to = l->count;
    while (from < to) {
        size_t mid = from + (to - from) / 2;
        int c = strcmp(l->entry[mid].name, name);
        if (c == 0)
            return l->entry[mid].at;
        if (c < 0)
            from = mid + 1;
        else
            to = mid;
    }
    return WAN_NOT_FOUND;
}

void wan_lookup_free(lookup *l) {
    free(l->entry);
    *l = (lookup){0};
}
