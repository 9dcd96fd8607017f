/* SPDX-License-Identifier: Apache-2.0 */
#include "io/shape.h"

#include <string.h>

wan_status wan_shape_bytes(const raw_shape *s, dtype type, const char *path, const char *name,
                           uint64_t *bytes, error *err) {
    const dtype_info *d = wan_dtype(type);
    int64_t n = 1, total;
    for (int i = 0; i < s->rank; i++)
        if (__builtin_mul_overflow(n, s->dim[i], &n))
            return wan_fail(err, WAN_E_FORMAT, "%s: %s has more elements than 63 bits count", path,
                            name);
    if (n % d->block)
        return wan_fail(err, WAN_E_FORMAT, "%s: %s has %lld elements, %s stores %d at a time", path,
                        name, (long long)n, d->name, d->block);
    if (__builtin_mul_overflow(n / d->block, d->bytes, &total))
        return wan_fail(err, WAN_E_FORMAT, "%s: %s has more bytes than 63 bits count", path, name);
    *bytes = (uint64_t)total;
    return WAN_OK;
}

wan_status wan_shape_fold(raw_shape *s, const char *path, const char *name, error *err) {
    int was = s->rank;
    for (int i = 0; i < s->rank && s->rank > WAN_MAX_RANK;) {
        if (s->dim[i] != 1) {
            i++;
            continue;
        }
        memmove(&s->dim[i], &s->dim[i + 1], (size_t)(s->rank - i - 1) * sizeof s->dim[0]);
        s->rank--;
    }
    if (s->rank > WAN_MAX_RANK)
        return wan_fail(err, WAN_E_FORMAT, "%s: %s has %d axes, at most %d can be used", path, name,
                        was, WAN_MAX_RANK);
    return WAN_OK;
}
