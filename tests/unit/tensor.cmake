# SPDX-License-Identifier: Apache-2.0
wan_unit_test(tensor wan_tensor)
wan_unit_test(compute wan_backend)
wan_unit_test(quants wan_tensor)
