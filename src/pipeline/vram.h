/* SPDX-License-Identifier: Apache-2.0 */
/* vram.h - how a stage fits into the memory of a device that has its own.
 * From a dry run's scratch and a dry bind's bytes; the device does what this says, so the plan is
 * what happens. */
#ifndef WAN_PIPELINE_VRAM_H
#define WAN_PIPELINE_VRAM_H

#include "pipeline/model.h"

typedef struct vram_fit {
    bool fits;
    bool alone;      /* weights of other parts must leave first */
    size_t resident; /* bytes of this part's weights that stay */
    size_t stay;     /* of these, of weights that could pass through */
    size_t streamed; /* bytes of weights that pass through at every use */
    size_t slots;    /* bytes of the slots they pass through */
    size_t peak;     /* all of it with the context, scratch and what else stays */
    size_t least;    /* smallest number that would fit */
} vram_fit;

/* Cuts m's stages more and more finely, beginning with not at all, until `attempt` finds every one
 * whole on the device, or no finer cut is left; the last attempt's findings count. */
typedef wan_status (*vram_attempt)(void *arg, bool *whole, error *err);
wan_status wan_vram_settle(wan_model *m, vram_attempt attempt, void *arg, error *err);
/* Sets c's pieces as m->pieces says. */
void wan_vram_cut(const wan_model *m, compute *c);

/* Part p with that much scratch beside the `resident` bytes of other parts, in m->max_vram or,
 * where that is 0, what is there. */
wan_status wan_vram_fit(wan_model *m, part p, size_t scratch, const size_t resident[PARTS],
                        vram_fit *fit, error *err);
wan_status wan_vram_refuse(const wan_model *m, part p, const vram_fit *fit, error *err);
/* Makes it so on the open device: others leave, the part is bound anew if it must. */
wan_status wan_vram_apply(wan_model *m, part p, size_t scratch, error *err);

#endif
