/* SPDX-License-Identifier: Apache-2.0 */
/* arena.h - scratch memory that is taken in order and given back by scope.
 * The arena owns one range of device memory, reserved once with the size the plan asked for; it
 * never grows.  A plan is made with an arena that has no memory at all and only counts.  Not
 * thread-safe: the model's thread alone uses it. */
#ifndef WAN_BASE_ARENA_H
#define WAN_BASE_ARENA_H

#include <stddef.h>

#define WAN_ARENA_ALIGN 256 /* what cuBLAS asks of its work space */

typedef struct arena {
    char *base; /* from the backend's alloc; in a counting arena an address nobody may touch */
    size_t size, used, peak;
} arena;

/* NULL when the arena is full.  Sizes are rounded up to WAN_ARENA_ALIGN. */
void *wan_arena_take(arena *a, size_t bytes);
size_t wan_arena_mark(const arena *a);
void wan_arena_release(arena *a, size_t mark);

/* An arena that hands out addresses but has no memory behind them. */
arena wan_arena_counting(void);

#endif
