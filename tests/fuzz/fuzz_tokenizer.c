/* SPDX-License-Identifier: Apache-2.0 */
/* By the first byte: 0, the rest is a prompt, cleaned or refused; anything else, a spiece.model:
 * refused with a sentence, or it tokenises. */
#include "fuzz.h"

#include "text/clean.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

static void try_prompt(const uint8_t *data, size_t size) {
    char *prompt = malloc(size + 1);
    MUST(prompt);
    memcpy(prompt, data, size);
    prompt[size] = '\0';
    error err = {0};
    char *clean = wan_prompt_clean(prompt, &err);
    size_t n = strlen(prompt);
    MUST((clean != NULL) == (wan_utf8_check(prompt, n) == n));
    MUST(err.code == (clean ? WAN_OK : WAN_E_TEXT));
    if (clean) {
        size_t size_after = strlen(clean);
        MUST(wan_utf8_check(clean, size_after) == size_after);
        MUST(!strchr(clean, '\n') && !strstr(clean, "  "));
    }
    free(clean);
    free(prompt);
}

static void try_model(const uint8_t *data, size_t size) {
    error err = {0};
    tokenizer *t = wan_tokenizer_open_bytes(data, size, "fuzz", &err);
    if (!t) {
        expect_sentence(&err);
        return;
    }
    MUST(err.code == WAN_OK);
    int32_t ids[WAN_TEXT_LEN];
    int count, dropped;
    MUST(!wan_tokenize(t, "a cat, </s> <pad>\xF0\x9F\x99\x82 \xE7\x8C\xAB 12<extra_id_7>", ids,
                       &count, &dropped, &err));
    MUST(count > 0 && count <= WAN_TEXT_LEN && ids[count - 1] == 1 && dropped == 0);
    for (int i = 0; i < count; i++)
        MUST(ids[i] >= 0 && ids[i] < wan_tokenizer_pieces(t));
    wan_tokenizer_close(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 0 && data[0] == 0)
        try_prompt(data + 1, size - 1);
    else if (size > 0)
        try_model(data + 1, size - 1);
    return 0;
}
