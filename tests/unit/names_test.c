/* SPDX-License-Identifier: Apache-2.0 */
#include "files.h"

#include "weights/names.h"

typedef struct pair {
    const char *theirs, *ours;
} pair;

static void expect_pairs(const pair *p, size_t n, part which, layout from) {
    for (size_t i = 0; i < n; i++) {
        char out[256];
        wan_name_translate(p[i].theirs, which, from, out, sizeof out);
        if (strcmp(out, p[i].ours))
            fail_msg("%s became %s, expected %s", p[i].theirs, out, p[i].ours);
    }
}
#define EXPECT(table, which, from) expect_pairs(table, sizeof table / sizeof table[0], which, from)

/* The way back.  An embedding's second name is not used for writing. */
static void expect_back(const pair *p, size_t n, part which) {
    for (size_t i = 0; i < n; i++) {
        char out[256];
        wan_name_diffusers(p[i].ours, which, out, sizeof out);
        if (strcmp(out, p[i].theirs) && strncmp(p[i].theirs, "encoder.embed", 13))
            fail_msg("%s became %s, expected %s", p[i].ours, out, p[i].theirs);
    }
}
#define EXPECT_BACK(table, which) expect_back(table, sizeof table / sizeof table[0], which)

/* dit.md 4.3, row by row. */
static void transformer(void **state) {
    (void)state;
    static const pair diffusers[] = {
        {"patch_embedding.weight", "patch_embedding.weight"},
        {"condition_embedder.time_embedder.linear_1.weight", "time_embedding.0.weight"},
        {"condition_embedder.time_embedder.linear_2.bias", "time_embedding.2.bias"},
        {"condition_embedder.time_proj.weight", "time_projection.1.weight"},
        {"condition_embedder.text_embedder.linear_1.bias", "text_embedding.0.bias"},
        {"condition_embedder.text_embedder.linear_2.weight", "text_embedding.2.weight"},
        {"condition_embedder.image_embedder.norm1.weight", "img_emb.proj.0.weight"},
        {"condition_embedder.image_embedder.ff.net.0.proj.weight", "img_emb.proj.1.weight"},
        {"condition_embedder.image_embedder.ff.net.2.bias", "img_emb.proj.3.bias"},
        {"condition_embedder.image_embedder.norm2.bias", "img_emb.proj.4.bias"},
        {"condition_embedder.image_embedder.pos_embed", "img_emb.emb_pos"},
        {"blocks.29.scale_shift_table", "blocks.29.modulation"},
        {"blocks.0.attn1.to_q.weight", "blocks.0.self_attn.q.weight"},
        {"blocks.0.attn1.to_k.bias", "blocks.0.self_attn.k.bias"},
        {"blocks.0.attn1.to_v.weight", "blocks.0.self_attn.v.weight"},
        {"blocks.0.attn1.to_out.0.weight", "blocks.0.self_attn.o.weight"},
        {"blocks.0.attn1.norm_q.weight", "blocks.0.self_attn.norm_q.weight"},
        {"blocks.0.attn1.norm_k.weight", "blocks.0.self_attn.norm_k.weight"},
        {"blocks.12.attn2.to_q.weight", "blocks.12.cross_attn.q.weight"},
        {"blocks.12.attn2.to_k.weight", "blocks.12.cross_attn.k.weight"},
        {"blocks.12.attn2.to_v.weight", "blocks.12.cross_attn.v.weight"},
        {"blocks.12.attn2.to_out.0.bias", "blocks.12.cross_attn.o.bias"},
        {"blocks.12.attn2.norm_q.weight", "blocks.12.cross_attn.norm_q.weight"},
        {"blocks.0.attn2.add_k_proj.weight", "blocks.0.cross_attn.k_img.weight"},
        {"blocks.0.attn2.add_v_proj.bias", "blocks.0.cross_attn.v_img.bias"},
        {"blocks.0.attn2.norm_added_k.weight", "blocks.0.cross_attn.norm_k_img.weight"},
        {"blocks.0.norm2.weight", "blocks.0.norm3.weight"},
        {"blocks.0.ffn.net.0.proj.weight", "blocks.0.ffn.0.weight"},
        {"blocks.0.ffn.net.2.bias", "blocks.0.ffn.2.bias"},
        {"scale_shift_table", "head.modulation"},
        {"proj_out.weight", "head.head.weight"},
        {"unheard.of", "unheard.of"},
        {"blocks.x.scale_shift_table", "blocks.x.scale_shift_table"},
        {"blocks..scale_shift_table", "blocks..scale_shift_table"},
        {"blocks.0.scale_shift_table.more", "blocks.0.scale_shift_table.more"},
        {"scale_shift_tabl", "scale_shift_tabl"},
    };
    static const pair original[] = {
        {"blocks.0.norm3.weight", "blocks.0.norm3.weight"},
        {"model.diffusion_model.head.modulation", "head.modulation"},
        {"diffusion_model.head.modulation", "head.modulation"},
        {"model.head.modulation", "head.modulation"},
        {"net.head.modulation", "head.modulation"},
        {"model", "model"},
    };
    EXPECT(diffusers, PART_DIT, LAYOUT_DIFFUSERS);
    EXPECT_BACK(diffusers, PART_DIT);
    EXPECT(original, PART_DIT, LAYOUT_ORIGINAL);
    EXPECT(original, PART_DIT, LAYOUT_GGUF);
}

