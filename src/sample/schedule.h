/* SPDX-License-Identifier: Apache-2.0 */
/* schedule.h - the noise levels of each sampler and the times that go with them: sampling.md 2
 * and 7. Owns nothing; the caller provides both arrays. */
#ifndef WAN_SAMPLE_SCHEDULE_H
#define WAN_SAMPLE_SCHEDULE_H

#include "base/error.h"

enum { WAN_STEPS_MAX = 1000, WAN_TURBO_STEPS = 4 };

/* sigmas [steps + 1], strictly falling and 0 at the end; timesteps [steps].  WAN_E_USAGE when there
 * is no such schedule.  The Turbo samplers have levels of their own and ignore the shift. */
wan_status wan_schedule_fill(wan_sampler which, int steps, double shift, float *sigmas,
                             float *timesteps, error *err);

#endif
