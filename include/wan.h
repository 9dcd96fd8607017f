/* SPDX-License-Identifier: Apache-2.0 */
/* wan.h - video generation with the Wan models: a prompt, perhaps a first picture, and out come
 * frames.
 *
 * Open a model once, then generate any number of clips from it.  The library takes and returns raw
 * pixels, never prints, never exits and keeps no globals; two models can live side by side.  One
 * model runs one job at a time: calls on the same wan_model must not overlap, calls on different
 * models may.
 *
 * Strings are UTF-8 and stay the caller's.  Every call that can fail takes a wan_error last (may be
 * NULL). */
#ifndef WAN_H
#define WAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WAN_API __attribute__((visibility("default")))

#define WAN_VERSION "0.1.0"

/* What went wrong.  The numbers are stable: `wan` exits with them. */
typedef enum wan_status {
    WAN_OK = 0,
    WAN_E_INTERNAL = 1, /* a promise of ours was broken: please report */
    WAN_E_USAGE = 2,    /* unknown option, value out of range, contradiction */
    WAN_E_IO = 3,       /* a file is missing or cannot be read */
    WAN_E_FORMAT = 4,   /* a file is truncated, lies about itself, or is of no known kind */
    WAN_E_SHAPE =
        5, /* a tensor has another shape than the model or the command needs, or is missing */
    WAN_E_TYPE = 6,       /* a tensor is stored in a type this build cannot compute with */
    WAN_E_PARTS = 7,      /* transformer, text encoder, VAE and tokenizer do not belong together */
    WAN_E_IMAGE = 8,      /* a picture cannot be decoded or is not what its header says */
    WAN_E_TEXT = 9,       /* a prompt is not UTF-8 */
    WAN_E_OUTPUT = 10,    /* an output cannot be written */
    WAN_E_SPACE = 11,     /* an output does not fit on the disk */
    WAN_E_MEMORY = 12,    /* not enough memory */
    WAN_E_GRID = 13,      /* width, height or frame count is off the model's grid */
    WAN_E_DEVICE = 14,    /* a device is missing or failed */
    WAN_E_SELFTEST = 15,  /* results differ from the stored references */
    WAN_E_CANCELLED = 130 /* the caller asked to stop (Ctrl-C) */
} wan_status;

typedef struct wan_error {
    wan_status code;
    char message[1000]; /* one sentence, always terminated; empty when code is WAN_OK */
} wan_error;

/* A few words for a status, for instance "out of memory".  Static storage. */
WAN_API const char *wan_status_name(wan_status code);

/* "0.1.0" of the library that was loaded. */
WAN_API const char *wan_version(void);

/* ----------------------------------------------------------------------------------------------------
 * the model */

typedef enum wan_log_level { WAN_LOG_DEBUG, WAN_LOG_INFO, WAN_LOG_WARN } wan_log_level;
typedef void (*wan_log_fn)(void *user, wan_log_level level, const char *message);

/* Where the weights are.  `model` is a folder (diffusers, original or GGUF layout) or a file; the
 * others, when not NULL, replace one part of it each and may come from anywhere. */
typedef struct wan_model_options {
    const char *model;
    const char *dit;
    const char *text_encoder;
    const char *vae;
    const char *tokenizer;
    const char *device;    /* "cpu", "cuda", "cuda:1", ...; NULL or "auto": a GPU if there is one */
    /* Operands of products: "f32", "bf16", "int8" (CPU), "fp8" (GPU). NULL: f32 on a CPU, bf16 on a
     * GPU.  "auto": the fastest there is whose products are at most 1 % off on this model. */
    const char *precision;
    uint64_t max_vram;     /* bytes of GPU memory to use at most; 0: what is free */
    int threads;           /* 0: one per core this process may use */
    wan_log_fn log;        /* may be NULL */
    void *log_user;
} wan_model_options;

typedef struct wan_model wan_model;

/* Opens and checks every part; maps the weights without reading them.  NULL on failure. */
WAN_API wan_model *wan_model_open(const wan_model_options *options, wan_error *err);
WAN_API void wan_model_close(wan_model *m);

/* ----------------------------------------------------------------------------------------------------
 * one clip */

