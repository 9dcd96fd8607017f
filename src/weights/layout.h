/* SPDX-License-Identifier: Apache-2.0 */
/* layout.h - where the parts of a model lie in a folder.
 * Known are the diffusers pipeline (transformer/, text_encoder/, vae/, tokenizer/), the original
 * release (everything in the root, google/umt5-xxl/), ComfyUI's folders (diffusion_models/,
 * text_encoders/, vae/) and loose files of any format side by side.  A part is known by its file's
 * name and, where that leaves a doubt, by its tensors' names; two files that both fit are an error
 * that names them. */
#ifndef WAN_WEIGHTS_LAYOUT_H
#define WAN_WEIGHTS_LAYOUT_H

#include "weights/store.h"

/* The weight file or index of a part, in `root` or in the folder of that part below it.  A root
 * that is a file is the part itself if its tensors are; otherwise its folder is searched. */
wan_status wan_layout_find(const char *root, part which, char *path, size_t size, error *err);
/* spiece.model of a model root (or of the folder of a root that is a file); failing that the text
 * encoder's file, if it carries a tokenizer. */
wan_status wan_layout_find_tokenizer(const char *root, char *path, size_t size, error *err);
/* ROOT/RELATIVE if that is a regular file; a root that is a file stands for its folder. */
bool wan_layout_file(const char *root, const char *relative, char *path, size_t size);
/* RELATIVE seen from the folder that `file` is in, if it is a regular file. */
bool wan_layout_beside(const char *file, const char *relative, char *path, size_t size);

#endif
