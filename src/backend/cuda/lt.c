/* SPDX-License-Identifier: Apache-2.0 */
/* cuBLASLt knows columns: a row-major matrix is its transpose, so what is asked for is
 * dst^T [out, rows] = w [out, in] x^T [in, rows], "TN", the only order that fp8 has.  Bias and GELU
 * (its tanh form) are fused where an algorithm does that; SiLU and what is left are done after. */
#include "backend/cuda/lt.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/lt_inside.h"

/* ------------------------------------------------------------------------------------ loading */

static bool find_calls(void *library, lt_calls *calls) {
#define LT_FIND(name)                                                                              \
    *(void **)&calls->name = dlsym(library, "cublasLt" #name);                                     \
    if (!calls->name)                                                                              \
        return false;
    LT_CALLS(LT_FIND)
#undef LT_FIND
    return true;
}

static void close_library(cuda_lt *lt) {
    if (lt->handle)
        lt->call.Destroy(lt->handle);
    if (lt->library)
        dlclose(lt->library);
    lt->handle = NULL;
    lt->library = NULL;
}

/* Loads path, and makes a handle for the current device if there is one wanted.  What is wrong with
 * a file that exists goes to why. */
static bool try_file(cuda_lt *lt, const char *path, char *why, size_t size) {
    Dl_info info;
    lt->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!lt->library) {
        const char *text = dlerror();
        if (text && !strstr(text, "No such file"))
            snprintf(why, size, "%s", text);
        return false;
    }
    if (!find_calls(lt->library, &lt->call)) {
        snprintf(why, size, "%s is too old", path);
        close_library(lt);
        return false;
    }
    lt->version = lt->call.GetVersion();
    cublasStatus_t s = lt->d ? lt->call.Create(&lt->handle) : CUBLAS_STATUS_SUCCESS;
    if (s) {
        snprintf(why, size, "%s (%zu) does not run here: status %d", path, lt->version, (int)s);
        lt->handle = NULL;
        close_library(lt);
        return false;
    }
    bool known = dladdr(*(void **)&lt->call.GetVersion, &info) && info.dli_fname;
    snprintf(lt->path, sizeof lt->path, "%s", known ? info.dli_fname : path);
    return true;
}

