/* SPDX-License-Identifier: Apache-2.0 */
/* team.h - threads that wait for work, and take what there is.
 * Work is cut into pieces that the caller and the workers take one by one.  The caller waits only
 * for workers that are inside a piece: one that the system has not let run takes nothing and holds
 * nobody up.  So a busy machine, or an application with threads of its own, costs its share and no
 * more (docs/speed.md has OpenMP beside it).  One thread at a time may run work on a team. */
#ifndef WAN_BASE_TEAM_H
#define WAN_BASE_TEAM_H

#include <stdint.h>

#include "base/error.h"

typedef struct team team;

/* `threads` in all, the caller counted; WAN_E_MEMORY when the system will not start them. */
team *wan_team_open(int threads, error *err);
void wan_team_close(team *t);
int wan_team_threads(const team *t);

/* Items [from, to) are one piece; worker is 0 (the caller) to threads - 1. */
typedef void (*team_piece)(void *arg, int64_t from, int64_t to, int worker);

/* Calls f for pieces of `grain` items (the last may be smaller) until all of [0, n) are done.  A
 * single piece runs on the caller without waking anyone.  What a piece computes must not depend on
 * who computes it. */
void wan_team_run(team *t, int64_t n, int64_t grain, team_piece f, void *arg);

#endif