/* text.md 1.6 */
static void text_encoder(void **state) {
    (void)state;
    static const pair diffusers[] = {
        {"shared.weight", "token_embedding.weight"},
        {"encoder.embed_tokens.weight", "token_embedding.weight"},
        {"encoder.block.23.layer.0.layer_norm.weight", "blocks.23.norm1.weight"},
        {"encoder.block.0.layer.0.SelfAttention.q.weight", "blocks.0.attn.q.weight"},
        {"encoder.block.0.layer.0.SelfAttention.o.weight", "blocks.0.attn.o.weight"},
        {"encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
         "blocks.0.pos_embedding.embedding.weight"},
        {"encoder.block.0.layer.1.layer_norm.weight", "blocks.0.norm2.weight"},
        {"encoder.block.0.layer.1.DenseReluDense.wi_0.weight", "blocks.0.ffn.gate.0.weight"},
        {"encoder.block.0.layer.1.DenseReluDense.wi_1.weight", "blocks.0.ffn.fc1.weight"},
        {"encoder.block.0.layer.1.DenseReluDense.wo.weight", "blocks.0.ffn.fc2.weight"},
        {"encoder.final_layer_norm.weight", "norm.weight"},
    };
    static const pair gguf[] = {
        {"token_embd.weight", "token_embedding.weight"},
        {"enc.blk.23.attn_norm.weight", "blocks.23.norm1.weight"},
        {"enc.blk.0.attn_q.weight", "blocks.0.attn.q.weight"},
        {"enc.blk.0.attn_k.weight", "blocks.0.attn.k.weight"},
        {"enc.blk.0.attn_v.weight", "blocks.0.attn.v.weight"},
        {"enc.blk.0.attn_o.weight", "blocks.0.attn.o.weight"},
        {"enc.blk.0.attn_rel_b.weight", "blocks.0.pos_embedding.embedding.weight"},
        {"enc.blk.0.ffn_norm.weight", "blocks.0.norm2.weight"},
        {"enc.blk.0.ffn_gate.weight", "blocks.0.ffn.gate.0.weight"},
        {"enc.blk.0.ffn_up.weight", "blocks.0.ffn.fc1.weight"},
        {"enc.blk.0.ffn_down.weight", "blocks.0.ffn.fc2.weight"},
        {"enc.output_norm.weight", "norm.weight"},
    };
    EXPECT(diffusers, PART_TEXT, LAYOUT_DIFFUSERS);
    EXPECT_BACK(diffusers, PART_TEXT);
    EXPECT(gguf, PART_TEXT, LAYOUT_GGUF);
}

