/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON files of a diffusers pipeline: what its loaders want to know, and nothing that only
 * repeats a default of theirs. */
#include "pipeline/conversion.h"

#include <stdio.h>
#include <stdlib.h>

#include "model/dit_config.h"
#include "model/umt5_config.h"
#include "model/vae22_config.h"

/* A float as few digits say it: 1e-6, not 9.99999997e-07. */
static double plain(double v) {
    char text[32];
    snprintf(text, sizeof text, "%.7g", v);
    return strtod(text, NULL);
}

static json_t *transformer(const store *s, error *err) {
    dit_config g;
    if (wan_dit_config_read(&g, s, err))
        return NULL;
    return json_pack(
        "{s:s, s:[I,I,I], s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:s, s:f, s:n, s:n, s:i}",
        "_class_name", "WanTransformer3DModel", "patch_size", (json_int_t)g.patch[0],
        (json_int_t)g.patch[1], (json_int_t)g.patch[2], "num_attention_heads", (json_int_t)g.heads,
        "attention_head_dim", (json_int_t)(g.dim / g.heads), "in_channels",
        (json_int_t)g.in_channels, "out_channels", (json_int_t)g.out_channels, "text_dim",
        (json_int_t)g.text_dim, "freq_dim", (json_int_t)g.freq, "ffn_dim", (json_int_t)g.ffn,
        "num_layers", (json_int_t)g.layers, "cross_attn_norm", 1, "qk_norm",
        "rms_norm_across_heads", "eps", plain((double)g.eps), "image_dim", "added_kv_proj_dim",
        "rope_max_seq_len", 1024);
}

static json_t *text_encoder(const store *s, error *err) {
    umt5_config g;
    if (wan_umt5_config_read(&g, s, err))
        return NULL;
    return json_pack(
        "{s:[s], s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:s, s:i, s:i, s:i, s:b}",
        "architectures", "UMT5EncoderModel", "model_type", "umt5", "vocab_size",
        (json_int_t)g.vocab, "d_model", (json_int_t)g.dim, "d_kv", (json_int_t)(g.inner / g.heads),
        "d_ff", (json_int_t)g.ffn, "num_layers", (json_int_t)g.layers, "num_decoder_layers",
        (json_int_t)g.layers, "num_heads", (json_int_t)g.heads, "relative_attention_num_buckets",
        (json_int_t)g.buckets, "relative_attention_max_distance", (json_int_t)g.max_distance,
        "layer_norm_epsilon", plain((double)g.eps), "feed_forward_proj", "gated-gelu",
        "pad_token_id", 0, "eos_token_id", 1, "decoder_start_token_id", 0, "is_encoder_decoder", 0);
}

/* As the source says it, to the digit; otherwise from the numbers in use. */
static json_t *statistics(const store *s, const char *key, const float *value, int64_t n,
                          bool inverse) {
    const json_t *config = wan_store_config(s), *inner = json_object_get(config, "vae");
    json_t *list = json_object_get(inner ? inner : config, key);
    const char *text = wan_store_meta(s, key);
    if (json_is_array(list))
        return json_incref(list);
    if (text && (list = json_loads(text, 0, NULL)))
        return list;
    list = json_array();
    for (int64_t i = 0; i < n; i++)
        json_array_append_new(list,
                              json_real(plain(inverse ? 1 / (double)value[i] : (double)value[i])));
    return list;
}

static json_t *vae(const store *s, error *err) {
    vae22_config g;
    float mean[4096], inverse[4096];
    if (wan_vae22_config_read(&g, s, err))
        return NULL;
    if (g.z > 4096) {
        wan_fail(err, WAN_E_SHAPE, "%s: %lld latent channels are too many for a folder",
                 wan_store_path(s), (long long)g.z);
        return NULL;
    }
    if (wan_vae22_statistics(s, g.z, mean, inverse, err))
        return NULL;
    json_t *mult = json_array(), *time = json_array();
    const vae22_side *e = &g.encoder;
    for (int i = 0; i < e->levels; i++) {
        json_array_append_new(mult, json_integer(e->level[i].out / e->first));
        if (i + 1 < e->levels)
            json_array_append_new(time, json_boolean(e->level[i].temporal));
    }
    int64_t last = e->levels ? e->level[0].out / e->first : 1;
    return json_pack(
        "{s:s, s:I, s:I, s:I, s:o, s:i, s:[], s:o, s:f, s:o, s:o, s:b, s:I, s:I, s:i, s:i, s:i}",
        "_class_name", "AutoencoderKLWan", "base_dim", (json_int_t)e->first, "decoder_base_dim",
        (json_int_t)(g.decoder.level[g.decoder.levels - 1].out / last), "z_dim", (json_int_t)g.z,
        "dim_mult", mult, "num_res_blocks", e->blocks, "attn_scales", "temperal_downsample", time,
        "dropout", 0.0, "latents_mean", statistics(s, "latents_mean", mean, g.z, false),
        "latents_std", statistics(s, "latents_std", inverse, g.z, true), "is_residual", 1,
        "in_channels", (json_int_t)e->in, "out_channels", (json_int_t)g.decoder.out, "patch_size",
        g.patch, "scale_factor_temporal", g.temporal, "scale_factor_spatial", g.spatial);
}

json_t *wan_convert_config(const store *s, part p, error *err) {
    json_t *j = p == PART_DIT    ? transformer(s, err)
                : p == PART_TEXT ? text_encoder(s, err)
                                 : vae(s, err);
    if (!j && !err->code)
        wan_fail(err, WAN_E_MEMORY, "%s: no memory for config.json", wan_store_path(s));
    return j;
}

json_t *wan_convert_index(const conversion *c) {
    return json_pack(
        "{s:s, s:n, s:b, s:[ss], s:[ss], s:[ss], s:[ss], s:[nn], s:[ss]}", "_class_name",
        "WanPipeline", "boundary_ratio", "expand_timesteps", 1, "scheduler", "diffusers",
        c->m->defaults.sampler == WAN_SAMPLER_EULER ? "FlowMatchEulerDiscreteScheduler"
                                                    : "UniPCMultistepScheduler",
        "text_encoder", "transformers", "UMT5EncoderModel", "tokenizer", "transformers",
        "T5TokenizerFast", "transformer", "diffusers", "WanTransformer3DModel", "transformer_2",
        "vae", "diffusers", "AutoencoderKLWan");
}

json_t *wan_convert_scheduler(const conversion *c) {
    double shift = c->m->defaults.shift;
    if (c->m->defaults.sampler == WAN_SAMPLER_EULER)
        return json_pack("{s:s, s:i, s:f}", "_class_name", "FlowMatchEulerDiscreteScheduler",
                         "num_train_timesteps", 1000, "shift", shift);
    return json_pack("{s:s, s:i, s:f, s:s, s:b, s:s}", "_class_name", "UniPCMultistepScheduler",
                     "num_train_timesteps", 1000, "flow_shift", shift, "prediction_type",
                     "flow_prediction", "use_flow_sigmas", 1, "final_sigmas_type", "zero");
}
