/* SPDX-License-Identifier: Apache-2.0 */
/* lookup.h - names to positions, by binary search.
 * Sorting costs n log n whatever the names are, so a hostile file cannot make it slow the way it
 * can fill one bucket of a hash table.  The names stay the caller's and must outlive the lookup. */
#ifndef WAN_IO_LOOKUP_H
#define WAN_IO_LOOKUP_H

#include <stddef.h>

#include "base/error.h"

#define WAN_NOT_FOUND ((size_t)-1)

typedef struct lookup_entry {
    const char *name;
    size_t at;
} lookup_entry;

typedef struct lookup {
    lookup_entry *entry; /* sorted by name, then by position */
    size_t count, room;
} lookup;

/* Names may be added in any order, then sorted once; find works after that. */
wan_status wan_lookup_add(lookup *l, const char *name, size_t at, error *err);
/* Returns a name that occurs twice, or NULL. */
const char *wan_lookup_sort(lookup *l);
size_t wan_lookup_find(const lookup *l, const char *name);
void wan_lookup_free(lookup *l);

#endif
