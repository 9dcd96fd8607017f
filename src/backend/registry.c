/* SPDX-License-Identifier: Apache-2.0 */
/* The one file that names a backend. */
#include <string.h>

#include "backend/backend.h"

static const backend *const known[] = {&wan_backend_cpu};

const backend *wan_backend_find(const char *name, error *err) {
    if (!name || !strcmp(name, "auto"))
        return known[0];
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (!strcmp(known[i]->name, name))
            return known[i];
    wan_fail(err, WAN_E_DEVICE, "device %s: no such backend in this build; there is cpu", name);
    return NULL;
}