/* vae.md 5.1 and 5.2, with the resampler under its role. */
static void vae(void **state) {
    (void)state;
    static const pair diffusers[] = {
        {"quant_conv.weight", "conv1.weight"},
        {"post_quant_conv.bias", "conv2.bias"},
        {"encoder.conv_in.weight", "encoder.conv1.weight"},
        {"decoder.conv_out.bias", "decoder.head.2.bias"},
        {"decoder.norm_out.gamma", "decoder.head.0.gamma"},
        {"encoder.mid_block.resnets.0.norm1.gamma", "encoder.middle.0.residual.0.gamma"},
        {"encoder.mid_block.resnets.1.conv2.weight", "encoder.middle.2.residual.6.weight"},
        {"decoder.mid_block.attentions.0.norm.gamma", "decoder.middle.1.norm.gamma"},
        {"decoder.mid_block.attentions.0.to_qkv.weight", "decoder.middle.1.to_qkv.weight"},
        {"encoder.down_blocks.1.resnets.0.conv_shortcut.weight",
         "encoder.downsamples.1.downsamples.0.shortcut.weight"},
        {"encoder.down_blocks.3.resnets.1.conv1.bias",
         "encoder.downsamples.3.downsamples.1.residual.2.bias"},
        {"encoder.down_blocks.3.resnets.1.norm2.gamma",
         "encoder.downsamples.3.downsamples.1.residual.3.gamma"},
        {"decoder.up_blocks.2.resnets.10.conv2.bias",
         "decoder.upsamples.2.upsamples.10.residual.6.bias"},
        {"encoder.down_blocks.1.downsampler.resample.1.weight",
         "encoder.downsamples.1.resample.weight"},
        {"encoder.down_blocks.1.downsampler.time_conv.weight",
         "encoder.downsamples.1.time_conv.weight"},
        {"decoder.up_blocks.0.upsampler.resample.1.bias", "decoder.upsamples.0.resample.bias"},
        {"decoder.up_blocks.0.upsampler.time_conv.bias", "decoder.upsamples.0.time_conv.bias"},
        {"decoder.up_blocks.0.resnets.0.unknown", "decoder.upsamples.0.upsamples.0.unknown"},
    };
    static const pair original[] = {
        {"conv1.weight", "conv1.weight"},
        {"first_stage_model.conv1.weight", "conv1.weight"},
        {"decoder.upsamples.0.upsamples.0.residual.0.gamma",
         "decoder.upsamples.0.upsamples.0.residual.0.gamma"},
        {"decoder.upsamples.0.upsamples.3.resample.1.weight",
         "decoder.upsamples.0.resample.weight"},
        {"decoder.upsamples.0.upsamples.3.time_conv.weight",
         "decoder.upsamples.0.time_conv.weight"},
        {"encoder.downsamples.2.downsamples.2.resample.1.bias",
         "encoder.downsamples.2.resample.bias"},
        {"encoder.downsamples.2.downsamples.2.time_conv.bias",
         "encoder.downsamples.2.time_conv.bias"},
    };
    EXPECT(diffusers, PART_VAE, LAYOUT_DIFFUSERS);
    EXPECT_BACK(diffusers, PART_VAE);
    EXPECT(original, PART_VAE, LAYOUT_ORIGINAL);
}

