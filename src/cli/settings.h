/* SPDX-License-Identifier: Apache-2.0 */
/* settings.h - what made a clip, as JSON and as the command that makes it again.
 * The keys are the names of the options; values are numbers where the option is one, text
 * otherwise.  A seed above 2^63 - 1 is text, because JSON readers lose it as a number. */
#ifndef WAN_CLI_SETTINGS_H
#define WAN_CLI_SETTINGS_H

#include <jansson.h>

#include "pipeline/params.h"

/* Every setting that has to be the same for the same clip.  The caller frees it; NULL: no memory.
 */
json_t *wan_settings_json(const request *r);
/* One line of JSON for the clip's metadata; the caller frees it. */
char *wan_settings_text(const request *r);

/* "PROGRAM generate ..." quoted for a shell; output may be NULL.  The caller frees it; NULL: no
 * memory. */
char *wan_settings_command(const request *r, const char *program, const char *output);

/* Sets r from settings that may come from anywhere.  Strings stay those of the JSON.  WAN_E_FORMAT
 * when `name`'s settings are not such. */
wan_status wan_settings_read(request *r, const json_t *settings, const char *name, error *err);

#endif