typedef enum wan_sampler {
    WAN_SAMPLER_DEFAULT = 0, /* the model's own */
    WAN_SAMPLER_UNIPC,
    WAN_SAMPLER_UNIPC_OFFICIAL,
    WAN_SAMPLER_EULER,
    WAN_SAMPLER_DPMPP,
    WAN_SAMPLER_TURBO,
    WAN_SAMPLER_TURBO_PUBLISHED
} wan_sampler;

/* Pixels, 8 bits each of R, G, B, rows top to bottom without gaps: [height, width, 3]. */
typedef struct wan_image {
    const uint8_t *rgb;
    int width, height;
} wan_image;

/* What to make.  wan_params_init sets every field to "the model's own"; zero (or NULL, or a
 * negative guidance or shift) always means that. */
typedef struct wan_params {
    const char *prompt;
    const char *negative; /* NULL: the model's own; "": empty */
    int width, height;    /* pixels; multiples of the model's grid (32 for Wan2.2 TI2V) */
    int frames;           /* 4n + 1 */
    double fps; /* frames a second, for the file and for defaults; does not change the frames */
    int steps;
    double guidance; /* classifier-free guidance; 1 turns it off and halves the work */
    double shift;    /* of the sigma schedule */
    wan_sampler sampler;
    uint64_t seed; /* noise as torch.randn(generator=torch.Generator("cpu").manual_seed(seed)) */
    const wan_image *image; /* first frame, stretched to width x height; NULL: text-to-video */
    const float *noise;     /* [C, F, h, w] instead of the seed's; NULL: from the seed */
} wan_params;

WAN_API void wan_params_init(wan_params *p);

typedef struct wan_progress {
    const char *stage;   /* "text", "encode", "denoise", "decode" */
    int step, steps;     /* done and total within the stage */
    double seconds_left; /* of the whole job, as far as known; negative: unknown yet */
} wan_progress;

/* Called from the thread that called wan_generate.  Any of them may be NULL.  A non-zero return
 * cancels the job with WAN_E_CANCELLED (`frames` may instead have failed with an error of its own,
 * which the caller keeps). */
typedef struct wan_callbacks {
    void *user;
    int (*progress)(void *user, const wan_progress *p);
    /* Polled many times a second while computing; must be quick and async-signal tolerant. */
    int (*cancelled)(void *user);
    /* Finished frames in order, as soon as they are decoded: rgb [count, height, width, 3], valid
     * during the call. */
    int (*frames)(void *user, const uint8_t *rgb, int first, int count, int width, int height);
    /* The final latents, once, before decoding: [C, F, h, w] normalised. */
    int (*latents)(void *user, const float *latents, const int64_t shape[4]);
} wan_callbacks;

/* Memory of a job, known before it runs.  Bytes. */
typedef struct wan_plan {
    uint64_t text_weights, dit_weights, vae_weights; /* of the mapped files */
    uint64_t text_scratch, encode_scratch, dit_scratch, decode_scratch;
    uint64_t fixed;   /* kernels' work space, tokenizer, small tables */
    uint64_t peak;    /* largest sum of what is alive at the same time */
    /* Of a GPU's memory, with its context; all 0 where there is none.  The host's figures above then
     * count only what passes through it. */
    uint64_t device_text, device_encode, device_dit, device_decode;
    uint64_t device_peak;
    uint64_t device_streamed; /* bytes of weights that pass through instead of staying */
    double flops;     /* multiply-adds counted twice, whole job */
    int decode_group; /* latent frames decoded at a time */
} wan_plan;

/* Every field of p filled in with what the job would use; text pointers still belong to p or to the
 * model. */
WAN_API wan_status wan_job_resolve(const wan_model *m, const wan_params *p, wan_params *resolved,
                                   wan_error *err);

/* The plan of a job, from shapes alone: no weights are read. */
WAN_API wan_status wan_job_plan(wan_model *m, const wan_params *p, wan_plan *plan, wan_error *err);

/* Runs the job.  Seconds spent in each stage come back in `seconds` (text, encode, denoise, decode)
 * if not NULL. */
WAN_API wan_status wan_generate(wan_model *m, const wan_params *p, const wan_callbacks *callbacks,
                                double seconds[4], wan_error *err);

#ifdef __cplusplus
}
#endif
#endif
