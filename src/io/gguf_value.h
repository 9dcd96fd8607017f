/* SPDX-License-Identifier: Apache-2.0 */
/* gguf_value.h - what gguf.c and gguf_value.c share. */
#ifndef WAN_IO_GGUF_VALUE_H
#define WAN_IO_GGUF_VALUE_H

#include "io/gguf.h"

/* Bytes of one element, 0 for strings and arrays.  t < GGUF_TYPES. */
int wan_gguf_type_size(gguf_type t);
uint64_t wan_gguf_little(const uint8_t *p, int bytes);

#endif
