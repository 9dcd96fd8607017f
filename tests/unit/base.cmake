# SPDX-License-Identifier: Apache-2.0
wan_unit_test(team wan_base)
wan_unit_test(memory wan_base)
