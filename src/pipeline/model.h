/* SPDX-License-Identifier: Apache-2.0 */
/* model.h - what is behind a wan_model: the mapped parts and the defaults their files state.
 * Parts are opened when first required, so that one stage needs only its own; the device, when the
 * first stage runs.  Owned by the caller of wan_model_open. */
#ifndef WAN_PIPELINE_MODEL_H
#define WAN_PIPELINE_MODEL_H

#include "base/log.h"
#include "model/dit.h"
#include "model/umt5.h"
#include "model/vae22.h"
#include "text/tokenizer.h"
#include "weights/bind.h"

/* What `require` can ask for. */
enum { NEED_DIT = 1, NEED_TEXT = 2, NEED_VAE = 4, NEED_TOKENIZER = 8, NEED_ALL = 15 };
/* The part that a stage with that need computes with. */
part wan_part_needed(unsigned need);

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

/* Models bound to one compute; those not opened are NULL. */
typedef struct bound_parts {
    compute c; /* without scratch; the models keep its address */
    dit *dit;
    umt5 *text;
    vae22 *vae;
} bound_parts;

struct wan_model {
    char *root, *path[PARTS], *tokenizer_path; /* as the options gave them; NULL: not given */
    logger log;
    const backend *be;
    int ordinal; /* of the device */
    int threads;
    void *device;           /* NULL until a stage runs */
    bound_parts dry, alive; /* for plans; on the device */
    size_t max_vram;        /* bytes of device memory to use at most; 0: what is there */
    int pieces; /* how finely stages are cut to save scratch, 0: as the backend likes best */
    size_t resident[PARTS]; /* bytes of each part's weights on the device */
    precision precision;
    bool settle;   /* it is decided when the first stage is planned, precision.h */
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

/* bound.c: a part bound for plans or on the device of m, opened if it is not yet.  NULL and an
 * error on failure.  The part's file must be open (require). */
dit *wan_model_dit(wan_model *m, bool dry, error *err);
umt5 *wan_model_text(wan_model *m, bool dry, error *err);
vae22 *wan_model_vae(wan_model *m, bool dry, error *err);
/* Opens the device if it is not open yet. */
wan_status wan_model_device(wan_model *m, error *err);
/* Bytes of the weights of a part on a device with memory of its own, known from a dry bind. */
size_t wan_model_placed(wan_model *m, part p, error *err);
/* After a stage: gives the part's device memory back, unless the device keeps it between jobs. */
void wan_model_rest(wan_model *m, part p);
/* Gives the part's device memory back. */
void wan_model_leave(wan_model *m, part p);
/* Closes bound parts and the device. */
void wan_model_unbind(wan_model *m);

#endif
