/* SPDX-License-Identifier: Apache-2.0 */
#include "base/arena.h"

#include <assert.h>
#include <stdint.h>

void *wan_arena_take(arena *a, size_t bytes) {
    if (bytes > SIZE_MAX - WAN_ARENA_ALIGN)
        return NULL;
    bytes = (bytes + WAN_ARENA_ALIGN - 1) & ~(size_t)(WAN_ARENA_ALIGN - 1);
    if (bytes > a->size - a->used)
        return NULL;
    void *p = a->base + a->used;
    a->used += bytes;
    if (a->used > a->peak)
        a->peak = a->used;
    return p;
}

size_t wan_arena_mark(const arena *a) {
    return a->used;
}

void wan_arena_release(arena *a, size_t mark) {
    assert(mark <= a->used);
    a->used = mark;
}

arena wan_arena_counting(void) {
    /* Far below any real mapping and never zero, so that a stray access faults at once. */
    return (arena){.base = (char *)(uintptr_t)WAN_ARENA_ALIGN, .size = SIZE_MAX / 4};
}
