/* SPDX-License-Identifier: Apache-2.0 */
/* conversion.h - one run of `wan convert`, between its files: what goes in (convert_plan.c), what
 * is said about it (convert_meta.c, convert_config.c), and how the bytes get there (convert.c). One
 * thread; workers only quantise. */
#ifndef WAN_PIPELINE_CONVERSION_H
#define WAN_PIPELINE_CONVERSION_H

#include "base/team.h"
#include "io/gguf_write.h"
#include "io/safetensors.h"
#include "pipeline/convert.h"
#include "pipeline/rules.h"
#include "text/utf8.h"

/* What the ending of the new file's name asks for. */
typedef enum package {
    PACKAGE_GGUF,        /* one file of all parts */
    PACKAGE_SAFETENSORS, /* likewise */
    PACKAGE_FOLDER       /* as diffusers has it: a file for each part, config.json, spiece.model */
} package;

/* A tensor of the new file.  Without `s` it is the scales of the one after it in file order, or,
 * with `bytes`, the tokenizer. */
typedef struct entry {
    char *name; /* in the new file; owned */
    part part;
    const stored *s;
    const void *bytes;
    tensor t;      /* type and shape in the new file */
    size_t scales; /* entry that takes the scales of this one's rows; 0: none */
    uint64_t at;   /* where its data began */
    bool as_it_is; /* the stored bytes go over unchanged */
} entry;

typedef struct conversion {
    wan_model *m;
    const convert_options *o;
    package kind;
    rules *rules;
    entry *entry; /* file order; [0] is none */
    size_t entries, room;
    text_out spiece; /* the tokenizer for safetensors; empty: there is none */
    uint64_t total;  /* bytes to be read */
    size_t foreign;  /* tensors of types that the new file cannot have */

    team *team;
    uint64_t done, since_drop; /* bytes read, in all and since pages were given back */
    float *values;             /* [threads, CONVERT_VALUES] */
    char *packed;              /* the block in its new type */
    size_t packed_room;
    float *scale; /* of the rows of the tensor in hand */
} conversion;

/* Values of a block of rows on their way through f32. */
#define CONVERT_VALUES (1 << 20)

package wan_package_of(const char *path);
/* What "--type" makes impossible in that kind of file. */
wan_status wan_package_check(package kind, const char *path, const char *recipe, error *err);

/* Fills entry, total and foreign from the open parts.  Names are those of one file of all parts. */
wan_status wan_convert_plan(conversion *c, error *err);
void wan_convert_plan_free(conversion *c);

/* Where the tokenizer lies, or NULL; `room` keeps the path. */
const char *wan_convert_tokenizer(const conversion *c, char room[4096]);
/* The model's defaults as defaults.json has them; the caller owns it. */
json_t *wan_convert_defaults(const conversion *c);
/* Everything that is said about the model as text: key -> string.  The caller owns it. */
json_t *wan_convert_strings(const conversion *c);
wan_status wan_convert_gguf_metadata(const conversion *c, gguf_writer *w, error *err);

/* config.json of a part as diffusers and transformers write it; the caller owns it. */
json_t *wan_convert_config(const store *s, part p, error *err);
/* model_index.json and scheduler/scheduler_config.json, likewise. */
json_t *wan_convert_index(const conversion *c);
json_t *wan_convert_scheduler(const conversion *c);

#endif
