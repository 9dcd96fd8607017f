/* SPDX-License-Identifier: Apache-2.0 */
/* precision.h - which arithmetic a model's matrix products are computed in.
 * "auto" takes the fastest of the device whose error on this model is small enough.  On a CPU it
 * looks: some of the transformer's matrices, from its first, middle and last block, are multiplied
 * with normal random rows in float32 and in each candidate; the largest relative L2 difference
 * counts. */
#ifndef WAN_PIPELINE_PRECISION_H
#define WAN_PIPELINE_PRECISION_H

#include "pipeline/model.h"

/* What a product may be off: as much as 8-bit weights are from what they were made of. */
#define WAN_PRECISION_BOUND 0.01

const char *wan_precision_name(precision p);
/* What "auto" would rather take if it is accurate enough; NULL: the model's is as fast as any. */
const char *wan_precision_faster(const wan_model *m);
/* Sets m->precision from a name, NULL for the device's own; "auto" may be left to settle. */
wan_status wan_precision_choose(wan_model *m, const char *name, error *err);
/* Before a stage is planned: decides what "auto" left open, and says so in the log. */
wan_status wan_precision_settle(wan_model *m, error *err);

#endif
