/* SPDX-License-Identifier: Apache-2.0 */
/* Segmentation is the Viterbi search of Hugging Face's tokenizers over the pieces, in double, with
 * its order of ties: text.md 2.3. */
#include "text/tokenizer.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "text/clean.h"
#include "text/spiece.h"
#include "text/utf8.h"

#define SPACE "\342\226\201" /* U+2581 stands for a space in pieces */
#define SPACE_BYTES 3
#define PAD 0
#define END 1
#define UNKNOWN_PENALTY 10.0
#define UMT5_PIECES                                                                                \
    256000 /* the model whose publisher adds 300 markers behind its pieces, last first */
#define MARKERS 300

struct tokenizer {
    spiece model;
    int *by_text; /* ids of all pieces that are used, sorted by their text */
    int rows;
    double unknown_score; /* of a character that is no piece */
    bool markers;         /* <extra_id_0> and so on exist */
};

static int compare_pieces(const void *a, const void *b) {
    const piece *p = *(const piece *const *)a, *q = *(const piece *const *)b;
    return strcmp(p->text, q->text);
}

static wan_status sort_pieces(tokenizer *t, const char *name, error *err) {
    const spiece *m = &t->model;
    const piece **order = malloc((size_t)m->count * sizeof *order);
    t->by_text = malloc((size_t)m->count * sizeof *t->by_text);
    wan_status status = WAN_OK;
    if (!order || !t->by_text) {
        status = wan_fail(err, WAN_E_MEMORY, "%s: no memory for %d pieces", name, m->count);
        goto done;
    }
    for (int i = 0; i < m->count; i++) {
        if (m->pieces[i].kind != PIECE_UNUSED)
            order[t->rows++] = &m->pieces[i];
    }
    qsort(order, (size_t)t->rows, sizeof *order, compare_pieces);
    for (int i = 0; i < t->rows; i++) {
        t->by_text[i] = (int)(order[i] - m->pieces);
        if (i > 0 && strcmp(order[i - 1]->text, order[i]->text) == 0)
            status =
                wan_fail(err, WAN_E_FORMAT, "%s: pieces %d and %d of the tokenizer are the same",
                         name, t->by_text[i - 1], t->by_text[i]);
    }
done:
    free(order);
    return status;
}

/* Takes over what m owns, whatever happens. */
static tokenizer *from_pieces(spiece *m, const char *name, error *err) {
    tokenizer *t = calloc(1, sizeof *t);
    if (!t) {
        wan_fail(err, WAN_E_MEMORY, "%s: no memory for a tokenizer", name);
        wan_spiece_free(m);
        return NULL;
    }
    t->model = *m;
    if (m->pad != PAD || m->eos != END || m->unk < 0) {
        wan_fail(err, WAN_E_FORMAT,
                 "%s: tokenizer has pad %d, end %d and unknown %d, UMT5 needs %d, %d and any", name,
                 m->pad, m->eos, m->unk, PAD, END);
        goto fail;
    }
    if (sort_pieces(t, name, err))
        goto fail;
    double least = INFINITY;
    for (int i = 0; i < m->count; i++) {
        if (m->pieces[i].kind < PIECE_ADDED)
            least = fmin(least, m->pieces[i].score);
    }
    t->unknown_score = least - UNKNOWN_PENALTY;
    t->markers = m->count == UMT5_PIECES;
    return t;
fail:
    wan_tokenizer_close(t);
    return NULL;
}

tokenizer *wan_tokenizer_open_bytes(const void *bytes, size_t size, const char *name, error *err) {
    spiece m;
    return wan_spiece_read(&m, bytes, size, name, err) ? NULL : from_pieces(&m, name, err);
}

tokenizer *wan_tokenizer_open(const char *path, error *err) {
    struct stat st;
    spiece m;
    text_out file = {0};
    wan_text_put(&file, path, strlen(path));
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        wan_text_put(&file, "/spiece.model", strlen("/spiece.model"));
    tokenizer *t = NULL;
    if (file.failed)
        wan_fail(err, WAN_E_MEMORY, "%s: no memory for a path", path);
    else if (!wan_spiece_open(&m, file.s, err))
        t = from_pieces(&m, file.s, err);
    free(file.s);
    return t;
}

