/* SPDX-License-Identifier: Apache-2.0 */
/* doctor.h - what this machine has, what would be used, and why; line by line. */
#ifndef WAN_PIPELINE_DOCTOR_H
#define WAN_PIPELINE_DOCTOR_H

/* `group` is wan, cpu, cuda or use. */
typedef void (*finding)(void *user, const char *group, const char *what, const char *is);

/* `device` as --device takes it; NULL: none was asked for. */
void wan_examine(const char *device, finding line, void *user);

#endif
