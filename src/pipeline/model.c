/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/model.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pipeline/precision.h"
#include "weights/layout.h"

const char *wan_version(void) {
    return WAN_VERSION;
}

static int usable_cores(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

/* A copy, or NULL for NULL; *ok falls when memory is short. */
static char *copy(const char *text, bool *ok) {
    char *c = text ? strdup(text) : NULL;
    if (text && !c)
        *ok = false;
    return c;
}

static wan_status check_exists(const char *path, error *err) {
    struct stat st;
    if (path && stat(path, &st))
        return wan_fail(err, errno == ENOMEM ? WAN_E_MEMORY : WAN_E_IO, "%s: %s", path,
                        strerror(errno));
    return WAN_OK;
}

wan_model *wan_model_begin(const wan_model_options *o, error *err) {
    wan_model *m = calloc(1, sizeof *m);
    bool ok = m != NULL;
    if (ok) {
        m->root = copy(o->model, &ok);
        m->path[PART_DIT] = copy(o->dit, &ok);
        m->path[PART_TEXT] = copy(o->text_encoder, &ok);
        m->path[PART_VAE] = copy(o->vae, &ok);
        m->tokenizer_path = copy(o->tokenizer, &ok);
    }
    if (!ok) {
        wan_fail(err, WAN_E_MEMORY, "out of memory for a model");
        goto failed;
    }
    m->log = (logger){o->log, o->log_user};
    m->threads = o->threads > 0 ? o->threads : usable_cores();
    if (m->threads > 1024)
        m->threads = 1024;
    m->max_vram = (size_t)o->max_vram;
    m->be = wan_backend_find(o->device, &m->ordinal, err);
    if (!m->be || wan_precision_choose(m, o->precision, err) || check_exists(m->root, err) ||
        check_exists(m->tokenizer_path, err))
        goto failed;
    for (int p = 0; p < PARTS; p++)
        if (check_exists(m->path[p], err))
            goto failed;
    return m;
failed:
    wan_model_close(m);
    return NULL;
}

void wan_model_close(wan_model *m) {
    if (!m)
        return;
    wan_model_unbind(m);
    wan_tokenizer_close(m->tok);
    for (int p = 0; p < PARTS; p++) {
        wan_store_close(m->store[p]);
        free(m->path[p]);
    }
    free(m->tokenizer_path);
    free(m->root);
    free(m->defaults.negative);
    free(m->defaults.prompt);
    free(m);
}

/* ----------------------------------------------------------------------------------------------------
 * the parts */

static wan_status open_store(wan_model *m, part p, error *err) {
    char found[4096];
    const char *path = m->path[p];
    if (!path) {
        if (!m->root)
            return wan_fail(err, WAN_E_USAGE, "no model and no %s was given", wan_part_name(p));
        if (wan_layout_find(m->root, p, found, sizeof found, err))
            return err ? err->code : WAN_E_IO;
        path = found;
    }
    m->store[p] = wan_store_open(path, p, err);
    return m->store[p] ? WAN_OK : err ? err->code : WAN_E_FORMAT;
}

static wan_status open_tokenizer(wan_model *m, error *err) {
    char found[4096];
    const char *path = m->tokenizer_path;
    if (!path) {
        if (!m->root)
            return wan_fail(err, WAN_E_USAGE, "no model and no tokenizer was given");
        if (wan_layout_find_tokenizer(m->root, found, sizeof found, err))
            return err ? err->code : WAN_E_IO;
        path = found;
    }
    m->tok = wan_tokenizer_open(path, err);
    return m->tok ? WAN_OK : err ? err->code : WAN_E_FORMAT;
}

/* Reads every open part's shapes by binding it for plans, keeps the facts, and says which two parts
 * disagree, and in what: they may come from different places. */
static wan_status check_fit(wan_model *m, error *err) {
    const store *const *s = (const store *const *)m->store;
    dit *d = m->open & NEED_DIT ? wan_model_dit(m, true, err) : NULL;
    umt5 *t = !err->code && m->open & NEED_TEXT ? wan_model_text(m, true, err) : NULL;
    vae22 *v = !err->code && m->open & NEED_VAE ? wan_model_vae(m, true, err) : NULL;
    int64_t patch[3];
    if (d && !err->code) {
        wan_dit_patch(d, patch);
        m->facts.grid_x = (int)patch[2];
        m->facts.grid_y = (int)patch[1];
        m->facts.channels = wan_dit_in_channels(d);
        m->facts.text_dim = wan_dit_text_dim(d);
    }
    if (v && !err->code) {
        m->facts.spatial = wan_vae22_spatial(v);
        m->facts.temporal = wan_vae22_temporal(v);
        m->facts.channels = wan_vae22_channels(v);
        if (d && wan_dit_in_channels(d) != wan_vae22_channels(v))
            wan_fail(err, WAN_E_PARTS, "transformer %s has %lld latent channels, VAE %s has %lld",
                     wan_store_path(s[PART_DIT]), (long long)wan_dit_in_channels(d),
                     wan_store_path(s[PART_VAE]), (long long)wan_vae22_channels(v));
    }
    if (t && !err->code) {
        m->facts.text_dim = wan_umt5_dim(t);
        if (d && wan_dit_text_dim(d) != wan_umt5_dim(t))
            wan_fail(err, WAN_E_PARTS,
                     "transformer %s reads text of width %lld, text encoder %s writes %lld",
                     wan_store_path(s[PART_DIT]), (long long)wan_dit_text_dim(d),
                     wan_store_path(s[PART_TEXT]), (long long)wan_umt5_dim(t));
        if (m->tok && wan_tokenizer_pieces(m->tok) > wan_umt5_vocab(t))
            wan_fail(err, WAN_E_PARTS, "the tokenizer has %d pieces, text encoder %s embeds %lld",
                     wan_tokenizer_pieces(m->tok), wan_store_path(s[PART_TEXT]),
                     (long long)wan_umt5_vocab(t));
    }
    return err->code;
}

part wan_part_needed(unsigned need) {
    return need & NEED_DIT ? PART_DIT : need & NEED_TEXT ? PART_TEXT : PART_VAE;
}

wan_status wan_model_require(wan_model *m, unsigned need, error *err) {
    error local = {0};
    static const unsigned bit[PARTS] = {
        [PART_DIT] = NEED_DIT, [PART_TEXT] = NEED_TEXT, [PART_VAE] = NEED_VAE};
    unsigned before = m->open;
    for (int p = 0; p < PARTS && !local.code; p++)
        if (need & ~m->open & bit[p]) {
            if (!open_store(m, (part)p, &local))
                m->open |= bit[p];
        }
    if (!local.code && need & ~m->open & NEED_TOKENIZER && !open_tokenizer(m, &local))
        m->open |= NEED_TOKENIZER;
    if (!local.code && m->open != before)
        check_fit(m, &local);
    if (local.code)
        return wan_fail(err, local.code, "%s", local.message);
    return WAN_OK;
}

wan_model *wan_model_open(const wan_model_options *options, wan_error *err) {
    wan_model *m = wan_model_begin(options, err);
    if (!m)
        return NULL;
    if (wan_model_require(m, NEED_ALL, err) || wan_defaults_read(m, err)) {
        wan_model_close(m);
        return NULL;
    }
    return m;
}
