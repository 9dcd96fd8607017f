/* SPDX-License-Identifier: Apache-2.0 */
/* rules.h - what single tensors become, as the user of `wan convert` says it (--recipe).
 * PATTERN=TYPE, one a line of a file, or on the command line with commas between them.  A pattern
 * is a name of `wan inspect` with the part in front (text_encoder., vae., nothing) in which * and ?
 * stand for anything; of several that fit, the last one counts.  One thread. */
#ifndef WAN_PIPELINE_RULES_H
#define WAN_PIPELINE_RULES_H

#include <stdbool.h>

#include "base/error.h"
#include "tensor/tensor.h"

typedef struct rules rules;

/* A type as `wan` calls it on the command line: q8_0, bf16, fp8, int8, ...  false: none. */
bool wan_type_find(const char *name, dtype *type);

/* `text` is a file, if there is one of that name; otherwise the rules themselves. */
rules *wan_rules_open(const char *text, error *err);
void wan_rules_close(rules *r);
/* False: no rule fits.  *type is WAN_DTYPES for "keep". */
bool wan_rules_find(rules *r, const char *name, dtype *type);
/* A pattern that fitted no name asked for so far, or NULL. */
const char *wan_rules_unused(const rules *r);

#endif
