/* SPDX-License-Identifier: Apache-2.0 */
/* selftest.h - a model's chain against answers of the reference that are stored with it.
 * References are safetensors files (tools/golden/make_selftest.py): inputs and expected outputs of
 * one stage, with the stage, its options and the allowed relative L2 errors in the metadata. */
#ifndef WAN_PIPELINE_SELFTEST_H
#define WAN_PIPELINE_SELFTEST_H

#include "wan.h"

/* One compared tensor: error and what is allowed are relative L2, or the number of values that
 * differ (allowed 0). */
typedef void (*selftest_line)(void *user, const char *stage, const char *tensor, double error,
                              double allowed, bool ok);

/* All files of `folder` in order of their names.  NULL: the folder selftest/ of the model.
 * WAN_E_SELFTEST if anything is further off than allowed: eight-bit weights are held to the 8-bit
 * tolerance, others to the float32 one. */
wan_status wan_selftest(wan_model *m, const char *folder, selftest_line line, void *user,
                        wan_error *err);

#endif
