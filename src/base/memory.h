/* SPDX-License-Identifier: Apache-2.0 */
/* memory.h - what the kernel says this process has in memory.  Bytes; 0 when it does not say. */
#ifndef WAN_BASE_MEMORY_H
#define WAN_BASE_MEMORY_H

#include <stdint.h>

uint64_t wan_memory_resident(void); /* now */
uint64_t wan_memory_peak(void);     /* most so far */
/* From now on "so far" begins here, where the kernel allows it. */
void wan_memory_peak_restart(void);

#endif
