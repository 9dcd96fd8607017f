/* SPDX-License-Identifier: Apache-2.0 */
/* clean.h - what happens to a prompt before it is tokenised: text.md 2.5, the steps of diffusers' prompt_clean with
 * ftfy 6.3.1, less one: fix_encoding, which guesses that text was decoded wrongly ("cafÃ©") and repairs it.  No state. */
#ifndef WAN_TEXT_CLEAN_H
#define WAN_TEXT_CLEAN_H

#include "base/error.h"

/* A new string the caller frees, or NULL (WAN_E_TEXT: not UTF-8; WAN_E_MEMORY). */
char *wan_prompt_clean(const char *prompt, error *err);

#endif
