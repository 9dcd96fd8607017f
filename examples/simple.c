/* SPDX-License-Identifier: Apache-2.0 */
/* simple MODEL PROMPT OUT.ppm - a short clip; its last frame becomes a picture. */
#include <stdio.h>
#include <wan.h>

static int save(void *path, const uint8_t *rgb, int first, int count, int width, int height) {
    FILE *f =
        fopen(path, "wb"); /* frames arrive in order, so the last call leaves the last frame */
    if (!f || first < 0)
        return 1;
    fprintf(f, "P6\n%d %d\n255\n", width, height);
    size_t bytes = (size_t)width * (size_t)height * 3;
    size_t written = fwrite(rgb + (size_t)(count - 1) * bytes, 1, bytes, f);
    return fclose(f) != 0 || written != bytes;
}

int main(int argc, char **argv) {
    if (argc != 4)
        return WAN_E_USAGE;
    wan_error err = {WAN_OK, ""};
    wan_model *model = wan_model_open(&(wan_model_options){.model = argv[1]}, &err);
    wan_params params;
    wan_params_init(&params);
    params.prompt = argv[2];
    params.width = params.height = 64;
    params.frames = 5;
    params.steps = 4;
    if (model)
        wan_generate(model, &params, &(wan_callbacks){.user = argv[3], .frames = save}, NULL, &err);
    wan_model_close(model);
    if (err.code)
        fprintf(stderr, "simple: %s\n", err.message);
    return (int)err.code;
}
