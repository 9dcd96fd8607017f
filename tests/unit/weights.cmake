# SPDX-License-Identifier: Apache-2.0
foreach(name names convert store layout bind)
    wan_unit_test(${name} wan_weights)
endforeach()
