/* SPDX-License-Identifier: Apache-2.0 */
/* The only C++ of libwan: libsentencepiece behind a C face. */
#include <sentencepiece_processor.h>

#include <cstdlib>
#include <cstring>
#include <new>

#include "text/spiece.h"

static piece_kind kind_of(const sentencepiece::SentencePieceProcessor &sp, int id) {
    return sp.IsUnknown(id) ? PIECE_UNKNOWN : sp.IsControl(id) ? PIECE_CONTROL : PIECE_PLAIN;
}

/* Copies everything out of sp.  False: no memory. */
static bool copy_pieces(spiece *s, const sentencepiece::SentencePieceProcessor &sp) {
    int count = sp.GetPieceSize();
    size_t total = 1;
    for (int i = 0; i < count; i++)
        total += sp.IdToPiece(i).size() + 1;
    s->pieces = static_cast<piece *>(std::calloc(count > 0 ? count : 1, sizeof *s->pieces));
    s->text = static_cast<char *>(std::malloc(total));
    if (!s->pieces || !s->text)
        return false;
    s->count = count;
    s->pad = sp.pad_id();
    s->eos = sp.eos_id();
    s->unk = sp.unk_id();
    char *at = s->text;
    for (int i = 0; i < count; i++) {
        const std::string &text = sp.IdToPiece(i);
        std::memcpy(at, text.c_str(), text.size() + 1);
        s->pieces[i] = {at, text.size(), sp.GetScore(i), kind_of(sp, i)};
        at += text.size() + 1;
    }
    return true;
}

wan_status wan_sentencepiece_load(spiece *s, const void *bytes, size_t size, const char *name,
                                  error *err) {
    try {
        sentencepiece::SentencePieceProcessor sp;
        auto status = sp.LoadFromSerializedProto({static_cast<const char *>(bytes), size});
        if (!status.ok())
            return wan_fail(err, WAN_E_FORMAT,
                            "%s: libsentencepiece refuses the tokenizer model: %s", name,
                            status.error_message());
        if (copy_pieces(s, sp))
            return WAN_OK;
    } catch (const std::bad_alloc &) {
    } catch (const std::exception &e) {
        wan_spiece_free(s);
        /* Its trie catches bad_alloc and throws the words on. */
        if (std::strstr(e.what(), "bad_alloc"))
            return wan_fail(err, WAN_E_MEMORY, "%s: no memory for the tokenizer model", name);
        return wan_fail(err, WAN_E_FORMAT,
                        "%s: libsentencepiece cannot read the tokenizer model: %s", name, e.what());
    } catch (...) {
        wan_spiece_free(s);
        return wan_fail(err, WAN_E_FORMAT, "%s: libsentencepiece cannot read the tokenizer model",
                        name);
    }
    wan_spiece_free(s);
    return wan_fail(err, WAN_E_MEMORY, "%s: no memory for a tokenizer model of %zu bytes", name,
                    size);
}