/* formats.md 7.3 */
static void mlx(void **state) {
    (void)state;
    static const pair transformer_names[] = {
        {"blocks.3.ffn.net.0.weight", "blocks.3.ffn.0.weight"},
        {"blocks.3.ffn.net.0.scales", "blocks.3.ffn.0.scales"},
        {"blocks.3.ffn.net.1.bias", "blocks.3.ffn.2.bias"},
        {"blocks.3.attn1.to_q.biases", "blocks.3.self_attn.q.biases"},
        {"condition_embedder.time_proj.weight", "time_projection.1.weight"},
        {"scale_shift_table", "head.modulation"},
        {"rope.freqs_cos", "rope.freqs_cos"},
    };
    static const pair vae_names[] = {
        {"quant_conv.conv3d.weight", "conv1.weight"},
        {"post_quant_conv.conv3d.bias", "conv2.bias"},
        {"encoder.conv_in.conv3d.weight", "encoder.conv1.weight"},
        {"decoder.conv_out.conv3d.weight", "decoder.head.2.weight"},
        {"decoder.norm_out.weight", "decoder.head.0.gamma"},
        {"encoder.mid_block.attentions.0.norm.weight", "encoder.middle.1.norm.gamma"},
        {"encoder.mid_block.attentions.0.to_qkv.weight", "encoder.middle.1.to_qkv.weight"},
        {"encoder.mid_block.resnets.1.norm1.weight", "encoder.middle.2.residual.0.gamma"},
        {"decoder.mid_block.resnets.0.conv2.conv3d.bias", "decoder.middle.0.residual.6.bias"},
        {"encoder.down_blocks.1.resnets.0.conv_shortcut.conv3d.weight",
         "encoder.downsamples.1.downsamples.0.shortcut.weight"},
        {"decoder.up_blocks.2.resnets.1.norm2.weight",
         "decoder.upsamples.2.upsamples.1.residual.3.gamma"},
        {"encoder.down_blocks.0.downsampler.resample_conv.weight",
         "encoder.downsamples.0.resample.weight"},
        {"encoder.down_blocks.1.downsampler.time_conv.conv3d.bias",
         "encoder.downsamples.1.time_conv.bias"},
        {"decoder.up_blocks.1.upsampler.resample_conv.bias", "decoder.upsamples.1.resample.bias"},
        {"decoder.up_blocks.0.upsampler.time_conv.conv3d.weight",
         "decoder.upsamples.0.time_conv.weight"},
    };
    EXPECT(transformer_names, PART_DIT, LAYOUT_MLX);
    EXPECT(vae_names, PART_VAE, LAYOUT_MLX);
    static const char *const two[] = {"blocks.0.attn1.to_q.weight", "blocks.0.ffn.net.1.weight"};
    assert_int_equal(wan_layout_detect(two, 2, PART_DIT), LAYOUT_MLX);
    assert_int_equal(wan_layout_detect(two, 1, PART_DIT), LAYOUT_DIFFUSERS);
    static const char *const conv[] = {"decoder.conv_in.conv3d.weight"};
    assert_int_equal(wan_layout_detect(conv, 1, PART_VAE), LAYOUT_MLX);
}

static void detection(void **state) {
    (void)state;
    static const struct {
        const char *name;
        part which;
        layout spelling;
    } c[] = {
        {"model.diffusion_model.blocks.0.self_attn.q.weight", PART_DIT, LAYOUT_ORIGINAL},
        {"blocks.0.attn1.to_q.weight", PART_DIT, LAYOUT_DIFFUSERS},
        {"blocks.0.attn.q.weight", PART_TEXT, LAYOUT_ORIGINAL},
        {"encoder.block.0.layer.0.SelfAttention.q.weight", PART_TEXT, LAYOUT_DIFFUSERS},
        {"enc.blk.0.attn_q.weight", PART_TEXT, LAYOUT_GGUF},
        {"decoder.upsamples.0.upsamples.0.residual.0.gamma", PART_VAE, LAYOUT_ORIGINAL},
        {"decoder.up_blocks.0.resnets.0.norm1.gamma", PART_VAE, LAYOUT_DIFFUSERS},
        {"blocks.0.self_attn.q.lora_A.weight", PARTS, LAYOUT_UNKNOWN},
        {"something", PARTS, LAYOUT_UNKNOWN},
    };
    for (size_t i = 0; i < sizeof c / sizeof c[0]; i++)
        for (int p = 0; p < PARTS; p++)
            assert_int_equal(wan_layout_detect(&c[i].name, 1, (part)p),
                             (part)p == c[i].which ? c[i].spelling : LAYOUT_UNKNOWN);
    assert_int_equal(wan_layout_detect(NULL, 0, PART_DIT), LAYOUT_UNKNOWN);
}

static void short_buffer(void **state) {
    (void)state;
    char out[8];
    memset(out, 'x', sizeof out);
    wan_name_translate("blocks.0.attn1.to_q.weight", PART_DIT, LAYOUT_DIFFUSERS, out, sizeof out);
    assert_string_equal(out, "blocks.");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(transformer), cmocka_unit_test(text_encoder), cmocka_unit_test(vae),
        cmocka_unit_test(detection),   cmocka_unit_test(short_buffer), cmocka_unit_test(mlx),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