void wan_tokenizer_close(tokenizer *t) {
    if (!t)
        return;
    wan_spiece_free(&t->model);
    free(t->by_text);
    free(t);
}

int wan_tokenizer_pieces(const tokenizer *t) {
    return t->model.count;
}

/* -------------------------------------------------------------------------------------------
 * pieces of a word */

/* Pieces that begin with the bytes seen so far: a stretch of by_text. */
typedef struct prefix {
    int from, to;
    size_t depth;
} prefix;

static unsigned char byte_at(const tokenizer *t, int row, size_t depth) {
    return (unsigned char)t->model.pieces[t->by_text[row]].text[depth];
}

/* First row of [from, to) whose byte at depth is at least `least`. */
static int first_row(const tokenizer *t, prefix p, unsigned least) {
    while (p.from < p.to) {
        int middle = p.from + (p.to - p.from) / 2;
        if (byte_at(t, middle, p.depth) < least)
            p.from = middle + 1;
        else
            p.to = middle;
    }
    return p.from;
}

/* One more byte; pieces that end before it sort first and drop out. */
static prefix narrow(const tokenizer *t, prefix p, char c) {
    unsigned char byte = (unsigned char)c;
    int from = first_row(t, p, byte);
    return (prefix){from, first_row(t, (prefix){from, p.to, p.depth}, byte + 1u), p.depth + 1};
}

/* The piece that is exactly the prefix, or -1. */
static int whole_piece(const tokenizer *t, prefix p) {
    bool whole = p.from < p.to && byte_at(t, p.from, p.depth) == 0;
    return whole ? t->by_text[p.from] : -1;
}

/* -------------------------------------------------------------------------------------------------
 * a prompt */

/* The best way to the end of a byte of the word. */
typedef struct node {
    double score;
    size_t from; /* where its last piece begins */
    int id;      /* of that piece; -1: no way known yet */
} node;

typedef struct segmenter {
    const tokenizer *t;
    node *best;   /* room for the longest word */
    int32_t *ids; /* WAN_TEXT_LEN of them */
    int count;    /* pieces so far, those that did not fit included */
} segmenter;

static void offer(node *n, double score, size_t from, int id) {
    if (n->id < 0 || score > n->score)
        *n = (node){score, from, id};
}

static void emit(segmenter *s, int id) {
    if (s->count < WAN_TEXT_LEN - 1)
        s->ids[s->count] = id;
    s->count += s->count < INT32_MAX;
}

/* Fills best[0..n]: best[i] is the best segmentation of the first i bytes. */
static void search(segmenter *s, const char *word, size_t n) {
    const tokenizer *t = s->t;
    for (size_t i = 0; i <= n; i++)
        s->best[i] = (node){.id = -1};
    s->best[0].score = 0;
    for (size_t at = 0; at < n;) {
        double score = s->best[at].score;
        size_t one = (size_t)wan_utf8_length(word + at, n - at);
        bool single = false;
        prefix p = {0, t->rows, 0};
        while (at + p.depth < n && p.from < p.to) {
            p = narrow(t, p, word[at + p.depth]);
            int id = whole_piece(t, p);
            if (id < 0)
                continue;
            offer(&s->best[at + p.depth], score + t->model.pieces[id].score, at, id);
            single = single || p.depth == one;
        }
        if (!single)
            offer(&s->best[at + one], score + t->unknown_score, at, t->model.unk);
        at += one;
    }
}

/* A word, which is a prompt's stretch from one U+2581 to the next; neighbouring unknown characters
 * become one id. */
