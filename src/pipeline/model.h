/* SPDX-License-Identifier: Apache-2.0 */
/* model.h - what is behind a wan_model: the mapped parts and the defaults their files state.
 * Parts are opened when first required, so that one stage needs only its own.  Owned by the caller
 * of wan_model_open. */
#ifndef WAN_PIPELINE_MODEL_H
#define WAN_PIPELINE_MODEL_H

#include "base/log.h"
#include "text/tokenizer.h"
#include "weights/bind.h"

/* What `require` can ask for. */
enum { NEED_DIT = 1, NEED_TEXT = 2, NEED_VAE = 4, NEED_TOKENIZER = 8, NEED_ALL = 15 };

/* Settings a model's files ask for; text is owned here. */
typedef struct model_defaults {
    int width, height, frames, steps;
    double fps, guidance, shift;
    wan_sampler sampler;
    char *negative;
    char *prompt; /* an example to try; may be NULL */
} model_defaults;

/* What the parts are like, once opened; 0 until then. */
typedef struct model_facts {
    int64_t channels; /* of latents */
    int64_t text_dim;
    int spatial, temporal; /* pixels and frames per latent */
    int grid_x, grid_y;    /* width and height must be multiples */
} model_facts;

struct wan_model {
    char *root, *path[PARTS], *tokenizer_path; /* as the options gave them; NULL: not given */
    logger log;
    const backend *be;
    int threads;
    precision precision;
    unsigned open; /* NEED_ bits */
    store *store[PARTS];
    tokenizer *tok;
    model_defaults defaults;
    model_facts facts;
};

/* Remembers where the parts are; opens none.  The model path must exist. */
wan_model *wan_model_begin(const wan_model_options *options, error *err);
/* Opens the parts named by NEED_ bits that are not open yet, and checks that all open ones fit
 * together. */
wan_status wan_model_require(wan_model *m, unsigned need, error *err);

/* defaults.c: fills m->defaults from defaults.json, the scheduler's config, or the release the
 * files look like. */
wan_status wan_defaults_read(wan_model *m, error *err);

#endif