/* dir and inside may be NULL: wherever the system's loader looks. */
static bool try_folder(cuda_lt *lt, const char *dir, size_t length, const char *inside, char *why,
                       size_t size) {
    static const char *const name[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"};
    char path[960];
    for (size_t i = 0; i < sizeof name / sizeof *name; i++) {
        int n = dir ? snprintf(path, sizeof path, "%.*s/%s%s", (int)length, dir, inside, name[i])
                    : snprintf(path, sizeof path, "%s", name[i]);
        if (n > 0 && (size_t)n < sizeof path && try_file(lt, path, why, size))
            return true;
    }
    return false;
}

static bool try_folders(cuda_lt *lt, const char *dirs, char *why, size_t size) {
    static const char *const inside[] = {"", "nvidia/cu13/lib/", "nvidia/cublas/lib/"};
    while (dirs && *dirs) {
        size_t length = strcspn(dirs, ":");
        for (size_t i = 0; length && length < 800 && i < sizeof inside / sizeof *inside; i++)
            if (try_folder(lt, dirs, length, inside[i], why, size))
                return true;
        dirs += length + (dirs[length] == ':');
    }
    return false;
}

static const char places[] =
    "looked in WAN_CUDA_LIBS, the system's library folders, beside libwan-cuda.so, and in "
    "/usr/local/cuda/lib64";

static bool load(cuda_lt *lt, char *why, size_t size) {
    Dl_info own;
    const char *slash;
    snprintf(why, size, "there is no libcublasLt.so.13 or .12; %s", places);
    if (try_folders(lt, getenv("WAN_CUDA_LIBS"), why, size) ||
        try_folder(lt, NULL, 0, NULL, why, size))
        return true;
    if (dladdr(places, &own) && own.dli_fname && (slash = strrchr(own.dli_fname, '/')) &&
        try_folder(lt, own.dli_fname, (size_t)(slash - own.dli_fname), "", why, size))
        return true;
    return try_folders(lt, "/usr/local/cuda/lib64:/usr/local/cuda/targets/x86_64-linux/lib", why,
                       size);
}

cuda_lt *wan_cuda_lt_open(const cuda_device *d, error *err) {
    char why[1024];
    struct cudaDeviceProp props;
    cuda_lt *lt = calloc(1, sizeof *lt);
    if (!lt) {
        wan_fail(err, WAN_E_MEMORY, "cuda: no memory for cuBLASLt");
        return NULL;
    }
    lt->d = d;
    if (!load(lt, why, sizeof why)) {
        wan_fail(err, WAN_E_DEVICE, "cuda: cuBLASLt: %s", why);
        free(lt);
        return NULL;
    }
    /* Vectors of scales: CUDA 12.9, and no other chip than Hopper. */
    lt->vector_scales = lt->version >= 120900 && d->sm == 90;
    if (!cudaGetDeviceProperties(&props, d->ordinal))
        wan_cuda_lt_table_open(lt, props.name);
    return lt;
}

static void forget(cuda_lt *lt) {
    for (int i = 0; i < lt->entries; i++) {
        lt_entry *e = lt->entry[i];
        if (e->desc)
            lt->call.MatmulDescDestroy(e->desc);
        cublasLtMatrixLayout_t layout[] = {e->w, e->x, e->d};
        for (int k = 0; k < 3; k++)
            if (layout[k])
                lt->call.MatrixLayoutDestroy(layout[k]);
        free(e);
    }
    lt->entries = 0;
}

void wan_cuda_lt_close(cuda_lt *lt) {
    if (!lt)
        return;
    forget(lt);
    close_library(lt);
    free(lt->saved);
    free(lt);
}

static void version_text(size_t version, char *text, size_t size) {
    snprintf(text, size, "%zu.%zu.%zu", version / 10000, version / 100 % 100, version % 100);
}

void wan_cuda_lt_describe(char *text, size_t size) {
    char why[1024], version[64];
    cuda_lt *lt = calloc(1, sizeof *lt); /* too large for the stack */
    if (!lt || !load(lt, why, sizeof why)) {
        snprintf(text, size, "%s", lt ? why : "no memory");
    } else {
        version_text(lt->version, version, sizeof version);
        snprintf(text, size, "%s, %s", version, lt->path);
        close_library(lt);
    }
    free(lt);
}

const char *wan_cuda_lt_path(const cuda_lt *lt) {
    return lt->path;
}

size_t wan_cuda_lt_version(const cuda_lt *lt) {
    return lt->version;
}

void wan_cuda_lt_choose(cuda_lt *lt, lt_choice how, bool vector_scales, bool exact_sums) {
    forget(lt);
    lt->choice = how;
    lt->vector_scales = vector_scales && lt->version >= 120900;
    lt->exact_sums = exact_sums;
}

void wan_cuda_lt_count(const cuda_lt *lt, int *timed, int *remembered) {
    *timed = *remembered = 0;
    for (int i = 0; i < lt->entries; i++) {
        *timed += lt->entry[i]->timed;
        *remembered += lt->entry[i]->remembered;
    }
}

/* --------------------------------------------------------------------------------- descriptors */

bool wan_cuda_lt_bias(dtype operand, dtype result) {
    return operand == WAN_F8_E4M3 || (operand == WAN_BF16 && result == WAN_BF16);
}

static cudaDataType_t cuda_type(dtype t) {
    return t == WAN_F32 ? CUDA_R_32F : t == WAN_BF16 ? CUDA_R_16BF : CUDA_R_8F_E4M3;
}

static cublasStatus_t set(cuda_lt *lt, const lt_entry *e, cublasLtMatmulDescAttributes_t what,
                          const void *value, size_t size) {
    return lt->call.MatmulDescSetAttribute(e->desc, what, value, size);
}

#define SET(lt, e, what, value) set(lt, e, CUBLASLT_MATMUL_DESC_##what, &(value), sizeof(value))

/* Addresses change from call to call, and with them only these. */
static cublasStatus_t set_addresses(cuda_lt *lt, const lt_entry *e, const product *p) {
    cublasStatus_t s = CUBLAS_STATUS_SUCCESS;
    const void *bias = wan_cuda_lt_bias(p->operand, p->result) ? p->bias_bf16 : p->bias;
    if (p->bias && !e->left.bias)
        s = SET(lt, e, BIAS_POINTER, bias);
    if (!s && p->operand == WAN_F8_E4M3 && !e->left.scales) {
        s = SET(lt, e, A_SCALE_POINTER, p->w_scale);
        if (!s)
            s = SET(lt, e, B_SCALE_POINTER, p->x_scale);
    }
    return s;
}

static cublasStatus_t set_scales(cuda_lt *lt, lt_entry *e) {
    int32_t mode = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    cublasStatus_t s = SET(lt, e, A_SCALE_MODE, mode);
    return s ? s : SET(lt, e, B_SCALE_MODE, mode);
}

static cublasStatus_t set_epilogue(cuda_lt *lt, lt_entry *e, const product *p) {
    bool bias = p->bias && !e->left.bias, gelu = p->act == WAN_GELU_TANH && !e->left.act;
    cublasLtEpilogue_t epilogue = bias && gelu ? CUBLASLT_EPILOGUE_GELU_BIAS
                                  : bias       ? CUBLASLT_EPILOGUE_BIAS
                                  : gelu       ? CUBLASLT_EPILOGUE_GELU
                                               : CUBLASLT_EPILOGUE_DEFAULT;
    int32_t type = wan_cuda_lt_bias(p->operand, p->result) ? CUDA_R_16BF : CUDA_R_32F;
    cublasStatus_t s = SET(lt, e, EPILOGUE, epilogue);
    return s || !bias ? s : SET(lt, e, BIAS_DATA_TYPE, type);
}

/* A new descriptor in place of the last one; e->left says what it leaves out. */
static cublasStatus_t describe(cuda_lt *lt, lt_entry *e, const product *p) {
    cublasOperation_t transposed = CUBLAS_OP_T;
    /* Hopper's fp8 sums keep about 14 bits unless asked for more, which e4m3 does not see. */
    int8_t fast = !lt->exact_sums;
    if (e->desc)
        lt->call.MatmulDescDestroy(e->desc);
    e->desc = NULL;
    cublasStatus_t s = lt->call.MatmulDescCreate(&e->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (!s)
        s = SET(lt, e, TRANSA, transposed);
    if (!s && p->operand == WAN_F8_E4M3)
        s = SET(lt, e, FAST_ACCUM, fast);
    if (!s && p->operand == WAN_F8_E4M3 && !e->left.scales)
        s = set_scales(lt, e);
    if (!s)
        s = set_epilogue(lt, e, p);
    return s ? s : set_addresses(lt, e, p);
}

static cublasStatus_t lay_out(cuda_lt *lt, lt_entry *e) {
    const lt_key *k = &e->key;
    uint64_t rows = (uint64_t)k->rows, out = (uint64_t)k->out, in = (uint64_t)k->in;
    cudaDataType_t operand = cuda_type(k->operand), result = cuda_type(k->result);
    cublasStatus_t s = lt->call.MatrixLayoutCreate(&e->w, operand, in, out, k->in);
    if (!s)
        s = lt->call.MatrixLayoutCreate(&e->x, operand, in, rows, k->in);
    return s ? s : lt->call.MatrixLayoutCreate(&e->d, result, out, rows, k->out);
}

static cublasLtMatmulPreference_t preference(cuda_lt *lt) {
    cublasLtMatmulPreference_t p = NULL;
    uint64_t bytes = LT_WORKSPACE;
    uint32_t align = 16;
    /* Partial sums are added in f32. */
    uint32_t reduce = CUBLASLT_REDUCTION_SCHEME_INPLACE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    if (lt->call.MatmulPreferenceCreate(&p))
        return NULL;
#define PREFER(what, value)                                                                        \
    lt->call.MatmulPreferenceSetAttribute(p, CUBLASLT_MATMUL_PREF_##what, &(value), sizeof(value))
    cublasStatus_t bad = PREFER(MAX_WORKSPACE_BYTES, bytes);
    bad |= PREFER(REDUCTION_SCHEME_MASK, reduce);
    bad |= PREFER(MIN_ALIGNMENT_A_BYTES, align);
    bad |= PREFER(MIN_ALIGNMENT_B_BYTES, align);
    bad |= PREFER(MIN_ALIGNMENT_C_BYTES, align);
    bad |= PREFER(MIN_ALIGNMENT_D_BYTES, align);
#undef PREFER
    if (bad) {
        lt->call.MatmulPreferenceDestroy(p);
        return NULL;
    }
    return p;
}

static int candidates(cuda_lt *lt, lt_entry *e, const product *p,
                      cublasLtMatmulHeuristicResult_t *found) {
    int count = 0, good = 0;
    cublasLtMatmulPreference_t prefer = preference(lt);
    if (prefer && !describe(lt, e, p))
        lt->call.MatmulAlgoGetHeuristic(lt->handle, e->desc, e->w, e->x, e->d, e->d, prefer,
                                        LT_CANDIDATES, found, &count);
    for (int i = 0; i < count; i++)
        if (!found[i].state && found[i].workspaceSize <= LT_WORKSPACE)
            found[good++] = found[i];
    if (prefer)
        lt->call.MatmulPreferenceDestroy(prefer);
    return good;
}

/* What the library is asked to do, from all to nothing but the sums. */
static unfinished leave_out(const cuda_lt *lt, const product *p, int attempt) {
    /* The library's tanh is approximate, which exact sums would show. */
    bool fp8 = p->operand == WAN_F8_E4M3,
         act = p->act == WAN_SILU || (p->act != WAN_NONE && p->operand == WAN_F32);
    if (attempt > 0 || (fp8 && !lt->vector_scales))
        return (unfinished){fp8, p->bias != NULL, p->act != WAN_NONE};
    return (unfinished){false, false, act};
}

static lt_entry *add_entry(cuda_lt *lt, const lt_key *key, const product *p, void *workspace) {
    cublasLtMatmulHeuristicResult_t found[LT_CANDIDATES];
    lt_entry *e = calloc(1, sizeof *e);
    if (!e)
        return NULL;
    if (lt->entries == LT_MOST_ENTRIES)
        forget(lt);
    lt->entry[lt->entries++] = e;
    e->key = *key;
    if (lay_out(lt, e))
        return e;
    for (int attempt = 0; attempt < 2 && !e->usable; attempt++) {
        e->left = leave_out(lt, p, attempt);
        int count = candidates(lt, e, p, found);
        if (count > 0)
            wan_cuda_lt_pick(lt, e, p, workspace, found, count);
    }
    return e;
}

/* ------------------------------------------------------------------------------------- running */

cublasStatus_t wan_cuda_lt_run(cuda_lt *lt, const lt_entry *e, const product *p,
                               const cublasLtMatmulAlgo_t *algo, void *workspace) {
    static const float one = 1, zero = 0;
    return lt->call.Matmul(lt->handle, e->desc, &one, p->w, e->w, p->x, e->x, &zero, p->dst, e->d,
                           p->dst, e->d, algo, workspace, LT_WORKSPACE, lt->d->stream);
}

static lt_entry *find_entry(cuda_lt *lt, const lt_key *key) {
    for (int i = 0; i < lt->entries; i++)
        if (!memcmp(&lt->entry[i]->key, key, sizeof *key))
            return lt->entry[i];
    return NULL;
}

bool wan_cuda_lt_product(cuda_lt *lt, const product *p, void *workspace, unfinished *left,
                         error *err) {
    lt_key key = {p->rows,         p->out,         p->in, (int32_t)p->operand, (int32_t)p->result,
                  p->bias != NULL, (int32_t)p->act};
    lt_entry *e = find_entry(lt, &key);
    if (!e)
        e = add_entry(lt, &key, p, workspace);
    if (!e || !e->usable)
        return false;
    cublasStatus_t s = set_addresses(lt, e, p);
    if (!s)
        s = wan_cuda_lt_run(lt, e, p, &e->algo, workspace);
    *left = e->left;
    if (s)
        wan_fail(err, WAN_E_DEVICE, "cuda: cuBLASLt %zu, %lld x %lld x %lld: status %d",
                 lt->version, (long long)p->rows, (long long)p->out, (long long)p->in, (int)s);
    return !s;
}