static void segment_word(segmenter *s, const char *word, size_t n) {
    search(s, word, n);
    /* Backwards from the end, and turn the links round: next[from] through `from` of the following
     * node. */
    size_t end = n, next = n;
    while (end > 0) {
        size_t from = s->best[end].from;
        s->best[end].from = next;
        next = end;
        end = from;
    }
    bool unknown = false;
    for (size_t at = next; n > 0; at = s->best[at].from) {
        int id = s->best[at].id;
        bool again = id == s->t->model.unk;
        if (!(again && unknown))
            emit(s, id);
        unknown = again;
        if (at == n)
            break;
    }
}

/* Text between special tokens: spaces become U+2581, one stands in front, and each begins a word.
 */
static bool segment_text(segmenter *s, const char *text, size_t n) {
    text_out marked = {0};
    if (n == 0)
        return true;
    if (text[0] != ' ' && (n < SPACE_BYTES || memcmp(text, SPACE, SPACE_BYTES) != 0))
        wan_text_put(&marked, SPACE, SPACE_BYTES);
    for (size_t i = 0; i < n; i++)
        wan_text_put(&marked, text[i] == ' ' ? SPACE : text + i, text[i] == ' ' ? SPACE_BYTES : 1);
    s->best = marked.failed ? NULL : malloc((marked.size + 1) * sizeof *s->best);
    if (s->best) {
        const char *word = marked.s, *end = marked.s + marked.size;
        while (word < end) {
            const char *next = strstr(word + 1, SPACE);
            size_t size = (size_t)((next ? next : end) - word);
            segment_word(s, word, size);
            word += size;
        }
    }
    bool done = s->best != NULL;
    free(s->best);
    free(marked.s);
    return done;
}

/* "<extra_id_7>" at s: its id and how long it is; 0: none is there. */
static size_t read_marker(const char *s, int *id) {
    static const char head[] = "<extra_id_";
    size_t at = sizeof head - 1;
    if (strncmp(s, head, at) != 0)
        return 0;
    int number = 0;
    size_t digits = at;
    while (s[at] >= '0' && s[at] <= '9' && at - digits < 3)
        number = 10 * number + (s[at++] - '0');
    bool plain = at > digits && (s[digits] != '0' || at == digits + 1);
    if (!plain || number >= MARKERS || s[at] != '>')
        return 0;
    *id = UMT5_PIECES + MARKERS - 1 - number;
    return at + 1;
}

/* A special token written out in the prompt, "</s>" for one; the longest at s.  Returns its length,
 * 0: none. */
static size_t read_special(const tokenizer *t, const char *s, int *id) {
    size_t length = t->markers ? read_marker(s, id) : 0;
    prefix p = {0, t->rows, 0};
    while (s[p.depth] && p.from < p.to) {
        p = narrow(t, p, s[p.depth]);
        int found = whole_piece(t, p);
        if (found >= 0 && t->model.pieces[found].kind != PIECE_PLAIN && p.depth > length) {
            *id = found;
            length = p.depth;
        }
    }
    return length;
}

wan_status wan_tokenize(const tokenizer *t, const char *prompt, int32_t ids[WAN_TEXT_LEN],
                        int *count, int *dropped, error *err) {
    char *clean = wan_prompt_clean(prompt, err);
    if (!clean)
        return err ? err->code : WAN_E_TEXT;
    segmenter s = {.t = t, .ids = ids};
    bool done = true;
    const char *text = clean;
    for (const char *at = clean; done; at++) {
        int id = 0;
        size_t length = *at ? read_special(t, at, &id) : 0;
        if (*at && length == 0)
            continue;
        done = segment_text(&s, text, (size_t)(at - text));
        if (!*at)
            break;
        emit(&s, id);
        text = at + length;
        at = text - 1;
    }
    free(clean);
    if (!done)
        return wan_fail(err, WAN_E_MEMORY, "no memory to tokenise a prompt of %zu bytes",
                        strlen(prompt));
    int kept = s.count < WAN_TEXT_LEN - 1 ? s.count : WAN_TEXT_LEN - 1;
    ids[kept] = END;
    for (int i = kept + 1; i < WAN_TEXT_LEN; i++)
        ids[i] = PAD;
    *count = kept + 1;
    if (dropped)
        *dropped = s.count - kept;
    return WAN_OK;
}
