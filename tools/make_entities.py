#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes src/text/entities.h: HTML's named character references, as Python's html.entities lists them.

    tools/make_entities.py > src/text/entities.h
"""
import html.entities


def octal(text):
    """A C string of the UTF-8 bytes; octal, because a hexadecimal escape would swallow the letter after it."""
    return "".join(f"\\{b:03o}" if b >= 0x7F or b < 0x20 or chr(b) in '"\\?' else chr(b) for b in text.encode())


table = sorted(html.entities.html5.items(), key=lambda row: row[0].encode())
name_size = max(len(name) for name, _ in table) + 1
value_size = max(len(value.encode()) for _, value in table) + 1
print(f"""/* SPDX-License-Identifier: Apache-2.0 */
/* entities.h - HTML's named character references.  Made by tools/make_entities.py; do not edit.
 * Sorted by name in byte order.  Names that HTML also accepts without a semicolon are there both ways. */
#ifndef WAN_TEXT_ENTITIES_H
#define WAN_TEXT_ENTITIES_H

#define ENTITY_NAME_MAX {name_size - 1}

typedef struct entity {{
    char name[{name_size}]; /* without the ampersand */
    char value[{value_size}]; /* UTF-8, one or two characters */
}} entity;

/* clang-format off */
static const entity entities[] = {{""")
line = "   "
for name, value in table:
    row = f' {{"{name}", "{octal(value)}"}},'
    if len(line) + len(row) > 100:
        print(line)
        line = "   "
    line += row
print(line)
print("""};
/* clang-format on */

#endif""")
