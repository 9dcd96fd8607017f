/* SPDX-License-Identifier: Apache-2.0 */
/* params.h - the one table of parameters.
 * Text becomes a field of `request` through a row of the table; the command line, the help, the man
 * page, the settings inside a clip and the command that repeats it are the same rows.  A request
 * owns nothing: its strings are whatever text was set, which must outlive it.  The table is
 * constant; a request belongs to one thread. */
#ifndef WAN_PIPELINE_PARAMS_H
#define WAN_PIPELINE_PARAMS_H

#include <stdint.h>

#include "base/error.h"

/* An exact number of frames a second. */
typedef struct rate {
    int64_t num, den; /* den > 0; num 0: not given */
} rate;

/* Everything one command was asked.  wan_request_init sets all of it to "not given". */
typedef struct request {
    wan_model_options model;
    wan_params clip; /* image and noise are filled in from the files below by whoever reads them;
                        fps from `fps` */
    rate fps;
    const char *image, *noise, *output;
    int crf; /* -1: the format's own */
    bool seed_given;
    bool json, dry_run, overwrite, quiet, no_metadata, help;

    const char *input; /* of stage */
    int64_t shape[4];  /* of stage noise; shape[0] is 0 when not given */
    bool trace;

    const char *references; /* of selftest */

    const char *weight_type;          /* of bench and convert */
    const char *recipe, *licence, *base_model; /* of convert */
    const char *synthetic, *stage;    /* of bench */
    int layers, repeat;
    double max_seconds; /* budgets of bench, with model.max_vram; 0: none */
    uint64_t max_rss;

    const char *sheet, *each; /* of quality */
    int amplify;
    double min_psnr, min_ssim, max_mae; /* bars of quality; negative: none */
} request;

typedef enum param_type {
    PARAM_FLAG,
    PARAM_TEXT, /* may be empty */
    PARAM_PATH,
    PARAM_INT,
    PARAM_REAL,
    PARAM_SEED, /* 64 bits; -1 is a random one */
    PARAM_SIZE, /* WIDTHxHEIGHT */
    PARAM_BYTES, /* 12G, 800M or a number of `min` bytes, 0 for one */
    PARAM_RATE, /* 24, 23.976 or 24000/1001 */
    PARAM_SAMPLER,
    PARAM_SHAPE /* C,F,h,w */
} param_type;

/* Which commands know a parameter. */
enum {
    FOR_GENERATE = 1,
    FOR_STAGE = 2,
    FOR_SELFTEST = 4,
    FOR_INSPECT = 8,
    FOR_BENCH = 16,
    FOR_CONVERT = 32,
    FOR_QUALITY = 64,
    FOR_DOCTOR = 128,
    FOR_ALL = 255
};

typedef struct param {
    const char *name; /* the option without its dashes */
    char letter;      /* short option or 0 */
    param_type type;
    size_t offset;       /* of the field in request */
    double min, max;     /* of numbers; of each part of a size or shape */
    const char *metavar; /* NULL for flags */
    const char *group;
    unsigned commands;
    bool repeats; /* part of what it takes to make the same clip again */
    const char *help;
} param;

void wan_request_init(request *r);

const param *wan_params_table(size_t *count);
/* NULL when no command of the set has that option. */
const param *wan_param_find(const char *name, unsigned commands);
/* The option that looks most like name, or NULL when none comes near. */
const param *wan_param_nearest(const char *name, unsigned commands);

/* Checks text and stores it.  WAN_E_USAGE names the option, the value and what is allowed.  Flags
 * ignore text. */
wan_status wan_param_set(request *r, const param *p, const char *text, error *err);

#define PARAM_TEXT_MAX 96
/* The field as wan_param_set reads it back, in buffer or where the string itself is; NULL when it
 * was not given. */
const char *wan_param_text(const request *r, const param *p, char buffer[PARAM_TEXT_MAX]);

/* The fraction a decimal number of frames a second stands for: 16 is 16/1, 23.976 is 24000/1001. */
rate wan_rate_of(double fps);
double wan_rate_value(rate r);

#endif
