# SPDX-License-Identifier: Apache-2.0
foreach(name names codes store layout bind)
    wan_unit_test(${name} wan_weights)
endforeach()
wan_unit_test(no_memory wan_weights)
foreach(name malloc calloc realloc strdup strndup)
    target_link_options(no_memory_test PRIVATE -Wl,--wrap=${name})
endforeach()
